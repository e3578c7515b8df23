//! What has been granted: topic filters, and whether they cover something.
//! # Invariants: a filter is covered only if one granted filter contains it whole, so every topic
//! that it will ever match is granted too; nothing has to be asked again when such a topic begins.
//! # Not here: who was granted it (`identity`), how filters contain each other (`topics`).

use crate::topics::name::{Target, TopicFilter, TopicName};

/// Filters that were granted. None grant nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Box<[TopicFilter]>);

impl Filters {
    /// Whether a topic is granted.
    pub fn cover_topic(&self, topic: &TopicName) -> bool {
        self.0.iter().any(|granted| granted.matches(topic))
    }

    /// Whether everything that a filter matches, now or later, is granted by one filter.
    pub fn cover_filter(&self, filter: &TopicFilter) -> bool {
        self.0.iter().any(|granted| granted.contains(filter))
    }

    /// Whether everything that a subscription can bring is granted.
    pub fn cover(&self, target: &Target) -> bool {
        match target {
            Target::Topic(topic) => self.cover_topic(topic),
            Target::Filter(filter) => self.cover_filter(filter),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The filters.
    pub fn iter(&self) -> impl Iterator<Item = &TopicFilter> {
        self.0.iter()
    }
}

impl FromIterator<TopicFilter> for Filters {
    fn from_iter<I: IntoIterator<Item = TopicFilter>>(filters: I) -> Filters {
        Filters(filters.into_iter().collect())
    }
}

/// What somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// What they may subscribe to and read the past and the presence of.
    pub subscribe: Filters,
    /// What they may publish to.
    pub publish: Filters,
}

impl Grants {
    /// Everything.
    pub fn all() -> Grants {
        let all = || TopicFilter::parse(">").into_iter().collect();
        Grants { subscribe: all(), publish: all() }
    }

    /// Whether they grant nothing.
    pub fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.publish.is_empty()
    }
}
