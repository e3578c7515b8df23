//! Payloads as they are typed or read: JSON, text or base64, named by a flag or guessed.
//! # Invariants: what is sent is what was given, but for one line break at the end of text from a
//! file or standard input, which editors and `echo` add, and the white space around JSON and base64.
//! # Not here: sending it (`publish`).

use super::args::{Form, Input};
use super::error::CommandError;
use crate::client::Payload;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// Longest payload, in bytes: no broker takes a longer message.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Something to read payloads from.
pub(super) struct Source {
    name: String,
    reader: Box<dyn BufRead + Send>,
}

impl Source {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(input: &Input<'_>) -> Result<Source, CommandError> {
        Ok(match input {
            Input::Argument(text) => Source {
                name: "the argument".to_owned(),
                reader: Box::new(io::Cursor::new(text.as_bytes().to_vec())),
            },
            Input::File(path) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|error| problem(&name, &error))?;
                Source { name, reader: Box::new(BufReader::new(file)) }
            }
            Input::Stdin => Source {
                name: "standard input".to_owned(),
                reader: Box::new(BufReader::new(io::stdin())),
            },
        })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// It cannot be read, or is longer than [`PAYLOAD_BYTES_MAX`].
    pub(super) fn read(&mut self) -> Result<Vec<u8>, CommandError> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(BYTES_TAKEN_MAX).read_to_end(&mut bytes);
        self.check(read, &bytes)?;
        Ok(bytes)
    }

    /// Reads a line without its end; `None` after the last.
    ///
    /// # Errors
    /// It cannot be read, or is longer than [`PAYLOAD_BYTES_MAX`].
    pub(super) fn read_line(&mut self) -> Result<Option<Vec<u8>>, CommandError> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(BYTES_TAKEN_MAX).read_until(b'\n', &mut line);
        if self.check(read, &line)? == 0 {
            return Ok(None);
        }
        cut_line_break(&mut line);
        Ok(Some(line))
    }

    fn check(&self, read: io::Result<usize>, bytes: &[u8]) -> Result<usize, CommandError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let problem = format!("the payload is longer than {PAYLOAD_BYTES_MAX} bytes");
            return Err(CommandError::Input { name: self.name.clone(), problem });
        }
        read.map_err(|error| problem(&self.name, &error))
    }
}

/// One byte more than a payload may have shows that it is too long.
const BYTES_TAKEN_MAX: u64 = PAYLOAD_BYTES_MAX as u64 + 1;

fn problem(name: &str, error: &io::Error) -> CommandError {
    CommandError::Input { name: name.to_owned(), problem: error.to_string() }
}

/// Removes one line break from the end.
pub(super) fn cut_line_break(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

/// Makes a payload of the bytes of a line or an argument.
///
/// # Errors
/// They do not have the form that the command line names, or none at all.
pub(super) fn form(form: Form, bytes: Vec<u8>) -> Result<Payload, CommandError> {
    match form {
        Form::Json => json(&bytes),
        Form::Text => text(bytes, "it is not UTF-8"),
        Form::Base64 => base64(&bytes),
        Form::Guess => match json(&bytes) {
            Ok(payload) => Ok(payload),
            Err(_) => text(bytes, "it is neither JSON nor UTF-8; --base64 takes bytes as base64"),
        },
    }
}

fn json(bytes: &[u8]) -> Result<Payload, CommandError> {
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(IgnoredAny) if std::str::from_utf8(bytes).is_ok() => {
            Ok(Payload::Json(bytes.trim_ascii().to_vec().into()))
        }
        Ok(IgnoredAny) => Err(CommandError::Payload("it is not UTF-8".to_owned())),
        Err(error) => Err(CommandError::Payload(format!("it is not JSON: {error}"))),
    }
}

fn text(bytes: Vec<u8>, problem: &str) -> Result<Payload, CommandError> {
    let text = String::from_utf8(bytes);
    text.map(Payload::Text).map_err(|_| CommandError::Payload(problem.to_owned()))
}

fn base64(bytes: &[u8]) -> Result<Payload, CommandError> {
    match BASE64.decode(bytes.trim_ascii()) {
        Ok(binary) => Ok(Payload::Binary(binary.into())),
        Err(error) => Err(CommandError::Payload(format!("it is not base64: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_form_that_is_named_or_else_json_before_text() {
        let data = |text: &str| Ok(Payload::Json(text.as_bytes().to_vec().into()));
        let text = |text: &str| Ok(Payload::Text(text.to_owned()));
        let binary = |bytes: &[u8]| Ok(Payload::Binary(bytes.to_vec().into()));
        let refused = |words: &str| Err(format!("the payload is not valid: {words}"));
        let cases: [(Form, &[u8], Result<Payload, String>); 13] = [
            (Form::Guess, b"{\"x\":1.50}", data("{\"x\":1.50}")),
            (Form::Guess, b" 12 \n", data("12")),
            (Form::Guess, b"hello", text("hello")),
            (Form::Guess, b"{\"x\":", text("{\"x\":")),
            (Form::Guess, b"", text("")),
            (
                Form::Guess,
                b"\xFF",
                refused("it is neither JSON nor UTF-8; --base64 takes bytes as base64"),
            ),
            (Form::Json, b"null", data("null")),
            (Form::Json, b"hello", refused("it is not JSON: expected value at line 1 column 1")),
            (Form::Text, b"12", text("12")),
            (Form::Text, b"\xFF", refused("it is not UTF-8")),
            (Form::Base64, b"AP8=\n", binary(&[0, 255])),
            (Form::Base64, b"", binary(&[])),
            (Form::Base64, b"AP8", refused("it is not base64: Invalid padding")),
        ];
        for (named, bytes, expected) in cases {
            let payload = form(named, bytes.to_vec()).map_err(|error| error.to_string());
            assert_eq!(payload, expected, "{named:?} {bytes:?}");
        }
    }

    #[test]
    fn a_line_ends_before_its_line_break_and_the_last_needs_none() {
        let mut source = Source {
            name: "test".to_owned(),
            reader: Box::new(io::Cursor::new(b"a\r\n\nb\rc\n\r\nd".to_vec())),
        };
        let mut lines = Vec::new();
        while let Some(line) = source.read_line().expect("readable") {
            lines.push(String::from_utf8(line).expect("UTF-8"));
        }
        assert_eq!(lines, ["a", "", "b\rc", "", "d"]);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused_before_it_is_read_whole() {
        let mut source =
            Source { name: "test".to_owned(), reader: Box::new(BufReader::new(io::repeat(b'x'))) };
        let error = source.read().expect_err("endless").to_string();
        assert_eq!(error, "cannot read test: the payload is longer than 67108864 bytes");
    }
}
