//! The admin API: what connections and topics there are, who is to go, and that the broker is to
//! drain or to read its configuration anew.
//! # Invariants: nothing is shown or done before the lock has been asked; a shard is asked for a
//! bounded piece of work at a time, and never waited for longer than a request may take.
//! # Not here: metrics and health, which everybody may see (`ops`).

mod commands;
mod connections;
mod lock;
mod overview;
mod query;
mod topics;
mod window;

pub use lock::Lock;
pub use window::{Access, Window};

use super::{Answer, json};
use crate::control::Control;
use crate::metrics::{Counters, Sources};
use crate::reason::{Reason, Refusal};
use crate::session::Broker;
use crate::shard::Shard;
use crate::shard::conduit::Conduit;
use crate::shard::worker::Jobs;
use crate::topics::registry::Registry;
use crate::ws::handshake::Refused;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use query::Query;
use serde::Serialize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// How long one piece of work of one shard may take.
const SHARD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the admin API works on.
#[derive(Debug)]
pub struct Admin {
    /// Who may use it.
    pub lock: Lock,
    /// What all sessions share.
    pub broker: Arc<Broker>,
    /// The topics.
    pub registry: Arc<Registry>,
    /// Where the shards' work is handed in, in the order of their numbers.
    pub shards: Vec<Jobs>,
    /// The numbers.
    pub sources: Sources,
    /// What this thread counts.
    pub counters: Arc<Counters>,
    /// Where an operator's requests go.
    pub control: Control,
    /// Held by whoever watches the topics: one at a time.
    pub watching: Mutex<()>,
}

/// A path of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page<'a> {
    Overview,
    Connections,
    Slowest,
    Connection(&'a str),
    Topics,
    Hottest,
    Disconnect,
    Revoke,
    Drain,
    Reload,
}

impl Page<'_> {
    fn find(path: &str) -> Option<Page<'_>> {
        Some(match path.strip_prefix("/v1/")? {
            "overview" => Page::Overview,
            "connections" => Page::Connections,
            "connections/slowest" => Page::Slowest,
            "topics" => Page::Topics,
            "topics/hottest" => Page::Hottest,
            "disconnect" => Page::Disconnect,
            "revoke" => Page::Revoke,
            "drain" => Page::Drain,
            "reload" => Page::Reload,
            path => Page::Connection(path.strip_prefix("connections/")?),
        })
    }

    fn changes_something(self) -> bool {
        matches!(self, Page::Disconnect | Page::Revoke | Page::Drain | Page::Reload)
    }
}

impl Admin {
    /// Answers a request, if its path is one of the API.
    ///
    /// # Errors
    /// The refusal, which has been counted.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let answered = self.route(request).await;
        answered.inspect_err(|refused| {
            self.counters.refusals.of(refused.refusal.reason).increment();
        })
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let uri = request.uri().clone();
        let page = Page::find(uri.path()).ok_or(Refusal::from(Reason::NotFound))?;
        self.enter(page, &self.lock, request).await
    }

    /// Answers a request for a page behind this lock.
    async fn enter(
        &self,
        page: Page<'_>,
        lock: &Lock,
        request: Request<Incoming>,
    ) -> Result<Answer, Refused> {
        lock.open(&request)?;
        let is_command = page.changes_something();
        let is_right = match *request.method() {
            Method::POST => is_command,
            Method::GET | Method::HEAD => !is_command,
            _ => false,
        };
        if !is_right {
            let (detail, headers): (_, &[_]) = if is_command {
                ("this changes something, which is POST", &[("allow", "POST")])
            } else {
                ("this is only read, which is GET", &[("allow", "GET")])
            };
            return Err(Refused {
                refusal: Refusal::new(Reason::MethodNotAllowed, detail),
                headers,
            });
        }
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let answered = match page {
            Page::Overview => overview::overview(self, &query),
            Page::Connections => connections::page(self, &query).await,
            Page::Slowest => connections::slowest(self, &query).await,
            Page::Connection(name) => connections::one(self, name, &query).await,
            Page::Topics => topics::page(self, &query).await,
            Page::Hottest => topics::hottest(self, &query).await,
            Page::Disconnect => commands::disconnect(self, request, &query).await,
            Page::Revoke => commands::revoke(self, request, &query).await,
            Page::Drain => commands::drain(self, request, &query).await,
            Page::Reload => commands::reload(self, request, &query).await,
        };
        Ok(answered?)
    }

    /// Has a shard do a piece of work.
    async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        work: impl FnOnce(&mut Shard<Rc<Conduit>>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let silent = || Refusal::new(Reason::Overloaded, format!("shard {shard} does not answer"));
        let jobs = self.shards.get(shard).ok_or_else(silent)?;
        let (done, answer) = oneshot::channel();
        let job = jobs.run(move |context| {
            // Whoever asked may have given up.
            done.send(context.with(work)).unwrap_or(());
        });
        job.map_err(|_| silent())?;
        let answer = timeout(SHARD_TIMEOUT, answer).await;
        answer.map_err(|_| silent())?.map_err(|_| silent())
    }
}

/// An answer with this content.
fn show(content: &impl Serialize) -> Result<Answer, Refusal> {
    let body = serde_json::to_vec(content)
        .map_err(|error| Refusal::new(Reason::InternalError, error.to_string()))?;
    Ok(json(StatusCode::OK, body.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_page_or_nothing() {
        let cases = [
            ("/v1/overview", Some(Page::Overview)),
            ("/v1/connections", Some(Page::Connections)),
            ("/v1/connections/slowest", Some(Page::Slowest)),
            ("/v1/connections/0-1.2", Some(Page::Connection("0-1.2"))),
            ("/v1/topics/hottest", Some(Page::Hottest)),
            ("/v1/revoke", Some(Page::Revoke)),
            ("/v1/publish", None),
            ("/v1", None),
            ("/overview", None),
            ("/v1/topics/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Page::find(path), expected, "{path}");
        }
    }
}
