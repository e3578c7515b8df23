//! What a broker says about itself, asked over its admin API, and what two answers say together.
//! # Invariants: a counter that has gone back, because the broker is another one, is a rate of zero.
//! # Not here: how it looks (`view`).

use super::super::error::CommandError;
use crate::client::Trust;
use crate::client::endpoint::Endpoint;
use crate::client::wire::get;
use crate::dialect::Token;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Time for an answer beyond the time that it watches.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Rows of each table: more than a tall terminal shows.
const ROWS_MAX: usize = 40;

/// The broker's counters, as `/v1/overview` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Overview {
    pub(super) server: String,
    pub(super) time_ms: u64,
    pub(super) uptime_ms: u64,
    pub(super) shards: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) connections: u64,
    pub(super) blocked: u64,
    pub(super) topic_subscriptions: u64,
    pub(super) filter_subscriptions: u64,
    pub(super) topics: u64,
    pub(super) history_bytes: u64,
    pub(super) queued_bytes: u64,
    pub(super) opened_total: u64,
    pub(super) published_total: u64,
    pub(super) published_bytes_total: u64,
    pub(super) delivered_total: u64,
    pub(super) received_bytes_total: u64,
    pub(super) sent_bytes_total: u64,
    pub(super) gaps_total: u64,
    pub(super) dropped_total: u64,
    pub(super) conflated_total: u64,
    pub(super) caught_up_total: u64,
    pub(super) refused_total: u64,
}

/// What happened in a second, on average.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rates {
    pub(super) published: f64,
    pub(super) published_bytes: f64,
    pub(super) delivered: f64,
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    pub(super) opened: f64,
    pub(super) gaps: f64,
    pub(super) dropped: f64,
    pub(super) conflated: f64,
    pub(super) caught_up: f64,
    pub(super) refused: f64,
}

/// A connection that lags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Slow {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    pub(super) wire: String,
    pub(super) connected_ms: u64,
    pub(super) queued_bytes: u64,
    pub(super) behind: u64,
    pub(super) sent_bytes: u64,
}

/// A topic that is busy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hot {
    pub(super) topic: String,
    pub(super) offset: u64,
    pub(super) per_second: f64,
}

/// One look at a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    pub(super) address: String,
    pub(super) overview: Overview,
    pub(super) rates: Rates,
    pub(super) slowest: Vec<Slow>,
    /// `None` when somebody else is watching the topics.
    pub(super) hottest: Option<Vec<Hot>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SlowPage {
    connections: Vec<Slow>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HotPage {
    topics: Vec<Hot>,
}

#[derive(Deserialize)]
struct Refused {
    error: RefusedBecause,
}

#[derive(Deserialize)]
struct RefusedBecause {
    name: String,
    message: String,
}

impl Rates {
    pub(super) fn between(before: &Overview, after: &Overview) -> Rates {
        let took_ms = after.uptime_ms.saturating_sub(before.uptime_ms);
        #[expect(clippy::cast_precision_loss, reason = "rates are shown with three digits")]
        let rate = |of: fn(&Overview) -> u64| {
            of(after).saturating_sub(of(before)) as f64 * 1000.0 / took_ms.max(1) as f64
        };
        Rates {
            published: rate(|it| it.published_total),
            published_bytes: rate(|it| it.published_bytes_total),
            delivered: rate(|it| it.delivered_total),
            received_bytes: rate(|it| it.received_bytes_total),
            sent_bytes: rate(|it| it.sent_bytes_total),
            opened: rate(|it| it.opened_total),
            gaps: rate(|it| it.gaps_total),
            dropped: rate(|it| it.dropped_total),
            conflated: rate(|it| it.conflated_total),
            caught_up: rate(|it| it.caught_up_total),
            refused: rate(|it| it.refused_total),
        }
    }
}

impl Sample {
    /// As a line of JSON.
    pub(super) fn json(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{json}\n")
    }
}

/// Asks a broker again and again.
pub(super) struct Asker<'a> {
    address: &'a Endpoint,
    trust: &'a Trust,
    token: Option<&'a Token>,
    window: Duration,
    /// The counters of the look before.
    before: Overview,
}

impl<'a> Asker<'a> {
    /// `window` is for how long topics are watched at each look.
    pub(super) fn new(
        address: &'a Endpoint,
        trust: &'a Trust,
        token: Option<&'a Token>,
        window: Duration,
    ) -> Asker<'a> {
        Asker { address, trust, token, window, before: Overview::default() }
    }

    /// About how long a look takes.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Looks for the first time, when there is nothing yet to compare with.
    ///
    /// # Errors
    /// The broker cannot be asked, or refuses.
    pub(super) async fn two_looks(&mut self) -> Result<Sample, CommandError> {
        self.before = self.ask("/v1/overview").await?;
        self.look().await
    }

    /// Looks; the rates are those since the look before.
    ///
    /// # Errors
    /// The broker cannot be asked, or refuses.
    pub(super) async fn look(&mut self) -> Result<Sample, CommandError> {
        let over_ms = self.window.as_millis();
        let path = format!("/v1/topics/hottest?limit={ROWS_MAX}&overMs={over_ms}");
        let hottest = match self.ask::<HotPage>(&path).await {
            Ok(page) => Some(page.topics),
            Err(CommandError::Refused { name, .. }) if name == "tooManyRequests" => {
                tokio::time::sleep(self.window).await;
                None
            }
            Err(error) => return Err(error),
        };
        let path = format!("/v1/connections/slowest?limit={ROWS_MAX}");
        let slowest = self.ask::<SlowPage>(&path).await?.connections;
        let overview: Overview = self.ask("/v1/overview").await?;
        let rates = Rates::between(&self.before, &overview);
        self.before = overview.clone();
        let address = self.address.authority();
        Ok(Sample { address, overview, rates, slowest, hottest })
    }

    async fn ask<T: for<'d> Deserialize<'d>>(&self, path: &str) -> Result<T, CommandError> {
        let page = Endpoint { path: path.to_owned(), ..self.address.clone() };
        let limit = self.window + TIMEOUT;
        let answer = timeout(limit, Box::pin(get(&page, (self.trust, self.token)))).await;
        let (status, body) = answer.map_err(|_| CommandError::Silent(limit))??;
        if status == 200 {
            let read = serde_json::from_str(&body);
            return read.map_err(|error| CommandError::Malformed(error.to_string()));
        }
        Err(match serde_json::from_str::<Refused>(&body) {
            Ok(Refused { error: RefusedBecause { name, message } }) => {
                CommandError::Refused { name, message }
            }
            Err(_) => CommandError::Unwell { status, body: body.trim_end().to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_two_looks_differ_by_and_never_negative() {
        let at = |uptime_ms, published_total, gaps_total| Overview {
            uptime_ms,
            published_total,
            gaps_total,
            ..Overview::default()
        };
        let rates = Rates::between(&at(1000, 10, 0), &at(3000, 20, 3));
        assert_eq!((rates.published, rates.gaps, rates.refused), (5.0, 1.5, 0.0));
        // Another broker, which has just begun.
        let rates = Rates::between(&at(3000, 20, 3), &at(100, 1, 0));
        assert_eq!((rates.published, rates.gaps), (0.0, 0.0));
    }

    #[test]
    fn an_answer_may_say_more_than_is_known_and_less() {
        let read: Overview = serde_json::from_str(r#"{"connections":3,"colour":"red"}"#).unwrap();
        assert_eq!((read.connections, read.memory_bytes), (3, None));
    }
}
