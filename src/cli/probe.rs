//! `fanfare probe`: asks a broker whether it is well, for containers that have no other program.
//! # Invariants: it succeeds only on a 200 that came in time.
//! # Not here: what the answer depends on (`http`).

use super::error::CommandError;
use crate::client::Trust;
use crate::client::endpoint::{Endpoint, Security, Transport};
use crate::client::wire::get;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// Below the time that those who run health checks commonly grant.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where the admin side of a broker is that nobody configured.
const URL: &str = "http://127.0.0.1:7602/readyz";

/// What `fanfare probe` is told.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// What to ask: /readyz, or /healthz, which is well while it drains
    #[arg(default_value = URL, value_parser = parse_page)]
    pub url: Endpoint,
}

/// Asks once.
pub(super) fn run(args: &ProbeArgs) -> ExitCode {
    super::end(super::block_on(probe(&args.url)))
}

async fn probe(page: &Endpoint) -> Result<(), CommandError> {
    let answer = timeout(TIMEOUT, Box::pin(get(page, (&Trust::default(), None)))).await;
    let (status, body) = answer.map_err(|_| CommandError::Silent(TIMEOUT))??;
    if status != 200 {
        return Err(CommandError::Unwell { status, body: body.trim_end().to_owned() });
    }
    super::put(body.as_bytes())?;
    Ok(())
}

fn parse_page(text: &str) -> Result<Endpoint, String> {
    let mut page: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    if (page.transport, page.security) != (Transport::Http, Security::Plain) {
        return Err("a broker is asked over http://".to_owned());
    }
    // An address alone would mean the publish API.
    if text.splitn(4, '/').nth(3).unwrap_or_default().is_empty() {
        "/readyz".clone_into(&mut page.path);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_whether_a_broker_is_ready_unless_told_otherwise() {
        let cases = [
            (URL, Ok(URL)),
            ("http://127.0.0.1:9", Ok("http://127.0.0.1:9/readyz")),
            ("http://[::1]:9/", Ok("http://[::1]:9/readyz")),
            ("http://a:9/healthz", Ok("http://a:9/healthz")),
            ("ws://a:9/readyz", Err("over http://")),
            ("https://a:9/readyz", Err("over http://")),
            ("a:9", Err("it begins with none of")),
        ];
        for (text, expected) in cases {
            match (parse_page(text), expected) {
                (Ok(page), Ok(expected)) => assert_eq!(page.to_string(), expected),
                (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
                (page, _) => panic!("{text}: {page:?}"),
            }
        }
        let admin = crate::config::Listen::default().admin.expect("an address");
        assert_eq!(URL, format!("http://{admin}/readyz"));
    }
}
