//! A message as `fanfare subscribe` prints it.
//! # Invariants: the JSON line is the object that the JSON spelling of the protocol has under
//! `message`, whatever wire the message came by.
//! # Not here: when to print.

use super::client::ClientError;
use crate::dialect::schema::{Message, message::Payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};
use serde_json::value::RawValue;
use std::io;

/// The printed form, with its line break; nothing for a delete whose payload alone is asked for.
///
/// # Errors
/// The server sent no payload, or one that is not JSON although it should be.
pub(super) fn print(message: &Message, form: LineForm) -> Result<Vec<u8>, ClientError> {
    if message.payload.is_some() == message.deleted {
        return Err(malformed(&"a message that has neither a payload nor deletes, or both"));
    }
    let mut line = match (form, &message.payload) {
        (LineForm::Json, _) => object(message)?,
        (LineForm::Raw, Some(Payload::Data(bytes) | Payload::Binary(bytes))) => bytes.to_vec(),
        (LineForm::Raw, Some(Payload::Text(text))) => text.as_bytes().to_vec(),
        (LineForm::Raw, None) => return Ok(Vec::new()),
    };
    line.push(b'\n');
    Ok(line)
}

/// How much of a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineForm {
    /// All of it, as one JSON object.
    Json,
    /// The payload alone.
    Raw,
}

#[derive(Serialize)]
struct Object<'a> {
    topic: &'a str,
    offset: u64,
    time: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

fn object(message: &Message) -> Result<Vec<u8>, ClientError> {
    let mut object = Object {
        topic: &message.topic,
        offset: message.offset,
        time: message.time,
        key: &message.key,
        data: None,
        text: None,
        base64: None,
        deleted: message.deleted,
    };
    match &message.payload {
        Some(Payload::Data(data)) => {
            object.data = Some(serde_json::from_slice(data).map_err(|error| malformed(&error))?);
        }
        Some(Payload::Text(text)) => object.text = Some(text),
        Some(Payload::Binary(binary)) => object.base64 = Some(BASE64.encode(binary)),
        None => {}
    }
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Escapes);
    object.serialize(&mut serializer).map_err(|error| malformed(&error))?;
    Ok(line)
}

fn malformed(problem: &impl ToString) -> ClientError {
    ClientError::Malformed(problem.to_string())
}

/// Spells two control characters as the broker does: it has no short form for them.
struct Escapes;

impl Formatter for Escapes {
    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
        }
    }
}
