//! How the settings of `auth` are spelled: lists of filters, names and paths, hashes.
//! # Invariants: what may be a secret by mistake is not repeated by an error.
//! # Not here: what they mean (`crate::auth`).

use super::{Filter, Form, Written};
use crate::auth::Hash;
use crate::config::spelled::Spelled;
use crate::topics::name::TopicFilter;

/// A list of topic filters. A variable has only text, so text with commas is taken too.
pub(in crate::config) struct Filters;

impl Form for Filters {
    type Value = Vec<TopicFilter>;

    fn expected() -> String {
        r#"a list of topic filters such as ["ticker.>"]"#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Vec<TopicFilter>, String> {
        match spelled {
            Spelled::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Filter::read(&Spelled::from(part)))
                .collect(),
            Spelled::List(items) => items.iter().map(Filter::read).collect(),
            _ => Err(spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &Vec<TopicFilter>) -> Written {
        Written::List(value.iter().map(ToString::to_string).collect())
    }
}

/// Some text: a name, a path, a URL.
pub(in crate::config) struct Words;

/// Most bytes of a text.
const WORDS_BYTES_MAX: usize = 1024;

impl Form for Words {
    type Value = String;

    fn expected() -> String {
        format!("text of 1 to {WORDS_BYTES_MAX} bytes without control characters")
    }

    fn read(spelled: &Spelled) -> Result<String, String> {
        match spelled {
            Spelled::Text(text)
                if (1..=WORDS_BYTES_MAX).contains(&text.len())
                    && !text.contains(char::is_control) =>
            {
                Ok(text.clone())
            }
            _ => Err(spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &String) -> Written {
        Written::Text(value.clone())
    }
}

/// The hash of an API token.
pub(in crate::config) struct Sha256;

impl Form for Sha256 {
    type Value = Hash;

    fn expected() -> String {
        "the SHA-256 of a token, as `fanfare token hash` prints it".to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Hash, String> {
        let hash = match spelled {
            Spelled::Text(text) => text.parse().ok(),
            _ => None,
        };
        // What stands there may be the token itself: it is not repeated.
        hash.ok_or_else(|| format!("is not {}", Self::expected()))
    }

    fn write(value: &Hash) -> Written {
        Written::Text(value.to_string())
    }
}
