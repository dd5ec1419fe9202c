//! A series' last value and how it grew lately: only changes are kept, so that an idle series costs nothing.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::MAX_BUCKETS;
use crate::hpa::wire::{Family, Kind, Sample};

/// A kind of figure.
#[derive(Clone, Debug)]
pub(crate) struct FamilyInfo {
    /// Its name.
    pub(crate) name: Box<str>,
    /// What its values are.
    pub(crate) kind: Kind,
    /// A histogram's upper bounds, without `+Inf`.
    pub(crate) bounds: Box<[f64]>,
    /// For how long changes are kept; 0: nothing of it is.
    pub(crate) kept_ms: u64,
}

/// Label names and values. Shared between series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LabelSet(pub(crate) Arc<[(Box<str>, Box<str>)]>);

/// A label set of a family of a container.
#[derive(Debug)]
pub(crate) struct Series {
    /// Of which family.
    pub(crate) family: Arc<FamilyInfo>,
    /// Its labels.
    pub(crate) labels: LabelSet,
    now: Current,
    changes: VecDeque<Change>,
    /// The next sample has all that there is, and not only what has changed.
    whole: bool,
    /// Whether the stream has it now. What it counted is remembered, to be gone on with.
    told: bool,
}

/// What the first value of a series, or one that is smaller than before, says of growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grown {
    /// A first value has grown from 0: its family was measured before, and had no such series.
    pub(super) from_nothing: bool,
    /// A smaller value has grown from 0: the agent was started anew.
    pub(super) anew: bool,
}

/// The last value.
#[derive(Debug)]
enum Current {
    /// Not told yet.
    None,
    Number(f64),
    Buckets(Box<[u64]>),
}

/// A change, and the frame that told of it.
#[derive(Debug)]
struct Change {
    at: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A gauge's new value, a counter's growth.
    Number(f64),
    /// Growth by bucket.
    Buckets(Box<[(u16, u32)]>),
}

impl FamilyInfo {
    /// From the wire; none if it makes no sense.
    pub(super) fn of(family: &Family, kept_ms: u64) -> Option<Self> {
        let kind = Kind::try_from(family.kind).ok()?;
        let bounds = &family.bounds;
        let ascending = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|it| it.is_finite());
        let fits =
            if kind == Kind::Histogram { !bounds.is_empty() && bounds.len() < MAX_BUCKETS } else { bounds.is_empty() };
        (ascending && fits && !family.name.is_empty()).then(|| Self {
            name: family.name.as_str().into(),
            kind,
            bounds: bounds.clone().into(),
            kept_ms,
        })
    }
}

impl PartialEq for FamilyInfo {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind && self.bounds == other.bounds
    }
}

// Bounds are finite.
impl Eq for FamilyInfo {}

impl Hash for FamilyInfo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.kind.hash(state);
    }
}

impl Series {
    pub(super) fn new(family: Arc<FamilyInfo>, labels: LabelSet) -> Self {
        Self { family, labels, now: Current::None, changes: VecDeque::new(), whole: true, told: true }
    }

    /// The stream names it, once more or for the first time: its next sample is whole.
    pub(super) fn name(&mut self, family: Arc<FamilyInfo>) {
        (self.family, self.whole, self.told) = (family, true, true);
    }

    /// A new stream begins, which may not name it.
    pub(super) fn await_name(&mut self) {
        self.told = false;
    }

    /// Whether the stream has it.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// It is not there any more: a gauge of it is 0. Counts are remembered, for it may come back with them.
    pub(super) fn end(&mut self, at: u64) {
        self.told = false;
        let zero = matches!(self.now, Current::None) || matches!(self.now, Current::Number(value) if value == 0.0);
        if self.family.kind == Kind::Gauge && self.family.kept_ms > 0 && !zero {
            self.now = Current::Number(0.0);
            self.changes.push_back(Change { at, what: What::Number(0.0) });
        }
    }

    /// Takes a value. What is smaller than before is no growth, unless the agent was started anew: it may be a process that
    /// began anew, or one of several that ended.
    pub(super) fn apply(&mut self, sample: &Sample, at: u64, grown: Grown) {
        if self.family.kept_ms == 0 {
            return;
        }
        match self.family.kind {
            Kind::Gauge => {
                self.now = Current::Number(sample.value);
                self.changes.push_back(Change { at, what: What::Number(sample.value) });
            }
            Kind::Counter => {
                let before = match self.now {
                    Current::Number(before) if before <= sample.value => Some(before),
                    Current::Number(_) => grown.anew.then_some(0.0),
                    _ => grown.from_nothing.then_some(0.0),
                };
                self.now = Current::Number(sample.value);
                if let Some(before) = before {
                    self.changes.push_back(Change { at, what: What::Number(sample.value - before) });
                }
            }
            Kind::Histogram => self.apply_buckets(sample, at, grown),
        }
    }

    fn apply_buckets(&mut self, sample: &Sample, at: u64, grown: Grown) {
        let buckets = self.family.bounds.len() + 1;
        let whole = std::mem::take(&mut self.whole);
        // Bounds that were not known before, or are others now: what was counted by those before cannot be compared.
        let first = matches!(self.now, Current::None);
        let before = match &mut self.now {
            Current::Buckets(counts) if counts.len() == buckets => Some(std::mem::take(counts)),
            _ => None,
        };
        let mut now: Box<[u64]> = match &before {
            Some(before) if !whole => before.clone(),
            _ => vec![0; buckets].into(),
        };
        for (bucket, count) in sample.buckets.iter().zip(&sample.counts) {
            if let Some(slot) = now.get_mut(*bucket as usize) {
                *slot = *count;
            }
        }
        let shrunk = before.as_ref().is_some_and(|before| now.iter().zip(before).any(|(now, before)| now < before));
        let base = match (&before, shrunk) {
            (Some(before), false) => Some(before.clone()),
            (Some(_), true) => grown.anew.then(|| vec![0; buckets].into()),
            (None, _) => (first && grown.from_nothing).then(|| vec![0; buckets].into()),
        };
        if let Some(base) = base {
            let growth = now.iter().zip(&base).enumerate().filter(|(_, (now, base))| now > base);
            let growth: Box<[(u16, u32)]> = growth
                .map(|(bucket, (now, base))| (bucket as u16, u32::try_from(now - base).unwrap_or(u32::MAX)))
                .collect();
            if !growth.is_empty() {
                self.changes.push_back(Change { at, what: What::Buckets(growth) });
            }
        }
        self.now = Current::Buckets(now);
    }

    /// Drops changes that are older, but of a gauge the newest of them, which is its value then.
    pub(super) fn expire(&mut self, cutoff: u64) {
        let gauge = self.family.kind == Kind::Gauge;
        while self.changes.front().is_some_and(|it| it.at < cutoff) {
            if gauge && self.changes.get(1).is_none_or(|it| it.at >= cutoff) {
                return;
            }
            self.changes.pop_front();
        }
        if self.changes.is_empty() && self.changes.capacity() > 8 {
            self.changes.shrink_to_fit();
        }
    }

    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Change> {
        let start = self.changes.partition_point(|it| it.at <= from);
        self.changes.range(start..).take_while(move |it| it.at <= to)
    }

    /// How much it grew after `from` and up to `to`: a counter's growth, a histogram's count.
    pub(crate) fn growth(&self, from: u64, to: u64) -> f64 {
        self.between(from, to)
            .map(|it| match &it.what {
                What::Number(number) => *number,
                What::Buckets(buckets) => buckets.iter().map(|(_, count)| f64::from(*count)).sum(),
            })
            .sum()
    }

    /// Adds how much each bucket grew.
    pub(crate) fn add_buckets(&self, from: u64, to: u64, into: &mut [f64]) {
        for change in self.between(from, to) {
            let What::Buckets(buckets) = &change.what else { continue };
            for (bucket, count) in buckets {
                if let Some(slot) = into.get_mut(usize::from(*bucket)) {
                    *slot += f64::from(*count);
                }
            }
        }
    }

    /// A gauge's last value up to `to`, its mean and its greatest from `from` on.
    pub(crate) fn gauge(&self, from: u64, to: u64) -> Option<Gauge> {
        let first = self.changes.partition_point(|it| it.at <= from);
        let number = |change: &Change| if let What::Number(number) = change.what { number } else { 0.0 };
        let mut value = first.checked_sub(1).map(|index| number(&self.changes[index]));
        let (mut at, mut weighted, mut most) = (from, 0.0, value);
        for change in self.between(from, to) {
            if let Some(value) = value {
                weighted += value * (change.at - at) as f64;
            } else {
                // Not known before: as if it had always been what it was first.
                weighted += number(change) * (change.at - at) as f64;
            }
            at = change.at;
            value = Some(number(change));
            most = most.map_or(value, |it| Some(it.max(number(change))));
        }
        let last = value?;
        weighted += last * (to - at) as f64;
        let mean = if to > from { weighted / (to - from) as f64 } else { last };
        Some(Gauge { last, mean, most: most.unwrap_or(last) })
    }
}

/// A gauge over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gauge {
    /// Its last value.
    pub(crate) last: f64,
    /// Its mean.
    pub(crate) mean: f64,
    /// Its greatest.
    pub(crate) most: f64,
}
