//! The page as it was a moment ago: who scrapes often costs no more than who scrapes once a second.
//! # Invariants: what is told is never older than it may be; one page is made at a time.
//! # Not here: what is on the page (`page`), HTTP.

use super::Page;
use crate::clock::Now;
use bytes::Bytes;
use parking_lot::Mutex;
use std::time::Duration;

/// The page, made anew only when it has become too old.
#[derive(Debug)]
pub struct KeptPage {
    page: Page,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    age_max: Duration,
    /// What was told last, and when that was made.
    last: Option<(Duration, Bytes)>,
}

impl KeptPage {
    /// Tells a page for so long after it was made.
    pub fn new(page: Page, age_max: Duration) -> KeptPage {
        KeptPage { page, kept: Mutex::new(Kept { age_max, last: None }) }
    }

    /// Tells a page for another time from now on.
    pub fn change(&self, age_max: Duration) {
        self.kept.lock().age_max = age_max;
    }

    /// The text of a scrape.
    pub fn text(&self, now: Now) -> Bytes {
        let mut kept = self.kept.lock();
        let age_max = kept.age_max;
        let is_fresh = |made: Duration| now.uptime.saturating_sub(made) < age_max;
        if let Some((_, text)) = kept.last.as_ref().filter(|(made, _)| is_fresh(*made)) {
            return text.clone();
        }
        let text = Bytes::from(self.page.text());
        kept.last = Some((now.uptime, text.clone()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counters, Sources, Waiting};
    use crate::topics::registry::{Registry, RegistryOptions};
    use std::sync::Arc;

    #[test]
    fn a_page_is_made_at_most_once_in_its_time_however_often_it_is_asked_for() {
        let counters = Arc::new(Counters::default());
        let registry = Registry::new(RegistryOptions::default(), Vec::new(), Box::new(|| Some(1)));
        let page = Page::new(Sources {
            blocks: vec![Arc::clone(&counters)],
            mailboxes: Vec::new(),
            registry: Arc::new(registry),
            waiting: Waiting::default(),
        });
        let page = KeptPage::new(page, Duration::from_secs(1));
        let told = |ms| {
            counters.published.increment();
            let text = page.text(Now::at_ms(ms));
            let text = String::from_utf8(text.to_vec()).expect("a text");
            let line = text.lines().find_map(|line| line.strip_prefix("fanfare_published_total "));
            line.and_then(|count| count.parse::<u64>().ok()).expect("a count")
        };
        // It is 1 with the first question, and one more with each.
        let asked = [5_000, 5_000, 5_500, 5_999, 6_000, 6_999, 9_000];
        assert_eq!(asked.map(told), [1, 1, 1, 1, 5, 5, 7]);
        page.change(Duration::ZERO);
        assert_eq!([9_000, 9_000].map(told), [8, 9]);
        page.change(Duration::from_mins(1));
        assert_eq!([68_999, 69_000].map(told), [9, 11]);
    }
}
