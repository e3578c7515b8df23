//! A message on its way to a topic.
//! # Invariants: each has an idempotency key, so that it can be sent again; what is sent is whole JSON.
//! # Not here: sending again (`pilot`).

use super::error::Error;
use super::event::{Payload, Published};
use super::handle::{Boxed, Client, unfitting};
use super::wire::Fault;
use crate::dialect::schema::{self, command::Action, event::Body, publish::Payload as Sent};
use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;

/// A message that is being made. Made by [`Client::publish`].
///
/// While there is no connection it waits; if the connection ends before its answer has come, it is sent
/// again with the same idempotency key.
#[derive(Debug)]
#[must_use = "nothing is published before it is awaited or sent"]
pub struct Publishing {
    client: Client,
    publish: schema::Publish,
    fault: Option<Fault>,
}

impl Publishing {
    pub(super) fn new(client: Client, topic: &str) -> Publishing {
        let publish = schema::Publish { topic: topic.to_owned(), ..Default::default() };
        Publishing { client, publish, fault: None }
    }

    /// Says a value, as JSON.
    pub fn json(mut self, value: &impl Serialize) -> Publishing {
        match serde_json::to_vec(value) {
            Ok(text) => self.publish.payload = Some(Sent::Data(text.into())),
            Err(error) => self.fault = Some(Fault::Payload(error.to_string())),
        }
        self
    }

    /// Says a text.
    pub fn text(self, text: impl Into<String>) -> Publishing {
        self.payload(Payload::Text(text.into()))
    }

    /// Says bytes of any kind.
    pub fn binary(self, bytes: impl Into<Bytes>) -> Publishing {
        self.payload(Payload::Binary(bytes.into()))
    }

    /// Says this. The text of a JSON value travels as it is.
    pub fn payload(mut self, payload: Payload) -> Publishing {
        self.publish.payload = Some(match payload {
            Payload::Json(text) => {
                if let Err(error) = serde_json::from_slice::<IgnoredAny>(&text) {
                    self.fault = Some(Fault::Payload(format!("it is not JSON: {error}")));
                } else if std::str::from_utf8(&text).is_err() {
                    self.fault = Some(Fault::Payload("it is not UTF-8".to_owned()));
                }
                Sent::Data(text)
            }
            Payload::Text(text) => Sent::Text(text),
            Payload::Binary(bytes) => Sent::Binary(bytes),
        });
        self
    }

    /// What the message is about, for instance a row or a symbol.
    pub fn key(mut self, key: impl Into<String>) -> Publishing {
        self.publish.key = key.into();
        self
    }

    /// Says that what the key names is gone, instead of a payload.
    pub fn delete(mut self) -> Publishing {
        self.publish.delete = true;
        self
    }

    /// For how long it may be sent.
    pub fn ttl(mut self, ttl: Duration) -> Publishing {
        self.publish.ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Makes a retry safe beyond this program: the same key with the same message gets the first answer.
    /// Left out, it is a fresh random one.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Publishing {
        self.publish.idempotency_key = key.into();
        self
    }

    /// Sends it, without waiting for the answer. What is sent by one client reaches a topic in the order of
    /// these calls.
    ///
    /// # Errors
    /// The payload is not valid, as many calls wait as may, or the client is closed.
    pub fn send(mut self) -> Result<Answer, Error> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        if self.publish.idempotency_key.is_empty() {
            self.publish.idempotency_key = random_key();
        }
        Ok(Answer(self.client.call(Action::Publish(self.publish))?))
    }
}

impl IntoFuture for Publishing {
    type Output = Result<Published, Error>;
    type IntoFuture = Boxed<Self::Output>;

    fn into_future(self) -> Boxed<Self::Output> {
        Box::pin(async move {
            // The client must live as long as somebody waits.
            let _client = self.client.clone();
            self.send()?.await
        })
    }
}

/// The answer to a message that was sent: its place, or why it has none.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<Body, Error>>);

impl Future for Answer {
    type Output = Result<Published, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(match answer {
            Ok(Ok(Body::Published(published))) => Published::of(&published).map_err(Into::into),
            Ok(Ok(other)) => Err(unfitting(&other)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::closed()),
        })
    }
}

/// One that nobody else has. Without random numbers there is none, and a retry is not safe.
fn random_key() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return String::new();
    }
    format!("{:032x}", u128::from_le_bytes(bytes))
}
