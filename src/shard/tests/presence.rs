//! Who is listed in a topic while mailboxes are full.
//! # Not here: the list (`topics::presence`), connections that end (`tests/it`).

use super::{FakeSocket, WIDE, Wired, plenty};
use crate::reason::Reason;
use crate::shard::{Joiner, Shard, ShardOptions};
use crate::topics::mailbox::{Mailbox, MailboxOptions};
use crate::topics::message::{Draft, Payload, Wire};
use crate::topics::name::{Target, TopicName};
use crate::topics::registry::{Registry, RegistryOptions};
use crate::topics::rule::{Presence, Rule, Rules};
use crate::topics::terms::Terms;
use crate::topics::topic::{Ask, ShardId};
use std::rc::Rc;
use std::sync::Arc;

/// A shard whose mailbox holds one message, and topics that list two members.
fn shard() -> (Arc<Registry>, Shard<FakeSocket>) {
    let options = MailboxOptions { messages_max: 1, ..MailboxOptions::default() };
    let mailbox = Arc::new(Mailbox::new(options, || {}));
    let rule = Rule { presence: Presence::On { members_max: 2 }, ..Rule::default() };
    let rules = Rules { other: Arc::new(rule), ..Rules::default() };
    let options = RegistryOptions { rules, ..RegistryOptions::default() };
    let registry = Arc::new(Registry::new(options, vec![mailbox], Box::new(|| Some(7))));
    let id = ShardId::new(0).expect("a shard");
    let options = ShardOptions::default();
    let shard = Shard::new(id, Arc::clone(&registry), options, Arc::default(), plenty());
    (registry, shard)
}

#[test]
fn who_is_refused_a_place_on_the_list_takes_nobody_off_it() {
    let (registry, mut shard) = shard();
    let topic = TopicName::parse("room").expect("valid name");
    let target = Target::Topic(topic.clone());
    let ids: Vec<_> = (0..4)
        .map(|_| {
            let wired = Rc::new(Wired::default());
            wired.room.set(WIDE);
            shard.open(FakeSocket(wired), Wire::WebSocketJson)
        })
        .collect();
    // The first watches, so others need a place in its mailbox; the third is counted only.
    for (index, id) in ids.iter().take(3).enumerate() {
        let joiner = Joiner { connection: *id, terms: Terms::default() };
        let seam = shard.join_topic(joiner, &topic, &Ask::default()).expect("joined");
        shard.enter(*id, &seam.head, None).expect("room");
        if index == 0 {
            shard.watch(*id, &seam.head).expect("presence");
        }
        shard.turn();
    }
    shard.leave(ids[1], &target).expect("subscribed");
    shard.turn();
    let count = || registry.attendance(&topic).expect("presence").count;
    assert_eq!(count(), 2);

    let joiner = Joiner { connection: ids[3], terms: Terms::default() };
    let seam = shard.join_topic(joiner, &topic, &Ask::default()).expect("joined");
    let draft = Draft::new(topic.clone(), Payload::Text("x".into()));
    registry.commit(draft, shard.now()).expect("the last place");
    assert_eq!(shard.enter(ids[3], &seam.head, None), Err(Reason::Overloaded));
    shard.retract(ids[3], &target).expect("subscribed");
    assert_eq!(count(), 2);
    assert!(!shard.has(ids[3], &target));
}
