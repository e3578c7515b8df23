//! A message is printed the same from every wire.
//! # Not here: what the broker spells (`dialect`).

use super::*;
use crate::client::wire::json::tests::{heard, message};
use crate::dialect::schema::event::Body;
use crate::dialect::{encode_message, frame};
use crate::topics::message::{Payload, Wire};

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
