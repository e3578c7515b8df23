//! A message as `fanfare subscribe` prints it.
//! # Invariants: the JSON line is the object that the JSON spelling of the protocol has under
//! `message`, whatever wire the message came by.
//! # Not here: when to print.

use super::error::CommandError;
use crate::client::{Message, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};
use serde_json::value::RawValue;
use std::io;

/// The printed form, with its line break; nothing for a delete whose payload alone is asked for.
///
/// # Errors
/// The server sent a payload that is not JSON although it should be.
pub(super) fn print(message: &Message, form: LineForm) -> Result<Vec<u8>, CommandError> {
    let mut line = match form {
        LineForm::Json => object(message)?,
        LineForm::Raw if message.is_delete() => return Ok(Vec::new()),
        LineForm::Raw => message.bytes().to_vec(),
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

fn object(message: &Message) -> Result<Vec<u8>, CommandError> {
    let mut object = Object {
        topic: message.topic.as_str(),
        offset: message.offset,
        time: message.time_ms,
        key: &message.key,
        data: None,
        text: None,
        base64: None,
        deleted: message.is_delete(),
    };
    match &message.payload {
        Some(Payload::Json(data)) => {
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

fn malformed(problem: &impl ToString) -> CommandError {
    CommandError::Malformed(problem.to_string())
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

#[cfg(test)]
mod tests;
