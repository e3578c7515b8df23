//! Commands that have no answer yet.
//! # Invariants: those of the application have a bound, and each is answered once; a publish or a
//! question about the past is sent again on the next connection, in order, and the others end with the
//! one that they were sent on.
//! # Not here: what an answer means.

use super::super::error::Error;
use super::elapsed;
use crate::clock::Now;
use crate::dialect::schema::{self, command::Action, event::Body};
use crate::reason::Retry;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// What becomes of a call.
pub(in crate::client) type Reply = Result<Body, Error>;

/// What a command is for.
#[derive(Debug)]
pub(in crate::client) enum Purpose {
    Hello,
    Subscribe(u64),
    Update(u64),
    /// Who is there, for a subscription that watches.
    Watch(u64),
    Refresh,
    /// Nobody waits for the answer.
    Nothing,
    /// The application waits.
    Asked(oneshot::Sender<Reply>),
}

/// A command that has no answer yet.
#[derive(Debug)]
struct Call {
    purpose: Purpose,
    /// Kept only of commands that may be sent again, or are still to be sent.
    action: Option<Action>,
    first_sent: Option<Now>,
    /// When it was sent on the connection that is there.
    sent: Option<Now>,
}

/// All of them, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Calls {
    by_id: BTreeMap<u64, Call>,
    last_id: u64,
    asked: usize,
    max: usize,
}

impl Calls {
    pub(super) fn new(max: usize) -> Calls {
        Calls { by_id: BTreeMap::new(), last_id: 0, asked: 0, max }
    }

    /// That there is room for one more of the application's.
    pub(super) fn check_room(&self) -> Result<(), Error> {
        if self.asked < self.max {
            return Ok(());
        }
        let text = format!("{} calls wait for an answer, and that is the limit", self.max);
        Err(Error::local("queueFull", Retry::Later, text))
    }

    /// Whether the application waits for an answer that can come on this connection.
    pub(super) fn are_awaited(&self) -> bool {
        self.asked > 0
    }

    /// A command that is sent now.
    pub(super) fn add(&mut self, now: Now, action: Action, purpose: Purpose) -> schema::Command {
        let kept = match purpose {
            Purpose::Asked(_) if is_resent(&action) => Some(action.clone()),
            _ => None,
        };
        let call = Call { purpose, action: kept, first_sent: Some(now), sent: Some(now) };
        let id = self.insert(call);
        schema::Command { id, action: Some(action) }
    }

    /// A command that is sent as soon as there is a connection.
    pub(super) fn keep(&mut self, action: Action, reply: oneshot::Sender<Reply>) {
        let purpose = Purpose::Asked(reply);
        self.insert(Call { purpose, action: Some(action), first_sent: None, sent: None });
    }

    fn insert(&mut self, call: Call) -> u64 {
        self.asked += usize::from(matches!(call.purpose, Purpose::Asked(_)));
        self.last_id += 1;
        self.by_id.insert(self.last_id, call);
        self.last_id
    }

    /// Takes the call that an event answers.
    pub(super) fn answered(&mut self, id: u64) -> Option<(Purpose, Option<Now>)> {
        let call = self.by_id.remove(&id)?;
        self.asked -= usize::from(matches!(call.purpose, Purpose::Asked(_)));
        Some((call.purpose, call.sent))
    }

    /// When the oldest was sent for whose answer the application waits.
    pub(super) fn oldest(&self, is_awaited: impl Fn(u64) -> bool) -> Option<Now> {
        let awaited = |call: &&Call| match call.purpose {
            Purpose::Asked(_) => true,
            Purpose::Subscribe(id) => is_awaited(id),
            _ => false,
        };
        self.by_id.values().filter(awaited).find_map(|call| call.sent)
    }

    /// What is to be sent on a connection that has just begun.
    pub(super) fn resend(&mut self, now: Now, retry_max: Duration) -> Vec<schema::Command> {
        let too_old = |call: &Call| {
            let is_publish = matches!(call.action, Some(Action::Publish(_)));
            is_publish && call.first_sent.is_some_and(|first| elapsed(first, now) > retry_max)
        };
        let cause = Error::local("lost", Retry::Later, "the connection was lost for too long");
        self.settle(too_old, |_| Error::unknown(&cause));
        let mut commands = Vec::new();
        for (id, call) in &mut self.by_id {
            if call.sent.is_none()
                && let Some(action) = &call.action
            {
                call.sent = Some(now);
                call.first_sent.get_or_insert(now);
                commands.push(schema::Command { id: *id, action: Some(action.clone()) });
            }
        }
        commands
    }

    /// The connection is gone: what may not be sent again has failed.
    pub(super) fn lost(&mut self) {
        let gone = |call: &Call| {
            let again = call.action.as_ref().is_some_and(is_resent);
            call.sent.is_some() && !again
        };
        self.settle(gone, |_| {
            let text = "the connection ended before the answer came";
            Error::local("disconnected", Retry::Later, text)
        });
        for call in self.by_id.values_mut() {
            call.sent = None;
        }
    }

    /// Gives up those that have waited for too long, although the connection is there. Returns the
    /// subscriptions that have.
    pub(super) fn give_up(&mut self, now: Now, patience: Duration) -> Vec<u64> {
        let late = |call: &Call| call.sent.is_some_and(|sent| elapsed(sent, now) >= patience);
        let silent = Error::unanswered(patience);
        self.settle(
            |call| matches!(call.purpose, Purpose::Asked(_)) && late(call),
            |call| match call.action {
                Some(Action::Publish(_)) => Error::unknown(&silent),
                _ => silent.clone(),
            },
        );
        let subscription = |call: &Call| match call.purpose {
            Purpose::Subscribe(id) => Some(id),
            _ => None,
        };
        self.by_id.values().filter(|call| late(call)).filter_map(subscription).collect()
    }

    /// There will be no answers any more.
    pub(super) fn end(&mut self, error: &Error) {
        self.settle(
            |_| true,
            |call| match call.action {
                Some(Action::Publish(_)) if call.first_sent.is_some() => Error::unknown(error),
                _ => error.clone(),
            },
        );
    }

    fn settle(&mut self, which: impl Fn(&Call) -> bool, error: impl Fn(&Call) -> Error) {
        let ids = self.by_id.iter().filter(|(_, call)| which(call)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            let Some(call) = self.by_id.remove(&id) else { continue };
            let error = error(&call);
            if let Purpose::Asked(reply) = call.purpose {
                self.asked -= 1;
                // Whoever asked may have gone.
                reply.send(Err(error)).unwrap_or_default();
            }
        }
    }
}

/// Whether a command without an answer is sent again on the next connection.
fn is_resent(action: &Action) -> bool {
    matches!(action, Action::Publish(_) | Action::History(_))
}
