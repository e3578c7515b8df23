//! Which keys exist: a tree derived from a serialised [`Config`], never kept by hand.
//! Owns the walk over a file's values and the guess at what a misspelled key meant.
//! # Invariants: the tree is in the order of the structs; everything found is in that order or
//! sorted, so that the same text always meets the same error.
//! # Not here: where the values come from (`load`).

use super::auth::{AuthCertificate, AuthKey, AuthToken};
use super::spelled::{Spelled, shorten};
use super::{Config, Rule};
use crate::auth::{Algorithm, Hash};
use crate::topics::name::TopicFilter;
use config::{Map, Value, ValueKind};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A key longer than this is not compared with the known ones.
const GUESS_BYTES_MAX: usize = 128;
/// How alike two keys must be, from 0 to 1, for one to be suggested for the other.
const LIKENESS_MIN: f64 = 0.6;

/// A configuration, or the shape of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Table(Vec<(String, Node)>),
    /// A list of tables. A list of plain values is a leaf.
    List(Vec<Node>),
    Leaf(String),
}

/// What is wrong with a key or with the kind of thing it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum KeyFault {
    Unknown {
        key: String,
        nearest: Option<String>,
    },
    /// The words continue "`key` …".
    Misfit {
        key: String,
        words: String,
    },
}

impl Node {
    /// Every key there is. The elements of a list share the shape of its first.
    ///
    /// # Errors
    /// None in practice: a configuration can always be serialised.
    pub(super) fn known() -> Result<Node, serde_json::Error> {
        let mut config = Config::default();
        config.topics.rules.extend(TopicFilter::parse(">").map(Rule::new));
        config.auth.keys.push(AuthKey {
            id: None,
            algorithm: Algorithm::Hs256,
            file: String::new(),
        });
        config.auth.certificates.push(AuthCertificate::new(""));
        config.auth.tokens.push(AuthToken::new("", Hash::of("")));
        Node::of(&config)
    }

    /// The values of a configuration as a tree.
    ///
    /// # Errors
    /// None in practice: a configuration can always be serialised.
    pub(super) fn of(config: &Config) -> Result<Node, serde_json::Error> {
        // JSON text keeps the order of the fields; the maps of the parsers do not.
        serde_json::from_str(&serde_json::to_string(config)?)
    }

    /// Every leaf with its full key, in order. A list that is empty counts as a leaf.
    pub(super) fn leaves(&self) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        self.collect(String::new(), &mut leaves);
        leaves
    }

    fn collect(&self, key: String, leaves: &mut Vec<(String, String)>) {
        match self {
            Node::Leaf(text) => leaves.push((key, text.clone())),
            Node::Table(entries) => {
                for (name, child) in entries {
                    child.collect(join(&key, name), leaves);
                }
            }
            Node::List(items) => {
                for (index, child) in items.iter().enumerate() {
                    child.collect(format!("{key}[{index}]"), leaves);
                }
            }
        }
    }

    /// Splits a table of given values into settings: a full key and its value each.
    ///
    /// # Errors
    /// The first key, in sorted order, that does not exist or holds the wrong kind of thing.
    pub(super) fn settle(
        &self,
        given: Map<String, Value>,
    ) -> Result<Vec<(String, Value)>, KeyFault> {
        let mut walk = Walk { known: self, settled: Vec::new() };
        let root = Value::new(None, ValueKind::Table(given));
        walk.visit(self, String::new(), root)?;
        Ok(walk.settled)
    }

    /// Whether one value may be given for this key.
    ///
    /// # Errors
    /// The key does not exist, or is a table or a list of tables.
    pub(super) fn settle_one(&self, key: &str, value: &str) -> Result<(), KeyFault> {
        let mut node = self;
        for name in key.split('.') {
            let Node::Table(entries) = node else {
                return Err(self.unknown(key, &[]));
            };
            let Some((_, child)) = entries.iter().find(|(known, _)| known == name) else {
                return Err(self.unknown(key, &[]));
            };
            node = child;
        }
        let expected = match node {
            Node::Leaf(_) => return Ok(()),
            Node::Table(_) => "the name of one of its settings",
            Node::List(_) => "a list of tables, which only a file can hold",
        };
        Err(misfit(key.to_owned(), &Spelled::from(value), expected))
    }

    fn unknown(&self, key: &str, siblings: &[String]) -> KeyFault {
        let mut candidates = siblings.to_vec();
        candidates.extend(self.leaves().into_iter().map(|(key, _)| key));
        let nearest = nearest(key, candidates);
        KeyFault::Unknown { key: shorten(key), nearest }
    }
}

struct Walk<'a> {
    known: &'a Node,
    settled: Vec<(String, Value)>,
}

impl Walk<'_> {
    fn visit(&mut self, known: &Node, key: String, value: Value) -> Result<(), KeyFault> {
        match (known, value.kind) {
            (Node::Leaf(_), kind) => self.settled.push((key, Value::new(None, kind))),
            (Node::Table(entries), ValueKind::Table(given)) => {
                self.visit_table(entries, &key, given)?;
            }
            (Node::List(items), ValueKind::Array(given)) => {
                self.visit_list(items, &key, &given)?;
                self.settled.push((key, Value::new(None, given)));
            }
            (Node::Table(_), kind) => return Err(misfit(key, &spell(kind), "a table")),
            (Node::List(_), kind) => return Err(misfit(key, &spell(kind), "a list of tables")),
        }
        Ok(())
    }

    fn visit_table(
        &mut self,
        entries: &[(String, Node)],
        key: &str,
        given: Map<String, Value>,
    ) -> Result<(), KeyFault> {
        let mut given: Vec<_> = given.into_iter().collect();
        given.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, value) in given {
            let full = join(key, &name);
            let Some((_, child)) = entries.iter().find(|(known, _)| *known == name) else {
                let siblings: Vec<_> = entries.iter().map(|(name, _)| join(key, name)).collect();
                return Err(self.known.unknown(&first_leaf(full, &value), &siblings));
            };
            self.visit(child, full, value)?;
        }
        Ok(())
    }

    /// Checks the elements of a list; the list itself is one setting.
    fn visit_list(&mut self, items: &[Node], key: &str, given: &[Value]) -> Result<(), KeyFault> {
        let mut elements = Walk { known: self.known, settled: Vec::new() };
        for (index, value) in given.iter().enumerate() {
            if let Some(shape) = items.first() {
                elements.visit(shape, format!("{key}[{index}]"), value.clone())?;
            }
        }
        Ok(())
    }
}

/// The key of the first value below an unknown one: in a misspelled section it is the section and
/// its setting together that tell what was meant.
fn first_leaf(key: String, value: &Value) -> String {
    let mut key = key;
    let mut value = value;
    while let ValueKind::Table(table) = &value.kind {
        let Some((name, child)) = table.iter().min_by_key(|(name, _)| *name) else {
            break;
        };
        if key.len() > GUESS_BYTES_MAX {
            break;
        }
        key = join(&key, name);
        value = child;
    }
    key
}

/// The key of a child, with its name in quotes where TOML would need them: `"a.b"` is not `a.b`.
fn join(key: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let dot = if key.is_empty() { "" } else { "." };
    if !name.is_empty() && name.chars().all(bare) {
        format!("{key}{dot}{name}")
    } else {
        format!("{key}{dot}{name:?}")
    }
}

fn misfit(key: String, found: &Spelled, expected: &str) -> KeyFault {
    let words = found.misfit(expected);
    KeyFault::Misfit { key, words }
}

fn spell(kind: ValueKind) -> Spelled {
    let value = Value::new(None, kind);
    value.try_deserialize().unwrap_or_else(|_| Spelled::Other("a value".to_owned()))
}

/// The candidate most like the key, if any is much like it. The first of equals wins.
fn nearest(key: &str, candidates: Vec<String>) -> Option<String> {
    if key.len() > GUESS_BYTES_MAX {
        return None;
    }
    let mut best = None;
    let mut best_likeness = LIKENESS_MIN;
    for candidate in candidates {
        let likeness = likeness(key, &candidate);
        if likeness > best_likeness {
            best_likeness = likeness;
            best = Some(candidate);
        }
    }
    best
}

/// How alike two keys are in their last part; a little less if they are in different sections,
/// which still finds a setting that was put into the wrong one.
fn likeness(key: &str, candidate: &str) -> f64 {
    let (section, name) = split(key);
    let (candidate_section, candidate_name) = split(candidate);
    let likeness = strsim::normalized_damerau_levenshtein(name, candidate_name);
    if section == candidate_section { likeness } else { likeness * 0.9 }
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Node, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a serialised configuration")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Table(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        let texts = items.iter().map(|item| match item {
            Node::Leaf(text) => Some(text.as_str()),
            Node::Table(_) | Node::List(_) => None,
        });
        match texts.collect::<Option<Vec<_>>>() {
            Some(texts) if texts.is_empty() => Ok(Node::Leaf("none".to_owned())),
            Some(texts) => Ok(Node::Leaf(texts.join(", "))),
            None if items.iter().any(|item| matches!(item, Node::Leaf(_))) => {
                Err(A::Error::custom("a list mixes tables and plain values"))
            }
            None => Ok(Node::List(items)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Node {
        Node::known().expect("a configuration can be serialised")
    }

    #[test]
    fn the_keys_are_those_of_the_structs_in_their_order() {
        let keys: Vec<_> = known().leaves().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.first().map(String::as_str), Some("shards"));
        assert_eq!(keys.last().map(String::as_str), Some("shutdown.termination_grace"));
        for key in ["listen.public", "websocket.origins", "topics.rules[0].history.age"] {
            assert!(keys.iter().any(|known| known == key), "{key}");
        }
    }

    #[test]
    fn a_misspelled_key_is_recognised() {
        let cases = [
            ("limits.mesage_bytes_max", Some("limits.message_bytes_max")),
            ("limit.message_bytes_max", Some("limits.message_bytes_max")),
            ("message_bytes_max", Some("limits.message_bytes_max")),
            ("limits.ping_interval", Some("websocket.ping_interval")),
            ("listen.adress", None),
            ("listen.pubic", Some("listen.public")),
            ("log.levle", Some("log.level")),
            ("shard", Some("shards")),
            ("port", None),
            ("mqtt.keepalive", None),
            ("", None),
        ];
        let known = known();
        for (key, expected) in cases {
            let fault = known.settle_one(key, "1").expect_err(key);
            let KeyFault::Unknown { nearest, .. } = fault else {
                panic!("{key}: {fault:?}");
            };
            assert_eq!(nearest.as_deref(), expected, "{key}");
        }
    }
}
