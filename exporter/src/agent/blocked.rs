//! Accounts of how long a target's goroutines were blocked: what the kernel side counted while the probes were attached,
//! scaled up to the time that it stands for.

use std::{collections::BTreeMap, time::Duration};

use exporter_ebpf::wait::{BUCKETS, WaitValue, bucket};

/// Counts that need not be whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scaled {
    buckets: [f64; BUCKETS],
    sum_ns: f64,
}

impl Scaled {
    fn add(&mut self, value: &WaitValue, scale: f64) {
        for (mine, count) in self.buckets.iter_mut().zip(value.buckets) {
            *mine += count as f64 * scale;
        }
        self.sum_ns += value.sum_ns as f64 * scale;
    }
}

/// What the kernel side has counted of a target, by wait reason.
pub(super) type Raw = BTreeMap<u16, WaitValue>;

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
    /// Share of the time in which blocking was seen, of the last period.
    pub(super) ratio: f64,
}

fn since(now: &WaitValue, base: &WaitValue) -> WaitValue {
    let mut value = WaitValue { sum_ns: now.sum_ns.saturating_sub(base.sum_ns), ..*now };
    for (count, before) in value.buckets.iter_mut().zip(base.buckets) {
        *count = count.saturating_sub(before);
    }
    value
}

impl Blocked {
    /// What has come since the last settlement.
    fn news(&self, raw: &Raw) -> Raw {
        raw.iter()
            .map(|(reason, now)| (*reason, since(now, self.base.get(reason).unwrap_or(&WaitValue::ZERO))))
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
        self.ratio = 1.0;
    }

    /// The time in which the kernel counted everything is over.
    pub(super) fn closed_for_good(&mut self, raw: Raw) {
        self.settle(raw, 1.0);
        self.live = false;
        self.last = None;
    }

    /// A window is over: it was open for `open`, and stands for `period`.
    pub(super) fn closed(&mut self, raw: Raw, open: Duration, period: Duration) {
        let scale = scale(open, period);
        let news = self.settle(raw, scale);
        self.last = Some((news, open));
        self.ratio = 1.0 / scale;
    }

    /// A wait that a window saw begin has ended at last.
    pub(super) fn ended(&mut self, reason: u16, duration_ns: u64, weight: f64) {
        let scaled = self.counted.entry(reason).or_default();
        scaled.buckets[bucket(duration_ns)] += weight;
        scaled.sum_ns += duration_ns as f64 * weight;
    }

    /// What is shown, given what the kernel has counted by now. Counts never shrink.
    pub(super) fn shown(&self, raw: &Raw) -> Raw {
        let mut shown: Raw = BTreeMap::new();
        for (reason, scaled) in &self.counted {
            let mut value = WaitValue { buckets: [0; BUCKETS], sum_ns: scaled.sum_ns as u64 };
            for (count, exact) in value.buckets.iter_mut().zip(scaled.buckets) {
                *count = exact as u64;
            }
            shown.insert(*reason, value);
        }
        if self.live {
            for (reason, news) in self.news(raw) {
                let value = shown.entry(reason).or_insert(WaitValue::ZERO);
                for (count, new) in value.buckets.iter_mut().zip(news.buckets) {
                    *count += new;
                }
                value.sum_ns += news.sum_ns;
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
        let mut value = WaitValue::ZERO;
        for &ns in waits {
            value.buckets[bucket(ns)] += 1;
            value.sum_ns += ns;
        }
        Raw::from([(3, value)])
    }

    #[test]
    fn a_window_stands_for_its_period() {
        let mut blocked = Blocked::default();
        blocked.closed(raw(&[1000, 2000]), Duration::from_secs(1), Duration::from_secs(10));
        // The next window is not shown before it is over.
        let shown = blocked.shown(&raw(&[1000, 2000, 5000]));
        assert_eq!((shown[&3].count(), shown[&3].sum_ns), (20, 30_000));
        assert!((blocked.ratio - 0.1).abs() < 1e-9);
        blocked.closed(raw(&[1000, 2000, 5000]), Duration::from_secs(1), Duration::from_secs(10));
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
        blocked.closed_for_good(raw(&[5; 8]));
        assert_eq!(blocked.shown(&raw(&[5; 9]))[&3].count(), 8);
        blocked.closed(raw(&[5; 9]), Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(blocked.shown(&raw(&[5; 9]))[&3].count(), 10);
        // One more second passes unseen: it was like the window.
        blocked.opened_for_good(Duration::from_secs(1));
        assert_eq!(blocked.shown(&raw(&[5; 10]))[&3].count(), 12);
    }
}
