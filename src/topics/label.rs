//! The text of a name. Most names are short: up to 22 bytes stand in the value itself, so they cost no
//! allocation, and are compared without following a pointer.
//! # Invariants: it is ASCII, without zeros; two labels of the same text are equal, hash and sort alike.
//! # Not here: which texts are names (`name`).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Bytes that fit into the value: with its length and kind it is three words.
const SHORT_BYTES: usize = 22;

/// The text of a name.
#[derive(Clone)]
pub(super) enum Label {
    /// The bytes behind the text are zero.
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    /// Longer than what fits.
    Long(Arc<str>),
}

impl Label {
    /// The label of a text that is ASCII without zeros.
    pub(super) fn new(text: &[u8]) -> Label {
        debug_assert!(text.iter().all(|byte| (1..128).contains(byte)), "not a label: {text:?}");
        let mut bytes = [0; SHORT_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text);
                Label::Short { len, bytes }
            }
            _ => Label::Long(Arc::from(std::str::from_utf8(text).unwrap_or_default())),
        }
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Label::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Label::Long(text) => text.as_bytes(),
        }
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Label::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Label::Long(text) => text,
        }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        match (self, other) {
            (Label::Short { bytes, .. }, Label::Short { bytes: others, .. }) => bytes == others,
            (Label::Long(text), Label::Long(other)) => text == other,
            (Label::Short { .. }, Label::Long(_)) | (Label::Long(_), Label::Short { .. }) => false,
        }
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Label) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Label) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;

    #[test]
    fn a_label_is_three_words() {
        assert_eq!(size_of::<Label>(), 3 * size_of::<usize>());
        assert_eq!(size_of::<Option<Label>>(), 3 * size_of::<usize>());
    }

    proptest! {
        #[test]
        fn labels_compare_as_their_texts_do(a in "[ab.]{0,30}", b in "[ab.]{0,30}", hasher in Just(RandomState::new())) {
            let (one, two) = (Label::new(a.as_bytes()), Label::new(b.as_bytes()));
            prop_assert_eq!((one.as_str(), one.as_bytes()), (a.as_str(), a.as_bytes()));
            prop_assert_eq!(one == two, a == b);
            prop_assert_eq!(one.cmp(&two), a.cmp(&b));
            prop_assert_eq!(hasher.hash_one(&one), hasher.hash_one(a.as_bytes()));
        }
    }
}
