//! Tokens as commands carry them.
//! # Invariants: what formats them shows how long they are at most.
//! # Not here: whether they are valid (`auth`).

use super::raw::Text;
use serde::Deserialize;
use std::fmt;

/// What a client proves by who it is. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Keeps a token from being seen.
    pub fn new(token: impl Into<Box<str>>) -> Token {
        Token(token.into())
    }

    /// The token itself, for whoever verifies it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// A token, borrowed as text is.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Secret<'a>(#[serde(borrow)] pub(super) Text<'a>);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret<'_> {
    /// The token, unless it is empty.
    pub(super) fn understand(self) -> Option<Token> {
        let Secret(Text(token)) = self;
        (!token.is_empty()).then(|| Token::new(token))
    }
}
