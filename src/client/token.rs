//! Where tokens come from.
//! # Invariants: a token is printable ASCII, so that a header can carry it; no error repeats one.
//! # Not here: when another one is needed (`pilot`).

use super::wire::Fault;
use crate::dialect::Token;
use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// A token that is being fetched.
type Fetching = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Where tokens come from.
#[derive(Default)]
pub(super) enum Source {
    /// Nowhere: the server needs none.
    #[default]
    Nowhere,
    /// There is one.
    Fixed(String),
    /// A function gives one after the other.
    Function(Box<dyn Fn() -> Fetching + Send + Sync>),
}

impl Source {
    pub(super) fn function<F, T, E>(fetch: F) -> Source
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Display,
    {
        Source::Function(Box::new(move || {
            let fetching = fetch();
            Box::pin(async { fetching.await.map_err(|error| error.to_string()) })
        }))
    }

    /// The token to show now.
    pub(super) async fn token(&self, patience: Duration) -> Result<Option<Token>, Fault> {
        let token = match self {
            Source::Nowhere => return Ok(None),
            Source::Fixed(token) => token.clone(),
            Source::Function(fetch) => {
                let fetched = timeout(patience, fetch()).await;
                let late = |_| Fault::NoToken(format!("none within {} ms", patience.as_millis()));
                fetched.map_err(late)?.map_err(Fault::NoToken)?
            }
        };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::NoToken("it has spaces, or more than ASCII".to_owned()));
        }
        Ok(Some(Token::new(token)))
    }
}
