//! Accounts of how long a target's goroutines were blocked: what the kernel side counted while the probes were attached,
//! scaled up to the time that it stands for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use exporter_ebpf::{
    durations::{BUCKETS, Durations, WAITS},
    key::{Family, SeriesKey},
};

/// Counts that need not be whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scaled {
    buckets: [f64; BUCKETS],
    sum_ns: f64,
}

impl Scaled {
    fn add(&mut self, value: &Durations, scale: f64) {
        for (mine, count) in self.buckets.iter_mut().zip(value.buckets) {
            *mine += count as f64 * scale;
        }
        self.sum_ns += value.sum_ns as f64 * scale;
    }
}

/// What the kernel side has counted of a target, by wait reason.
pub(super) type Raw = BTreeMap<u16, Durations>;

/// In place of a wait reason, which are bytes: what is past the target's share of series.
const OVERFLOW: u16 = u16::MAX;

/// The reason in a key.
pub(super) fn number(key: &SeriesKey) -> u16 {
    if key.is_overflow() { OVERFLOW } else { key.code }
}

/// The key of a target's reason.
pub(super) fn key(target: u32, number: u16) -> SeriesKey {
    match number {
        OVERFLOW => SeriesKey::overflow(Family::Blocking, target),
        number => SeriesKey::of(Family::Blocking, target, number),
    }
}

/// The accounts of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocked {
    counted: BTreeMap<u16, Scaled>,
    /// What of the kernel's counts is in `counted`.
    base: Raw,
    /// Whether the kernel counts everything now.
    live: bool,
    /// What the last window saw, and for how long it was open: it stands for the time until the next begins, too.
    last: Option<(Raw, Duration)>,
    seen: Option<Seen>,
}

/// How much was seen of the last period that is over.
#[derive(Clone, Copy, Debug)]
struct Seen {
    open: Duration,
    period: Duration,
    until: Instant,
}

/// Of a time in which all was seen this much says something of what comes after it.
const RECENT: Duration = Duration::from_secs(10);

impl Blocked {
    /// What has come since the last settlement.
    fn news(&self, raw: &Raw) -> Raw {
        raw.iter()
            .map(|(reason, now)| (*reason, now.since(self.base.get(reason).unwrap_or(&Durations::ZERO))))
            .collect()
    }

    fn settle(&mut self, raw: Raw, scale: f64) -> Raw {
        let news = self.news(&raw);
        for (reason, value) in &news {
            self.counted.entry(*reason).or_default().add(value, scale);
        }
        self.base = raw;
        news
    }

    /// From now on the kernel counts everything. What was in between the last window and now was not seen.
    pub(super) fn opened_for_good(&mut self, unseen: Duration) {
        if let Some((seen, open)) = self.last.take()
            && !open.is_zero()
        {
            let scale = unseen.as_secs_f64() / open.as_secs_f64();
            for (reason, value) in &seen {
                self.counted.entry(*reason).or_default().add(value, scale);
            }
        }
        self.live = true;
        self.seen = None;
    }

    /// The time in which the kernel counted everything is over: it was so long.
    pub(super) fn closed_for_good(&mut self, raw: Raw, open: Duration, until: Instant) {
        self.settle(raw, 1.0);
        self.live = false;
        self.last = None;
        self.seen = Some(Seen { open: open.min(RECENT), period: open.min(RECENT), until });
    }

    /// A window is over: it was open for `open`, and stands for `period`.
    pub(super) fn closed(&mut self, raw: Raw, open: Duration, period: Duration, until: Instant) {
        let news = self.settle(raw, scale(open, period));
        self.last = Some((news, open));
        self.seen = Some(Seen { open: open.min(period), period, until });
    }

    /// By how much what is counted now is to be multiplied, as the last window was.
    pub(super) fn scale(&self) -> f64 {
        self.seen.map_or(1.0, |seen| scale(seen.open, seen.period))
    }

    /// Share of the time in which blocking was seen, of the last period that is over and the time since. It falls while nothing is
    /// seen; 0 where nothing was yet.
    pub(super) fn ratio(&self, now: Instant) -> f64 {
        if self.live {
            return 1.0;
        }
        self.seen.map_or(0.0, |seen| {
            let whole = (seen.period + now.saturating_duration_since(seen.until)).as_secs_f64();
            if whole > 0.0 { seen.open.as_secs_f64() / whole } else { 0.0 }
        })
    }

    /// A wait that a window saw begin has ended at last.
    pub(super) fn ended(&mut self, reason: u16, duration_ns: u64, weight: f64) {
        let scaled = self.counted.entry(reason).or_default();
        scaled.buckets[WAITS.bucket(duration_ns)] += weight;
        scaled.sum_ns += duration_ns as f64 * weight;
    }

    /// What is shown, given what the kernel has counted by now. Counts never shrink.
    pub(super) fn shown(&self, raw: &Raw) -> Raw {
        let mut shown: Raw = BTreeMap::new();
        for (reason, scaled) in &self.counted {
            let mut value = Durations { buckets: [0; BUCKETS], sum_ns: scaled.sum_ns as u64 };
            for (count, exact) in value.buckets.iter_mut().zip(scaled.buckets) {
                *count = exact as u64;
            }
            shown.insert(*reason, value);
        }
        if self.live {
            for (reason, news) in self.news(raw) {
                shown.entry(reason).or_insert(Durations::ZERO).add(&news);
            }
        }
        shown
    }
}

/// How many times what a window saw is what happened in the period that it stands for.
pub(super) fn scale(open: Duration, period: Duration) -> f64 {
    if open.is_zero() { 1.0 } else { (period.as_secs_f64() / open.as_secs_f64()).max(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(waits: &[u64]) -> Raw {
        let mut value = Durations::ZERO;
        for &ns in waits {
            value.record(&WAITS, ns);
        }
        Raw::from([(3, value)])
    }

    #[test]
    fn a_window_stands_for_its_period() {
        let mut blocked = Blocked::default();
        blocked.closed(raw(&[1000, 2000]), Duration::from_secs(1), Duration::from_secs(10), Instant::now());
        // The next window is not shown before it is over.
        let shown = blocked.shown(&raw(&[1000, 2000, 5000]));
        assert_eq!((shown[&3].count(), shown[&3].sum_ns), (20, 30_000));
        assert!((blocked.scale() - 10.0).abs() < 1e-9);
        blocked.closed(raw(&[1000, 2000, 5000]), Duration::from_secs(1), Duration::from_secs(10), Instant::now());
        let shown = blocked.shown(&raw(&[1000, 2000, 5000]));
        assert_eq!((shown[&3].count(), shown[&3].sum_ns), (30, 80_000));
        blocked.ended(3, 2_000_000_000, 10.0);
        assert_eq!(blocked.shown(&Raw::new())[&3].count(), 40);
    }

    #[test]
    fn what_is_seen_in_full_is_shown_as_it_is() {
        let mut blocked = Blocked::default();
        blocked.opened_for_good(Duration::ZERO);
        assert_eq!(blocked.shown(&raw(&[5; 7]))[&3].count(), 7);
        blocked.closed_for_good(raw(&[5; 8]), Duration::from_secs(1), Instant::now());
        assert_eq!(blocked.shown(&raw(&[5; 9]))[&3].count(), 8);
        blocked.closed(raw(&[5; 9]), Duration::from_secs(1), Duration::from_secs(2), Instant::now());
        assert_eq!(blocked.shown(&raw(&[5; 9]))[&3].count(), 10);
        // One more second passes unseen: it was like the window.
        blocked.opened_for_good(Duration::from_secs(1));
        assert_eq!(blocked.shown(&raw(&[5; 10]))[&3].count(), 12);
    }

    #[test]
    fn what_is_past_the_share_keeps_its_key() {
        for key in [SeriesKey::of(Family::Blocking, 7, 3), SeriesKey::overflow(Family::Blocking, 7)] {
            assert_eq!(super::key(7, number(&key)), key);
        }
    }

    #[test]
    fn the_share_that_is_seen_falls_while_nothing_is() {
        let is = |blocked: &Blocked, at, share: f64| assert!((blocked.ratio(at) - share).abs() < 1e-9, "{blocked:?}");
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut blocked = Blocked::default();
        is(&blocked, start, 0.0);
        blocked.opened_for_good(Duration::ZERO);
        is(&blocked, start + second, 1.0);
        // After an hour in full nothing is seen for ten seconds.
        blocked.closed_for_good(Raw::new(), 3600 * second, start);
        is(&blocked, start, 1.0);
        is(&blocked, start + 10 * second, 0.5);
        is(&blocked, start + 90 * second, 0.1);
        assert!((blocked.scale() - 1.0).abs() < 1e-9);
        // A window of a second stands for these 91.
        blocked.closed(Raw::new(), second, 91 * second, start + 91 * second);
        is(&blocked, start + 91 * second, 1.0 / 91.0);
        is(&blocked, start + 100 * second, 0.01);
        blocked.opened_for_good(9 * second);
        is(&blocked, start + 100 * second, 1.0);
        assert!((blocked.scale() - 1.0).abs() < 1e-9);
    }
}
