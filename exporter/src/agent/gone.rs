//! How long the figures of an ended process stay. Knows nothing of what they are.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The least, so that of several servers that scrape at one time all see them.
const LEAST: Duration = Duration::from_secs(5);
/// The longest that they wait for a scrape.
const UNSEEN: Duration = Duration::from_mins(5);
/// Most ended processes that wait for one; of more, those that ended first go.
pub(super) const MOST_UNSEEN: usize = 1024;

/// An ended process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    at: Instant,
    /// Snapshots that had begun by then: each may have read the figures before they were the last.
    begun: u64,
    /// Whether another has its labels now.
    replaced: bool,
}

impl Gone {
    /// It ended at this time, when so many snapshots had begun.
    pub(super) fn new(at: Instant, begun: u64) -> Self {
        Self { at, begun, replaced: false }
    }

    /// Its labels are another's now.
    pub(super) fn replaced(self) -> Self {
        Self { replaced: true, ..self }
    }

    /// When it ended.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether a scrape has shown its last figures, or none will. `shown`: see [`Scrapes::shown`].
    pub(super) fn is_over(&self, now: Instant, shown: u64) -> bool {
        let age = now.saturating_duration_since(self.at);
        let seen = shown > self.begun;
        self.replaced || age >= UNSEEN || (age >= LEAST && seen)
    }

    /// Whether it is no news any more to who counts what there is now, as the HPA does.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= LEAST
    }
}

/// Scrapes, and the snapshots that are made for them by number: one may serve several.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    asked: AtomicU64,
    begun: AtomicU64,
    shown: AtomicU64,
}

impl Scrapes {
    /// Somebody scrapes.
    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of a snapshot that begins.
    pub(super) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It has its figures.
    pub(super) fn end(&self, number: u64) {
        self.shown.fetch_max(number, Ordering::Relaxed);
    }

    /// How many snapshots have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The highest number of a snapshot that has its figures; 0 where none has.
    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }

    /// How many scrapes there were.
    pub(super) fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_figures_stay_until_a_scrape_that_began_after_the_end() {
        let scrapes = Scrapes::default();
        let under_way = scrapes.begin();
        let gone = Gone::new(Instant::now(), scrapes.begun());
        let after = |seconds| gone.at + Duration::from_secs(seconds);
        scrapes.end(under_way);
        assert!(!gone.is_over(after(60), scrapes.shown()), "that one may have read them before");
        let next = scrapes.begin();
        assert!(!gone.is_over(after(60), scrapes.shown()), "it is being made");
        scrapes.end(next);
        assert!(gone.is_over(after(60), scrapes.shown()));
        assert!(!gone.is_over(after(4), scrapes.shown()), "another server may scrape too");
        assert!(gone.replaced().is_over(after(0), 0));
        assert!(gone.is_over(after(300), 0), "nobody scrapes");
        assert!(gone.is_stale(after(5)) && !gone.is_stale(after(4)));
    }
}
