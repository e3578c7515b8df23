//! `fanfare top`: what a broker does right now, again and again.
//! # Invariants: the terminal is as it was when the command ends, however it ends; a broker that does
//! not answer is asked again.
//! # Not here: how it looks (`view`), the terminal (`screen`), what is asked (`sample`).

mod figures;
mod sample;
mod screen;
mod view;

use super::args::TrustArgs;
use super::error::CommandError;
use super::secret::TokenArgs;
use crate::client::endpoint::{Endpoint, Transport};
use clap::Args;
use jiff::fmt::friendly::SpanParser;
use sample::{Asker, Sample};
use screen::Screen;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use view::State;

/// Where the admin side of a broker is that nobody configured.
const ADDRESS: &str = "http://127.0.0.1:7602";

/// Width of what is printed where there is no terminal.
const PRINTED: (usize, usize) = (80, 40);

/// What `fanfare top` is told.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// The admin side of the broker
    #[arg(long, value_name = "URL", default_value = ADDRESS, value_parser = parse_address)]
    pub address: Endpoint,
    /// Who looks.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Who is believed, and who we are.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Look once, for a second, and end
    #[arg(long)]
    pub once: bool,
    /// Print each look as a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Watches until told to stop.
pub(super) fn run(args: &TopArgs) -> ExitCode {
    super::end(super::block_on(Box::pin(top(args))))
}

async fn top(args: &TopArgs) -> Result<(), CommandError> {
    let token = args.token.token()?;
    let window = args.interval.min(Duration::from_secs(1));
    let trust = args.trust.trust();
    let mut asker = Asker::new(&args.address, &trust, token.as_ref(), window);
    if args.once {
        let sample = asker.two_looks().await?;
        let text = if args.json { sample.json() } else { printed(&sample) };
        return Ok(super::put(text.as_bytes())?);
    }
    if args.json || !std::io::stdout().is_terminal() {
        return print_lines(args, &mut asker).await;
    }
    watch(args, &mut asker).await
}

/// The whole view, as lines for a file.
fn printed(sample: &Sample) -> String {
    let (width, height) = PRINTED;
    let state = State { sample: Some(sample), problem: None };
    let lines = view::lines(&state, width, height);
    let lines: Vec<&str> = lines.iter().map(|line| line.text.trim_end()).collect();
    let mut text = lines.join("\n");
    text.truncate(text.trim_end_matches('\n').len());
    text.push('\n');
    text
}

/// A line for each look. Ends as soon as the broker cannot be asked: nobody may be watching.
async fn print_lines(args: &TopArgs, asker: &mut Asker<'_>) -> Result<(), CommandError> {
    let mut sample = asker.two_looks().await?;
    loop {
        let line = if args.json { sample.json() } else { view::one_line(&sample) };
        super::put(line.as_bytes())?;
        tokio::time::sleep(args.interval.saturating_sub(asker.window())).await;
        sample = asker.look().await?;
    }
}

/// Draws on the terminal until somebody has seen enough.
async fn watch(args: &TopArgs, asker: &mut Asker<'_>) -> Result<(), CommandError> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut resized = signal(SignalKind::window_change())?;
    // The first answer decides whether there is anything to watch.
    let first = tokio::select! {
        first = asker.two_looks() => first?,
        _ = interrupted.recv() => return Ok(()),
    };
    let mut screen = Screen::open()?;
    let mut keys = screen::keys();
    let (mut sample, mut problem) = (first, None);
    loop {
        let state = State { sample: Some(&sample), problem: problem.as_deref() };
        screen.draw(&state)?;
        let next = async {
            tokio::time::sleep(args.interval.saturating_sub(asker.window())).await;
            asker.look().await
        };
        let mut next = std::pin::pin!(next);
        let looked = loop {
            tokio::select! {
                looked = &mut next => break looked,
                _ = resized.recv() => {
                    let state = State { sample: Some(&sample), problem: problem.as_deref() };
                    screen.draw(&state)?;
                }
                key = keys.recv() => match key {
                    Some(b'q' | b'Q' | 3) => return Ok(()),
                    Some(_) => {}
                    // There is no keyboard; signals end it.
                    None => std::future::pending().await,
                },
                _ = interrupted.recv() => return Ok(()),
                _ = terminated.recv() => return Ok(()),
            }
        };
        match looked {
            Ok(fresh) => (sample, problem) = (fresh, None),
            Err(error) => problem = Some(error.to_string()),
        }
    }
}

fn parse_address(text: &str) -> Result<Endpoint, String> {
    let mut address: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    if address.transport != Transport::Http {
        return Err("the admin side is asked over http:// or https://".to_owned());
    }
    // An address alone would mean the publish API.
    "/".clone_into(&mut address.path);
    Ok(address)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let span = SpanParser::new().parse_unsigned_duration(text);
    let (least, most) = (Duration::from_millis(500), Duration::from_hours(1));
    span.ok()
        .filter(|span| (least..=most).contains(span))
        .ok_or_else(|| "it is not a time from 500ms to 1h, for instance 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::endpoint::Security;

    #[test]
    fn the_admin_side_is_asked_over_http() {
        let shown = |text| parse_address(text).map(|it| it.to_string());
        assert_eq!(shown(ADDRESS).as_deref(), Ok("http://127.0.0.1:7602/"));
        assert_eq!(shown("https://a:1/x").as_deref(), Ok("https://a:1/"));
        assert!(shown("ws://a:1/").is_err());
        let admin = crate::config::Listen::default().admin.expect("an address");
        assert_eq!(ADDRESS, format!("http://{admin}"));
        assert_eq!(parse_address(ADDRESS).map(|it| it.security), Ok(Security::Plain));
    }

    #[test]
    fn an_interval_is_a_time_that_can_be_watched() {
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "2", "0s", "499ms", "2h", "-1s", "soon"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
