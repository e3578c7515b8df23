//! What clients and publishers ask for.
//! # Invariants: no two publishes say the same, but for retries and deletes.
//! # Not here: when they ask (`world`).

use super::{World, place};
use crate::history::{
    Command, Content, Event, Fact, Overflow, Payload, Policy, Position, Publish, Query, Subscribe,
    TopicPosition, Update,
};
use crate::scenario::Keys;
use crate::spelling::encode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfare::topics::message::Wire;

impl World {
    /// What nobody has said yet.
    fn draw_content(&mut self) -> Content {
        let number = self.next_content;
        self.next_content += 1;
        let padding = "x".repeat(self.chance.below(self.scenario.padding + 1));
        let payload = match self.chance.below(3) {
            0 => Payload::Data(format!(r#"{{"n":{number},"of":"{padding}"}}"#)),
            1 => Payload::Text(format!("{number} \"{padding}\"")),
            _ => Payload::Base64(BASE64.encode(format!("{number} {padding}"))),
        };
        Content { key: self.draw_key(), payload }
    }

    fn draw_key(&mut self) -> String {
        let Keys { count, percent, .. } = self.scenario.keys;
        if self.chance.chance(percent) {
            format!("k{}", self.chance.below(count))
        } else {
            String::new()
        }
    }

    fn draw_publish(&mut self) -> Publish {
        let (topic, content) = (self.some_topic(), self.draw_content());
        let Keys { deletes_percent, ending_percent, ttl_ms_max, .. } = self.scenario.keys;
        if !content.key.is_empty() && self.chance.chance(deletes_percent) {
            // Deletes of a key are all alike, so nothing else tells them apart.
            let payload = Payload::Deleted;
            let publish = Content { payload, ..content };
            return Publish { topic, content: publish, idempotency_key: String::new(), ttl_ms: 0 };
        }
        let ends = self.chance.chance(ending_percent);
        let ttl_ms = if ends { 1 + self.chance.below(ttl_ms_max) as u64 } else { 0 };
        let idempotency_key = match self.chance.below(20) {
            0..=3 => format!("i{}", self.next_content),
            4 => format!("i{}", self.chance.below(4)),
            _ => String::new(),
        };
        let publish = Publish { topic, content, idempotency_key, ttl_ms };
        if !publish.idempotency_key.is_empty() {
            self.keyed.push(publish.clone());
        }
        publish
    }

    pub(super) fn publish(&mut self) {
        let index = self.chance.below(self.clients.len());
        for _ in 0..self.chance.within(1..=4) {
            if self.clients[index].link.is_some() {
                let publish = self.draw_publish();
                self.send(index, Command::Publish(publish));
            }
        }
    }

    /// Asks again what was asked before, most likely lately, or with a key that means something
    /// else already.
    pub(super) fn retry(&mut self) {
        let lately = self.keyed.len().saturating_sub(4);
        let from = if self.chance.chance(80) { lately } else { 0 };
        let Some(publish) = self.chance.pick(&self.keyed[from..]).cloned() else { return };
        let publish = if self.chance.chance(20) {
            Publish { content: self.draw_content(), ..publish }
        } else {
            publish
        };
        if self.chance.chance(50) {
            let index = self.chance.below(self.clients.len());
            self.send(index, Command::Publish(publish));
        } else {
            self.publish_beside(publish);
        }
    }

    pub(super) fn publish_directly(&mut self) {
        for _ in 0..self.chance.within(1..=4) {
            let publish = self.draw_publish();
            self.publish_beside(publish);
        }
    }

    fn publish_beside(&mut self, publish: Publish) {
        let command = Command::Publish(publish);
        let id = self.history.len() as u64 + 1;
        let bytes = encode(id, &command, Wire::WebSocketJson);
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("our own JSON");
        let result = self.life.publish(value["publish"].to_string().as_bytes());
        let event = match result {
            Ok(position) => Event::Published(place(position)),
            Err(refusal) => Event::Error { name: refusal.reason.name().into() },
        };
        self.note(Fact::Sent { connection: self.direct, id, command });
        self.note(Fact::Heard { connection: self.direct, id, event, sent: None });
    }

    pub(super) fn subscribe(&mut self) {
        let index = self.chance.below(self.clients.len());
        let (overflow, policy) = (self.draw_overflow(), self.draw_policy());
        let (mut last, mut snapshot) = (0, false);
        match self.chance.below(10) {
            0 | 1 => last = u32::try_from(self.chance.within(1..=5)).expect("small"),
            2 | 3 => snapshot = true,
            4 => (last, snapshot) = (2, true),
            _ => {}
        }
        let topic = match self.chance.below(20) {
            0 => "a..b".into(),
            1..=7 => (*self.chance.pick(&self.scenario.filters).expect("at least one")).into(),
            _ => self.some_topic(),
        };
        let is_valid = topic != "a..b";
        let presence = !topic.contains(['*', '>']) && self.chance.chance(40);
        let mut subscribe =
            Subscribe { topic, last, snapshot, overflow, policy, presence, ..Subscribe::default() };
        if is_valid && self.chance.chance(60) {
            subscribe = self.clients[index].going_on(&subscribe);
            self.disturb(&mut subscribe);
        }
        let topic = subscribe.topic.clone();
        self.send(index, Command::Subscribe(subscribe));
        if presence && self.chance.chance(70) {
            self.send(index, Command::Presence { topic });
        }
    }

    fn draw_overflow(&mut self) -> Option<Overflow> {
        const ALL: [Option<Overflow>; 5] = [
            None,
            Some(Overflow::CatchUp),
            Some(Overflow::Gap),
            Some(Overflow::Gap),
            Some(Overflow::Disconnect),
        ];
        *self.chance.pick(&ALL).expect("not empty")
    }

    fn draw_policy(&mut self) -> Policy {
        *self.chance.pick(&self.scenario.policies).expect("not empty")
    }

    /// Gives a subscription other terms: all of them or some.
    pub(super) fn update(&mut self) {
        let index = self.chance.below(self.clients.len());
        let topic = self.some_target(index);
        let policy = self.chance.chance(70).then(|| self.draw_policy());
        let overflow = if self.chance.chance(50) { self.draw_overflow() } else { None };
        self.send(index, Command::Update(Update { topic, overflow, policy }));
    }

    /// Some clients ask for more than they missed, or for what never was.
    fn disturb(&mut self, subscribe: &mut Subscribe) {
        let since = subscribe.since.iter_mut();
        for position in since.chain(subscribe.positions.iter_mut().map(|p| &mut p.position)) {
            match self.chance.below(12) {
                0..=2 => position.offset = position.offset.saturating_sub(self.chance.bits() % 6),
                3 => position.offset += 1 + self.chance.bits() % 3,
                4 => position.epoch = format!("AAAAAAAAAAAAAAAAAAAAA{}", self.chance.below(10)),
                _ => {}
            }
        }
        if self.chance.chance(10) && subscribe.topic.contains('>') {
            let topic = self.some_topic();
            let epoch = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
            if subscribe.positions.iter().all(|position| position.topic != topic) {
                let position = Position { epoch, offset: 1 };
                subscribe.positions.push(TopicPosition { topic, position });
            }
        }
    }

    pub(super) fn unsubscribe(&mut self) {
        let index = self.chance.below(self.clients.len());
        let topic = self.some_target(index);
        self.send(index, Command::Unsubscribe { topic });
    }

    /// What a client is subscribed to, mostly.
    fn some_target(&mut self, index: usize) -> String {
        let targets: Vec<String> = self.clients[index].wants.keys().cloned().collect();
        match self.chance.pick(&targets) {
            Some(target) if self.chance.chance(90) => target.clone(),
            _ => self.some_topic(),
        }
    }

    pub(super) fn say_hello(&mut self, index: usize) {
        let names = ["", "ann", "bob"];
        let name = (*self.chance.pick(&names).expect("not empty")).to_owned();
        let batch = self.chance.chance(60);
        self.send(index, Command::Connect { name, batch });
    }

    pub(super) fn ask_presence(&mut self) {
        let index = self.chance.below(self.clients.len());
        let topic = self.some_topic();
        self.send(index, Command::Presence { topic });
    }

    pub(super) fn ask_history(&mut self) {
        let index = self.chance.below(self.clients.len());
        let topic = self.some_topic();
        let since = self.clients[index].places.get(&topic).cloned();
        let since = since.filter(|_| self.chance.chance(50)).map(|mut position| {
            position.offset = position.offset.saturating_sub(self.chance.bits() % 6);
            position
        });
        let limit = u32::try_from(self.chance.below(6)).expect("small");
        self.send(index, Command::History(Query { topic, since, limit }));
    }
}
