//! Why something did not happen, for a program and for a person.
//! # Invariants: what the server refused has the code, name and advice that it gave; what is said by
//! the client itself has the code 0, and a name of its own.
//! # Not here: which faults end a client (`pilot`).

use super::wire::Fault;
use crate::dialect::schema;
use crate::reason::{Reason, Refusal, Retry};
use std::fmt;
use std::time::Duration;

/// Why something did not happen: compare [`Error::code`] or [`Error::name`], show the text.
///
/// Codes and names of the server are those of the [table of reasons](Reason); the client's own are
///
/// | Name | Retry | |
/// |---|---|---|
/// | `setup` | never | the address, a file or the place to run is not usable |
/// | `connect` | later | no connection came to be |
/// | `handshake` | by status | the server answered the upgrade with a status and no reason |
/// | `badSubprotocol` | never | the server chose another subprotocol than the one offered |
/// | `lost`, `silent` | resume | the connection ended, or nothing came for too long |
/// | `badEvent` | resume | the server sent what cannot be understood |
/// | `noToken` | later | the function that gives tokens gave none |
/// | `queueFull` | later | as many calls wait as may |
/// | `disconnected` | later | the connection ended before the answer came, and the call changes nothing |
/// | `unanswered` | later | the connection is there, and the answer did not come |
/// | `unknown` | later | a message may be published or not: the connection ended before the answer came |
/// | `closed` | never | the client was closed by the application |
/// | `unsubscribed` | never | the server ended the subscription, and gave no reason |
/// | `publishOnly` | never | HTTP carries messages to publish and nothing else |
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inside>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside {
    code: u32,
    name: Box<str>,
    retry: Retry,
    message: Box<str>,
}

impl Error {
    /// The number that programs compare; 0 if the client itself says so.
    pub fn code(&self) -> u32 {
        self.0.code
    }

    /// The name of the reason: `badTopic`, `queueFull`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What to do about it.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// One that the client itself says.
    pub(super) fn local(name: &str, retry: Retry, message: impl Into<Box<str>>) -> Error {
        Error::new(0, name, retry, message)
    }

    /// The answer that an application gets which has closed its client.
    pub(super) fn closed() -> Error {
        Error::local("closed", Retry::Never, "the client was closed")
    }

    /// A row of the table: said here because the server would say the same.
    pub(super) fn reason(refusal: &Refusal) -> Error {
        let reason = refusal.reason;
        let message = format!("{}: {refusal}", reason.name());
        Error::new(reason.code().into(), reason.name(), reason.retry(), message)
    }

    /// The connection is there, and the answer did not come.
    pub(super) fn unanswered(patience: Duration) -> Error {
        let text = format!("no answer came within {} ms", patience.as_millis());
        Error::local("unanswered", Retry::Later, text)
    }

    /// What becomes of a publish whose answer will not come any more.
    pub(super) fn unknown(cause: &dyn fmt::Display) -> Error {
        let message = format!("{cause}: the message may or may not be published");
        Error::local("unknown", Retry::Later, message)
    }

    fn new(code: u32, name: &str, retry: Retry, message: impl Into<Box<str>>) -> Error {
        Error(Box::new(Inside { code, name: name.into(), retry, message: message.into() }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({} {}: {:?})", self.0.code, self.0.name, self.0.message)
    }
}

impl std::error::Error for Error {}

/// A refusal of the server's.
impl From<schema::Error> for Error {
    fn from(error: schema::Error) -> Error {
        let message = format!("{}: {}", error.name, error.message);
        Error::new(error.code, &error.name, advice(error.retry()), message)
    }
}

/// What the server advises; who does not know the advice does not try again.
fn advice(retry: schema::Retry) -> Retry {
    match retry {
        schema::Retry::Later => Retry::Later,
        schema::Retry::Refresh => Retry::Refresh,
        schema::Retry::Resume => Retry::Resume,
        schema::Retry::Never | schema::Retry::Unspecified => Retry::Never,
    }
}

/// The end of a connection, and what a client should do about it.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let message = fault.to_string();
        match fault {
            Fault::Setup(_) => Error::local("setup", Retry::Never, message),
            Fault::Payload(_) => {
                let reason = Reason::BadPayload;
                Error::new(reason.code().into(), reason.name(), reason.retry(), message)
            }
            Fault::Connect { .. } => Error::local("connect", Retry::Later, message),
            Fault::Handshake { refusal: Some(refusal), .. } => {
                Error::new(refusal.code, &refusal.name, advice(refusal.retry()), message)
            }
            Fault::Handshake { status, refusal: None } => {
                // A proxy, or a server that is something else.
                let passes = !(400..500).contains(&status) || matches!(status, 408 | 425 | 429);
                let retry = if passes { Retry::Later } else { Retry::Never };
                Error::local("handshake", retry, message)
            }
            Fault::Subprotocol { .. } => Error::local("badSubprotocol", Retry::Never, message),
            Fault::Closed { code, text } => {
                // The reason is written `name: sentence`.
                let name = text.split_once(": ").map_or("closed", |(name, _)| name);
                Error::new(code.into(), name, of_close(code), message)
            }
            Fault::Ended | Fault::Lost(_) => Error::local("lost", Retry::Resume, message),
            Fault::Malformed(_) | Fault::TooLarge(_) => {
                Error::local("badEvent", Retry::Resume, message)
            }
            Fault::Silent(_) => Error::local("silent", Retry::Resume, message),
            Fault::NoToken(_) => Error::local("noToken", Retry::Later, message),
        }
    }
}

/// What to do about a close code. Those that nobody knows count by their range.
pub(super) fn of_close(code: u16) -> Retry {
    match code {
        1000 | 1002 | 1003 | 1007 | 1009 | 4500..=4999 => Retry::Never,
        4401 => Retry::Refresh,
        _ => Retry::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_of_the_table_is_followed_as_the_table_says() {
        for reason in Reason::ALL.iter().filter(|reason| reason.code() >= 1000) {
            let comes_back = of_close(reason.code()) != Retry::Never;
            assert_eq!(comes_back, reason.reconnects(), "{reason:?}");
        }
        for (code, comes_back) in [(1001, true), (1006, true), (1012, true), (4000, true)] {
            assert_eq!(of_close(code) != Retry::Never, comes_back, "{code}");
        }
    }

    #[test]
    fn a_close_is_named_by_its_reason() {
        let text = "badToken: the token is not valid here".to_owned();
        let error = Error::from(Fault::Closed { code: 4501, text });
        assert_eq!((error.code(), error.name(), error.retry()), (4501, "badToken", Retry::Never));
        let error = Error::from(Fault::Closed { code: 4444, text: String::new() });
        assert_eq!((error.name(), error.retry()), ("closed", Retry::Resume));
    }

    #[test]
    fn a_status_without_a_reason_is_tried_again_unless_the_request_is_at_fault() {
        for (status, retry) in [(404, Retry::Never), (429, Retry::Later), (502, Retry::Later)] {
            let error = Error::from(Fault::Handshake { status, refusal: None });
            assert_eq!(error.retry(), retry, "{status}");
        }
    }
}
