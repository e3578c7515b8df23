//! The latest message of every key, for topics whose rule has snapshots hold them.
//! # Invariants: a topic holds at most as many keys as its rule says; what the keys hold is counted
//! with the histories.
//! # Not here: what a snapshot sends (`topic`).

use super::Registry;
use crate::clock::Now;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::message::{Draft, Message};
use crate::topics::rule::Snapshot;
use crate::topics::topic::{Topic, TopicState};
use std::sync::Arc;

impl Registry {
    /// Whether there is room for the draft's key.
    pub(super) fn check_key(
        &self,
        topic: &Topic,
        state: &mut TopicState,
        draft: &Draft,
        now: Now,
    ) -> Result<(), Reason> {
        let Snapshot::Keys { max } = topic.head.rule.snapshot else { return Ok(()) };
        let is_known = state.aside().keys.has(draft.key.as_deref().unwrap_or_default());
        if is_known || draft.is_delete() {
            return Ok(());
        }
        let max = max + usize::from(planted::is(Bug::KeysOverfilled));
        let is_full =
            |state: &mut TopicState| state.aside().keys.len() >= max || self.budget.exceeded();
        if is_full(state) {
            // What is too old holds no place. It is looked for only now, because that costs a look
            // at every key.
            self.expire(topic, state, now);
        }
        if is_full(state) { Err(Reason::TooManyKeys) } else { Ok(()) }
    }

    /// Keeps a message as the latest of its key; a delete ends the key.
    pub(super) fn keep_key(&self, topic: &Topic, state: &mut TopicState, message: &Arc<Message>) {
        let is_kept = message.is_delete() && planted::is(Bug::DeletedKept);
        if topic.head.rule.snapshot == Snapshot::Latest || is_kept {
            return;
        }
        let keys = &mut state.aside().keys;
        let older = keys.remove(message.key.as_deref().unwrap_or_default());
        self.budget.release(older.map_or(0, |older| older.cost()));
        if !message.is_delete() {
            self.budget.charge(message.cost());
            keys.add(Arc::clone(message));
        }
    }
}
