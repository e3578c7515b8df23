//! A message is printed the same from every wire.
//! # Not here: what the broker spells (`dialect`).

use super::*;
use crate::client::wire::json::decode;
use crate::clock::Now;
use crate::dialect::deflate::inflate;
use crate::dialect::schema::{self, event::Body};
use crate::dialect::{encode_message, frame};
use crate::topics::message::{Draft, Epoch, Message as Taken, Offset, Payload, TopicHead, Wire};
use crate::topics::name::TopicName;
use prost::Message as _;
use std::sync::Arc;

/// The bit that marks a compressed message.
const RSV1: u8 = 0x40;

fn topic(raw: &str) -> TopicName {
    TopicName::parse(raw).expect("valid name")
}

/// What a client understands of an event that came by this wire.
fn heard(frame: &bytes::Bytes, wire: Wire) -> schema::Event {
    let mut body = frame::body(frame, wire);
    if frame.first().is_some_and(|first| first & RSV1 != 0) {
        body = inflate(&body, 1 << 20).expect("deflate data").into();
    }
    match (wire.is_json(), wire.is_batched()) {
        (true, _) => decode(&body).expect("understood"),
        (false, false) => schema::Event::decode(body).expect("protobuf"),
        (false, true) => schema::Event::decode_length_delimited(body).expect("protobuf"),
    }
}

fn message(key: Option<&str>, payload: Payload) -> Taken {
    let head = Arc::new(TopicHead::new(1, topic("a.b"), Epoch::from_bits(1), Arc::default()));
    let draft = Draft { key: key.map(Into::into), ..Draft::new(topic("a.b"), payload) };
    Taken::new(head, Offset(45), draft, Now::at_ms(1_763_683_200_000))
}

#[test]
fn a_message_is_printed_as_the_json_spelling_has_it_from_every_wire() {
    let controls: String = (0..=0x7F_u8).map(char::from).chain("ä\u{2028}/".chars()).collect();
    let messages = [
        message(None, Payload::Json(r#"{"x": 1.50,"y":[ ]}"#.into())),
        message(Some("k\"1\u{8}"), Payload::Json("null".into())),
        message(Some(&controls), Payload::Text(controls.clone().into())),
        message(None, Payload::Text("".into())),
        message(None, Payload::Binary(vec![0, 0xFF, b'\n'].into())),
        message(Some("k"), Payload::Deleted),
        message(None, Payload::Text("again and ".repeat(40).into())),
    ];
    for message in messages {
        let json = frame::body(&encode_message(&message, Wire::WebSocketJson), Wire::WebSocketJson);
        let json = String::from_utf8(json.to_vec()).expect("UTF-8");
        let object = json.strip_prefix(r#"{"message":"#).and_then(|rest| rest.strip_suffix('}'));
        let expected = format!("{}\n", object.expect("a message event"));
        for wire in Wire::ALL {
            let event = heard(&encode_message(&message, wire), wire);
            let Some(Body::Message(sent)) = event.body else { panic!("{event:?}") };
            let heard = Message::of(sent).expect("a whole message");
            let line = print(&heard, LineForm::Json).expect("printable");
            assert_eq!(String::from_utf8(line).expect("UTF-8"), expected, "{wire:?}");
            let raw = print(&heard, LineForm::Raw).expect("printable");
            let end: &[u8] = if message.is_delete() { b"" } else { b"\n" };
            assert_eq!(raw, [&**message.payload.bytes(), end].concat(), "{wire:?}");
        }
    }
}
