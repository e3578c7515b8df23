//! Topics that outlive their broker, if that restarts as planned.
//! # Invariants: nothing is committed once the topics have been taken out, so no place that a
//! publisher was told of is given again.
//! # Not here: what becomes of them in between (`restart`).

use super::{Registry, new_topic};
use crate::clock::Now;
use crate::topics::idempotency::Answer;
use crate::topics::kept::{BadKept, Kept, KeptAnswer, KeptMessage};
use crate::topics::message::{Message, Offset, TopicHead};
use crate::topics::rule::Snapshot;
use crate::topics::topic::{Topic, TopicState};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Registry {
    /// Refuses every message from now on, and takes all topics out, one after the other.
    pub fn keep(&self, now: Now) -> impl Iterator<Item = Kept> {
        self.closed.store(true, Ordering::Release);
        let topics: Vec<Arc<Topic>> =
            self.topics.iter().map(|entry| Arc::clone(entry.value())).collect();
        topics.into_iter().map(move |topic| {
            let mut state = topic.state.lock();
            self.expire(&topic, &mut state, now);
            kept(&topic.head, &state)
        })
    }

    /// Takes in a topic that was kept, before others can begin one. It has the rule that it would
    /// have if it began now, and of its past what that rule keeps.
    ///
    /// # Errors
    /// [`BadKept`], also where a topic of its name is there; then nothing was taken in.
    pub fn restore(&self, kept: Kept, now: Now) -> Result<(), BadKept> {
        kept.check()?;
        if self.topic(&kept.name).is_some() {
            return Err(BadKept);
        }
        if self.topic_count() >= self.options.topics_max {
            return Ok(());
        }
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let rule = Arc::clone(self.rules().of(&kept.name));
        let name = kept.name.clone();
        let head = TopicHead::new(id, name.clone(), kept.epoch, rule);
        let companion = Registry::companion(&head, now);
        let topic = new_topic(head, companion, now);
        self.fill(&topic, kept, now);
        self.names.write().insert(name.clone());
        self.topics.insert(name, topic);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fill(&self, topic: &Topic, kept: Kept, now: Now) {
        let mut state = topic.state.lock();
        state.top = kept.top;
        state.heard = kept.heard;
        // What an answer stood for is known where the message is.
        let digest = |message: KeptMessage| {
            let offset = message.offset;
            (offset, self.window.digest(&message.draft(topic.head.name.clone())))
        };
        let digests: HashMap<Offset, u64> =
            kept.history.iter().chain(&kept.keys).cloned().map(digest).collect();
        for KeptAnswer { key, offset, end } in kept.answers {
            let answer = Answer { digest: digests.get(&offset).copied(), offset };
            state.aside().answers.restore(&key, answer, end, &self.window);
        }
        if matches!(topic.head.rule.snapshot, Snapshot::Keys { .. }) {
            for message in kept.keys {
                self.keep_key(topic, &mut state, &message_of(topic, message));
            }
        }
        let options = &topic.head.rule.history;
        if options.messages > 0 {
            for message in kept.history {
                state.history.append(message_of(topic, message), options, &self.budget);
            }
        }
        self.expire(topic, &mut state, now);
    }
}

fn kept(head: &TopicHead, state: &TopicState) -> Kept {
    let aside = state.aside.as_deref();
    let keys = aside.into_iter().flat_map(|aside| aside.keys.after(Offset(0)));
    Kept {
        name: head.name.clone(),
        epoch: head.epoch,
        top: state.top,
        heard: state.heard,
        history: state.history.latest(usize::MAX).map(KeptMessage::of).collect(),
        keys: keys.map(KeptMessage::of).collect(),
        answers: aside.map(|aside| aside.answers.kept()).unwrap_or_default(),
    }
}

fn message_of(topic: &Topic, kept: KeptMessage) -> Arc<Message> {
    let (offset, taken) = (kept.offset, Now { uptime: kept.committed, wall_ms: kept.time_ms });
    let draft = kept.draft(topic.head.name.clone());
    Arc::new(Message::new(Arc::clone(&topic.head), offset, draft, taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::topics::message::{Draft, Epoch, Payload, Position};
    use crate::topics::name::{TopicFilter, TopicName};
    use crate::topics::registry::RegistryOptions;
    use crate::topics::rule::{Rule, Rules};

    fn registry() -> Registry {
        let keys = Rule { snapshot: Snapshot::Keys { max: 10 }, ..Rule::default() };
        let filter = TopicFilter::parse("row.*").expect("a filter");
        let rules = Rules { ordered: vec![(filter, Arc::new(keys))], ..Rules::default() };
        let options = RegistryOptions { rules, ..RegistryOptions::default() };
        let next = std::sync::atomic::AtomicU64::new(1);
        let draw = move || Some(next.fetch_add(1, Ordering::Relaxed).into());
        Registry::new(options, Vec::new(), Box::new(draw))
    }

    fn draft(topic: &str, text: &str, key: &str) -> Draft {
        let topic = TopicName::parse(topic).expect("a name");
        Draft {
            key: (!key.is_empty()).then(|| key.into()),
            ..Draft::new(topic, Payload::Text(text.to_owned().into()))
        }
    }

    fn repeatable(topic: &str, text: &str, idempotency_key: &str) -> Draft {
        Draft { idempotency_key: Some(idempotency_key.into()), ..draft(topic, text, "") }
    }

    /// Everything of a broker in another one.
    fn succeeded(before: &Registry, now: Now) -> Registry {
        let after = registry();
        // Its own topics begin with other epochs.
        (after.epochs)();
        for kept in before.keep(now) {
            after.restore(kept, now).expect("sound");
        }
        after
    }

    #[test]
    fn a_topic_goes_on_where_it_was() {
        let (before, now) = (registry(), Now::at_ms(1_000));
        let first = before.commit(draft("a", "1", ""), now).expect("a place");
        before.commit(draft("a", "2", ""), now).expect("a place");
        for (text, key) in [("1", "x"), ("2", "y"), ("3", "x")] {
            before.commit(draft("row.a", text, key), now).expect("a place");
        }
        let after = succeeded(&before, now);
        assert_eq!(after.history_bytes(), before.history_bytes());
        let name = TopicName::parse("a").expect("a name");
        let page = after.history(&name, Some(first), 10, now).expect("sound").expect("a topic");
        assert_eq!(page.top, Position { offset: Offset(2), ..first });
        assert_eq!(page.messages.len(), 1);
        assert_eq!(page.messages[0].payload, Payload::Text("2".into()));
        let third = after.commit(draft("a", "3", ""), now).expect("a place");
        assert_eq!(third, Position { offset: Offset(3), ..first });
        let again: Vec<Kept> = succeeded(&after, now).keep(now).collect();
        let row = again.iter().find(|kept| kept.name.as_str() == "row.a").expect("a topic");
        let keys: Vec<u64> = row.keys.iter().map(|message| message.offset.0).collect();
        assert_eq!(keys, [2, 3]);
    }

    #[test]
    fn a_broker_that_was_kept_takes_nothing_more() {
        let (before, now) = (registry(), Now::at_ms(0));
        before.commit(draft("a", "1", ""), now).expect("a place");
        assert_eq!(before.keep(now).count(), 1);
        for topic in ["a", "b"] {
            let refused = before.commit(draft(topic, "2", ""), now);
            assert_eq!(refused, Err(Reason::NotReady));
        }
    }

    #[test]
    fn a_publisher_that_asks_again_is_answered_as_before() {
        let (before, now) = (registry(), Now::at_ms(0));
        let place = before.commit(repeatable("a", "1", "k"), now).expect("a place");
        let after = succeeded(&before, now);
        assert_eq!(after.commit(repeatable("a", "1", "k"), now), Ok(place));
        let other = after.commit(repeatable("a", "2", "k"), now);
        assert_eq!(other, Err(Reason::IdempotencyMismatch));
        let later = Now::at_ms(5 * 60 * 1_000);
        let place = after.commit(repeatable("a", "2", "k"), later).expect("a place");
        assert_eq!(place.offset, Offset(2), "the key was forgotten when its time came");
    }

    #[test]
    fn what_has_become_too_old_meanwhile_is_not_taken_in() {
        let (before, now) = (registry(), Now::at_ms(0));
        let place = before.commit(draft("a", "1", ""), now).expect("a place");
        let kept: Vec<Kept> = before.keep(now).collect();
        let (after, later) = (registry(), Now::at_ms(301_000));
        for kept in kept {
            after.restore(kept, later).expect("sound");
        }
        let since = Position { offset: Offset(0), ..place };
        let name = TopicName::parse("a").expect("a name");
        let page = after.history(&name, Some(since), 10, later);
        assert!(matches!(page, Err(Reason::Trimmed | Reason::Expired)), "{page:?}");
        assert_eq!(after.history_bytes(), 0);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let (before, now) = (registry(), Now::at_ms(0));
        for text in ["1", "2", "3"] {
            before.commit(repeatable("a", text, text), now).expect("a place");
        }
        let kept = before.keep(now).next().expect("a topic");
        let spoil = |spoil: fn(&mut Kept)| {
            let mut kept = kept.clone();
            spoil(&mut kept);
            kept
        };
        let cases = [
            spoil(|kept| kept.top = Offset(4)),
            spoil(|kept| kept.top = Offset(2)),
            spoil(|kept| drop(kept.history.remove(1))),
            spoil(|kept| kept.answers[0].offset = Offset(4)),
            spoil(|kept| kept.answers[0].offset = Offset(0)),
        ];
        for kept in cases {
            assert_eq!(registry().restore(kept.clone(), now), Err(BadKept), "{kept:?}");
        }
        let other = Kept { epoch: Epoch::from_bits(9), ..kept };
        assert_eq!(registry().restore(other, now), Ok(()));
    }
}
