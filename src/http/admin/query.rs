//! What stands behind the question mark of a path.
//! # Invariants: what is not known is refused, not passed over.
//! # Not here: what the values are good for.

use crate::dialect::query::{self, Pair};
use crate::reason::{Reason, Refusal};
use std::ops::RangeInclusive;

/// Names and values, percent decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query(Vec<Pair>);

impl Query {
    /// # Errors
    /// [`Reason::BadRequest`].
    pub(super) fn parse(raw: &str) -> Result<Query, Refusal> {
        query::pairs(raw).map(Query)
    }

    /// # Errors
    /// [`Reason::BadRequest`] when there is a name that is not one of these, or one twice.
    pub(super) fn only(&self, known: &[&str]) -> Result<&Query, Refusal> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            let detail = if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                format!("the query of the path takes {known}")
            } else if self.0.iter().take(index).any(|(earlier, _)| earlier == name) {
                format!("`{name}` is there twice")
            } else {
                continue;
            };
            return Err(Refusal::new(Reason::BadRequest, detail));
        }
        Ok(self)
    }

    /// The value of a name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a name as a number.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when it is none or out of bounds.
    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> Result<usize, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| {
            let (least, most) = bounds.into_inner();
            let detail = format!("`{name}` must be a number from {least} to {most}");
            Refusal::new(Reason::BadRequest, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_what_cannot_be_is_refused() {
        let query = Query::parse("filter=a.%3E&after=%C3%A9+x&limit=10&").unwrap();
        assert_eq!(query.text("filter"), Some("a.>"));
        assert_eq!(query.text("after"), Some("é x"));
        assert_eq!(query.text("subject"), None);
        assert_eq!(query.number("limit", 5, 1..=10), Ok(10));
        assert_eq!(query.number("other", 5, 1..=10), Ok(5));
        for raw in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn what_is_not_known_or_out_of_bounds_is_refused_with_what_would_be_right() {
        let query = Query::parse("limit=0&bound=1").unwrap();
        let words = |refused: Result<_, Refusal>| refused.unwrap_err().detail.unwrap();
        let number = query.number("limit", 5, 1..=10);
        assert_eq!(&*words(number.map(drop)), "`limit` must be a number from 1 to 10");
        let only = query.only(&["limit", "after"]);
        assert_eq!(&*words(only.map(drop)), "the query of the path takes limit, after");
        let twice = Query::parse("a=1&a=2").unwrap();
        assert_eq!(&*words(twice.only(&["a"]).map(drop)), "`a` is there twice");
    }
}
