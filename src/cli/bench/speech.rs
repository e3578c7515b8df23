//! How the clients of a bench talk: to a broker in either spelling, to the limit in its own way.
//! # Invariants: what is heard is looked at only as far as it must be to know a delivery.
//! # Not here: frames (`frame`), sockets (`link`).

use super::frame::{self, Opcode};
use super::mark::Mark;
use crate::dialect::schema::{self, command::Action, event::Body};
use prost::Message as _;
use std::fmt::Write as _;

/// How to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// The protocol's JSON.
    Json(Joining),
    /// The protocol's protobuf.
    Proto(Joining),
    /// The limit's: topics are asked for in the path, and a body is a message.
    Bare,
}

/// Whether several events may come in one WebSocket message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    Single,
    Batch,
}

/// Something that was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A delivery: what comes from its mark on.
    Delivery(&'a [u8]),
    /// Everything that follows comes in batches.
    Batches,
    /// A subscription is there.
    Subscribed,
    /// Messages are missing.
    Gap,
    /// A command was refused, in the broker's words.
    Refused(String),
    /// Something else, or nothing that is understood.
    Other,
}

impl Speech {
    /// The subprotocol that is asked for.
    pub(super) const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Speech::Json(_) => Some("fanfare.v1.json"),
            Speech::Proto(_) => Some("fanfare.v1.proto"),
            Speech::Bare => None,
        }
    }

    /// The path of a subscriber's request.
    pub(super) fn path(self, path: &str, topics: &[u32]) -> String {
        match self {
            Speech::Json(_) | Speech::Proto(_) => path.to_owned(),
            Speech::Bare => {
                let topics: Vec<String> = topics.iter().map(u32::to_string).collect();
                format!("/?topics={}", topics.join(","))
            }
        }
    }

    /// How many answers a subscriber waits for before it is one.
    pub(super) const fn answers(self, topics: usize) -> usize {
        match self {
            Speech::Json(_) | Speech::Proto(_) => topics,
            Speech::Bare => 0,
        }
    }

    /// Appends what a subscriber says after its upgrade.
    pub(super) fn greet(self, topics: &[u32], out: &mut Vec<u8>) {
        let (Speech::Json(joining) | Speech::Proto(joining)) = self else {
            return;
        };
        if joining == Joining::Batch {
            let connect = schema::Connect { batch: true, ..Default::default() };
            self.put(out, 1, Action::Connect(connect));
        }
        for (topic, id) in topics.iter().zip(2..) {
            let subscribe = schema::Subscribe { topic: topic_name(*topic), ..Default::default() };
            self.put(out, id, Action::Subscribe(subscribe));
        }
    }

    /// A message to a topic as it is before marks and mask are put in: the payload of a frame, and
    /// where in it the body begins.
    pub(super) fn message(self, topic: u32, body_len: usize) -> (Opcode, Vec<u8>, usize) {
        // Characters that no name has, to find the body again.
        let body = "~".repeat(body_len);
        let (opcode, payload) = match self {
            Speech::Bare => (Opcode::Binary, body.into_bytes()),
            Speech::Json(_) | Speech::Proto(_) => {
                let publish = schema::Publish {
                    topic: topic_name(topic),
                    payload: Some(schema::publish::Payload::Text(body)),
                    ..Default::default()
                };
                self.command(0, Action::Publish(publish))
            }
        };
        let begin = memchr::memchr(b'~', &payload).unwrap_or_default();
        (opcode, payload, begin)
    }

    fn put(self, out: &mut Vec<u8>, id: u64, action: Action) {
        let (opcode, payload) = self.command(id, action);
        frame::put_client(out, opcode, &payload, [0x5A, 0xA5, 0x3C, 0xC3]);
    }

    fn command(self, id: u64, action: Action) -> (Opcode, Vec<u8>) {
        match self {
            Speech::Proto(_) | Speech::Bare => {
                let command = schema::Command { id, action: Some(action) };
                (Opcode::Binary, command.encode_to_vec())
            }
            Speech::Json(_) => (Opcode::Text, json(id, &action).into_bytes()),
        }
    }

    /// Takes apart the payload of a message. `now` is how they come, which begins to be as asked for
    /// when [`Heard::Batches`] has said so.
    pub(super) fn hear<'a>(self, now: Joining, payload: &'a [u8], mut ear: impl FnMut(Heard<'a>)) {
        match (self, now) {
            (Speech::Json(_), Joining::Single) => ear(hear_json(payload)),
            (Speech::Json(_), Joining::Batch) => {
                for line in payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    ear(hear_json(line));
                }
            }
            (Speech::Proto(_), Joining::Single) => ear(hear_proto(payload)),
            (Speech::Proto(_), Joining::Batch) => hear_delimited(payload, ear),
            (Speech::Bare, _) => ear(Heard::Delivery(payload)),
        }
    }
}

/// The name of a numbered topic.
pub(super) fn topic_name(topic: u32) -> String {
    format!("bench.{topic}")
}

/// The few commands that a bench has. Its names and bodies need no escaping.
fn json(id: u64, action: &Action) -> String {
    let mut text = String::from("{");
    if id != 0 {
        write!(text, "\"id\":{id},").unwrap_or_default();
    }
    match action {
        Action::Connect(connect) => {
            write!(text, "\"connect\":{{\"batch\":{}}}", connect.batch).unwrap_or_default();
        }
        Action::Subscribe(schema::Subscribe { topic, .. }) => {
            write!(text, "\"subscribe\":{{\"topic\":\"{topic}\"}}").unwrap_or_default();
        }
        Action::Publish(schema::Publish { topic, payload, .. }) => {
            let Some(schema::publish::Payload::Text(body)) = payload else {
                return text;
            };
            write!(text, "\"publish\":{{\"topic\":\"{topic}\",\"text\":\"{body}\"}}")
                .unwrap_or_default();
        }
        _ => {}
    }
    text.push('}');
    text
}

fn hear_json(text: &[u8]) -> Heard<'_> {
    if let Some(body) = Mark::find(text) {
        return Heard::Delivery(body);
    }
    let event: serde_json::Value = match serde_json::from_slice(text) {
        Ok(event) => event,
        Err(_) => return Heard::Other,
    };
    if event.get("subscribed").is_some() {
        Heard::Subscribed
    } else if event.pointer("/connected/batch").and_then(serde_json::Value::as_bool) == Some(true) {
        Heard::Batches
    } else if event.get("gap").is_some() {
        Heard::Gap
    } else if let Some(error) = event.get("error") {
        let words = error.get("message").and_then(serde_json::Value::as_str);
        Heard::Refused(words.unwrap_or("without a reason").to_owned())
    } else {
        Heard::Other
    }
}

fn hear_proto(bytes: &[u8]) -> Heard<'_> {
    if let Some(body) = Mark::find(bytes) {
        return Heard::Delivery(body);
    }
    match schema::Event::decode(bytes).map(|event| event.body) {
        Ok(Some(Body::Subscribed(_))) => Heard::Subscribed,
        Ok(Some(Body::Connected(connected))) if connected.batch => Heard::Batches,
        Ok(Some(Body::Gap(_))) => Heard::Gap,
        Ok(Some(Body::Error(error))) => Heard::Refused(error.message),
        _ => Heard::Other,
    }
}

fn hear_delimited<'a>(payload: &'a [u8], mut ear: impl FnMut(Heard<'a>)) {
    let mut rest = payload;
    while !rest.is_empty() {
        let mut after = rest;
        let len = prost::decode_length_delimiter(&mut after);
        let Some((event, others)) = len.ok().and_then(|len| after.split_at_checked(len)) else {
            return ear(Heard::Other);
        };
        ear(hear_proto(event));
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::frame::Head;
    use crate::cli::bench::mark::MARK_LEN;

    fn all(speech: Speech, payload: &[u8]) -> Vec<String> {
        let mut heard = Vec::new();
        let (Speech::Json(now) | Speech::Proto(now)) = speech else {
            panic!("the limit's speech has no events");
        };
        speech.hear(now, payload, |what| {
            heard.push(match what {
                Heard::Delivery(body) => {
                    format!("delivery {:?}", Mark::read(body).map(|m| m.number))
                }
                other => format!("{other:?}"),
            });
        });
        heard
    }

    fn message(number: u32) -> String {
        let mut body = vec![b'x'; MARK_LEN];
        Mark { due_ns: 1, topic: 0, number }.write(&mut body);
        String::from_utf8(body).expect("ASCII")
    }

    fn event(body: Body) -> Vec<u8> {
        schema::Event { id: 1, body: Some(body) }.encode_to_vec()
    }

    fn proto_message(number: u32) -> Vec<u8> {
        let payload = Some(schema::message::Payload::Text(message(number)));
        event(Body::Message(schema::Message { payload, ..Default::default() }))
    }

    #[test]
    fn events_are_told_apart_in_both_spellings() {
        let json = Speech::Json(Joining::Single);
        let cases = [
            (format!("{{\"message\":{{\"text\":\"{}\"}}}}", message(7)), "delivery Some(7)"),
            ("{\"id\":1,\"subscribed\":{\"topic\":\"bench.0\"}}".into(), "Subscribed"),
            ("{\"id\":1,\"connected\":{\"batch\":true}}".into(), "Batches"),
            ("{\"id\":1,\"connected\":{\"connection\":\"1-2\"}}".into(), "Other"),
            ("{\"gap\":{\"topic\":\"bench.0\"}}".into(), "Gap"),
            ("{\"error\":{\"message\":\"too many\"}}".into(), "Refused(\"too many\")"),
            ("{\"ping\":{}}".into(), "Other"),
            ("no JSON".into(), "Other"),
        ];
        for (text, expected) in cases {
            assert_eq!(all(json, text.as_bytes()), [expected], "{text}");
        }
        let proto = Speech::Proto(Joining::Single);
        let error = schema::Error { message: "too many".into(), ..Default::default() };
        let connected = |batch| schema::Connected { batch, ..Default::default() };
        let cases = [
            (proto_message(7), "delivery Some(7)"),
            (event(Body::Subscribed(schema::Subscribed::default())), "Subscribed"),
            (event(Body::Connected(connected(true))), "Batches"),
            (event(Body::Connected(connected(false))), "Other"),
            (event(Body::Gap(schema::Gap::default())), "Gap"),
            (event(Body::Error(error)), "Refused(\"too many\")"),
            (event(Body::Pong(schema::Pong {})), "Other"),
            (vec![0xFF], "Other"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(all(proto, &bytes), [expected], "{bytes:?}");
        }
        Speech::Bare.hear(Joining::Single, message(9).as_bytes(), |heard| {
            assert!(matches!(heard, Heard::Delivery(_)), "{heard:?}");
        });
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let expected = ["delivery Some(1)", "Gap", "delivery Some(2)"];
        let line = |number| format!("{{\"message\":{{\"text\":\"{}\"}}}}\n", message(number));
        let text = [line(1), "{\"gap\":{}}\n".into(), line(2)].concat();
        assert_eq!(all(Speech::Json(Joining::Batch), text.as_bytes()), expected);
        let mut bytes = Vec::new();
        for event in [proto_message(1), event(Body::Gap(schema::Gap::default())), proto_message(2)]
        {
            prost::encode_length_delimiter(event.len(), &mut bytes).expect("room");
            bytes.extend(event);
        }
        assert_eq!(all(Speech::Proto(Joining::Batch), &bytes), expected);
        bytes.pop();
        let heard = all(Speech::Proto(Joining::Batch), &bytes);
        assert_eq!(heard.last().map(String::as_str), Some("Other"));
    }

    #[test]
    fn a_subscriber_greets_with_its_topics() {
        let mut out = Vec::new();
        Speech::Json(Joining::Batch).greet(&[3, 4], &mut out);
        let mut texts = Vec::new();
        let mut rest = &mut out[..];
        while let Some(head) = Head::read(rest).expect("sound") {
            let (frame, others) = rest.split_at_mut(head.frame_len());
            let payload = &mut frame[head.len..];
            frame::apply_mask(payload, head.mask.expect("masked"));
            texts.push(String::from_utf8(payload.to_vec()).expect("text"));
            rest = others;
        }
        let expected = [
            r#"{"id":1,"connect":{"batch":true}}"#,
            r#"{"id":2,"subscribe":{"topic":"bench.3"}}"#,
            r#"{"id":3,"subscribe":{"topic":"bench.4"}}"#,
        ];
        assert_eq!(texts, expected);
        assert_eq!(Speech::Bare.path("/ws", &[3, 4]), "/?topics=3,4");
        assert_eq!(Speech::Bare.path("/ws", &[]), "/?topics=");
    }

    #[test]
    fn the_body_of_a_message_is_where_it_is_said_to_be() {
        for speech in [Speech::Json(Joining::Single), Speech::Proto(Joining::Single), Speech::Bare]
        {
            let (_, payload, begin) = speech.message(17, 50);
            assert_eq!(&payload[begin..begin + 50], &[b'~'; 50]);
        }
        let (opcode, payload, _) = Speech::Json(Joining::Single).message(17, 2);
        assert_eq!(opcode, Opcode::Text);
        assert_eq!(payload, br#"{"publish":{"topic":"bench.17","text":"~~"}}"#);
    }
}
