//! A client: subscribe and publish over one connection that mends itself.
//!
//! ```no_run
//! # async fn prices() -> Result<(), fanfare::client::Error> {
//! use fanfare::client::{Client, Event};
//!
//! let client = Client::connect("ws://127.0.0.1:7600/ws").open().await?;
//! client.publish("room.1").text("hello").key("greeting").await?;
//!
//! let mut prices = client.subscribe("ticker.>").snapshot().max_hz(2.0).await?;
//! while let Some(event) = prices.next().await {
//!     match event? {
//!         Event::Message(message) => println!("{} {:?}", message.topic, message.payload),
//!         Event::Gap(gap) => println!("{} {}..{} are missing", gap.topic, gap.from, gap.to),
//!         Event::Recovered(recovery) if recovery.loss.is_some() => println!("load it anew"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it takes care of
//!
//! - *The connection is lost.* It reconnects: exponential backoff with full jitter, after the time that a
//!   server that stops has asked for. What says "do not come back" ends the client, with the reason.
//! - *The server falls silent.* It has promised to speak at certain intervals; some time later the
//!   connection is given up.
//! - *Messages were missed meanwhile.* Each topic is resumed after its last message.
//!   [`Event::Recovered`] without a [`Loss`]: exactly the missing messages follow. With one: whatever was
//!   built from the topic must be loaded anew.
//! - *Messages are missing otherwise.* [`Event::Gap`] says which, and why; also where nobody said so, as
//!   far as that can be known: on a subscription to exactly one topic that is granted all messages.
//! - *A message comes twice.* It is told once.
//! - *A publish has no answer when the connection ends.* It is sent again, in order, with the same
//!   idempotency key.
//! - *The application is slow.* The socket is not read, and the server does what the subscription's terms
//!   say. Between the two wait as many events as [`Subscribing::buffer`] says.
//! - *A token expires.* [`Connecting::token_with`] is asked for another one in time, and the connection
//!   goes on.
//!
//! # What has a bound
//!
//! - Events that wait for the application: [`Subscribing::buffer`] of them, or 4 MiB of messages, and what
//!   was read with the last of them. Then nothing is read from the socket. While an answer is waited for,
//!   as much again may come before it.
//! - Calls that wait for an answer: [`Connecting::queue`]. Then an [`Error`] `queueFull`.
//! - An answer, while the connection is there: [`Connecting::answer`]. Then an [`Error`] `unanswered`, or
//!   for a publish `unknown`.
//! - A publish that is sent again: four minutes. Then an [`Error`] `unknown`.
//! - Topics of one filter that are followed: 65,536, of which a resume names 1,024 in 60,000 bytes. Beyond
//!   both, [`Loss::TooMany`].
//! - One event: 128 MiB. Then the connection is given up.
//!
//! A client has one subscription to a topic or filter; who wants it twice clones what comes.
//! A program that must not wait for an answer while it leaves a subscription unread reads that one in a task
//! of its own.
//!
//! # What it brings with it
//!
//! Without the feature `server`, which is there by default, none of the broker's own modules and of what only
//! they need is built: `fanfare = { version = "…", default-features = false }`.
//!
//! # Invariants: what is decided is decided by `pilot` and `feed`, which know no socket and no clock;
//! every queue, buffer and map has a bound.
//! # Not here: what a topic may be called or who may use it (the server refuses); what is printed (`cli`).

mod agreement;
mod backoff;
mod driver;
pub mod endpoint;
mod error;
mod event;
mod feed;
mod handle;
mod lane;
mod pilot;
mod publishing;
mod subscribing;
mod token;
pub(crate) mod wire;

pub use crate::reason::Retry;
pub use crate::topics::message::{Epoch, Offset, Position};
pub use crate::topics::name::TopicName;
pub use crate::topics::terms::{Overflow, Policy, Rate, Terms};
pub use error::Error;
pub use event::{
    Beginning, Durability, Event, Gap, GapReason, HistoryPage, Loss, Member, Message, Payload,
    Presence, Published, Recovery, Subscribed,
};
pub use handle::{Asking, Client, Connecting, States};
pub use pilot::State;
pub use publishing::{Answer, Publishing};
pub use subscribing::{Subscribing, Subscription, Updating};
pub use wire::Trust;
