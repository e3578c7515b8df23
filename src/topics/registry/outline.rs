//! What whoever operates the broker is shown of topics.
//! # Invariants: one look passes a bounded number of names and locks one topic after another; nothing
//! changes, and no message is touched.
//! # Not here: how it is asked for and spelled (`http`).

use super::Registry;
use crate::topics::message::{Offset, TopicHead};
use crate::topics::name::{TopicFilter, TopicName};
use crate::topics::topic::Heard;
use std::sync::Arc;

/// Names that one look passes: some 100 µs, for which no topic can begin.
const LOOKED_AT_MAX: usize = 4_096;

/// One topic in a few numbers.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its name, its epoch and its rule.
    pub head: Arc<TopicHead>,
    /// The offset of its latest message.
    pub top: Offset,
    /// Messages in its history.
    pub history_messages: usize,
    /// Bytes that its history holds.
    pub history_bytes: usize,
    /// Keys that a snapshot has, where the rule keeps them.
    pub keys: usize,
    /// When it was last heard of.
    pub heard: Heard,
}

impl Registry {
    /// The names behind `after`, at most `max` of those that the filter matches, and behind which
    /// name to go on. A page may be short, even empty, with more to come.
    pub fn names(
        &self,
        filter: Option<&TopicFilter>,
        after: Option<&TopicName>,
        max: usize,
    ) -> (Vec<TopicName>, Option<TopicName>) {
        self.names.read().page(filter, after, (max, LOOKED_AT_MAX))
    }

    /// A topic in a few numbers, if it is still there.
    pub fn outline(&self, name: &TopicName) -> Option<Outline> {
        let topic = self.topic(name)?;
        let state = topic.state.lock();
        Some(Outline {
            head: Arc::clone(&topic.head),
            top: state.top,
            history_messages: state.history.len(),
            history_bytes: state.history.bytes(),
            keys: state.aside.as_ref().map_or(0, |aside| aside.keys.len()),
            heard: state.heard,
        })
    }
}
