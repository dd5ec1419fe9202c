//! A series' last value and how it grew lately: only changes are kept, so that an idle series costs nothing.

use std::{
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use super::{
    MAX_BUCKETS,
    history::{Changes, History, Number},
};
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

/// What a series is, of whatever container. Shared between all that are the same, so that two that are one are at one address.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Meaning {
    /// Of which family.
    pub(crate) family: Arc<FamilyInfo>,
    /// Its labels.
    pub(crate) labels: LabelSet,
}

/// A label set of a family of a container.
#[derive(Debug)]
pub(crate) struct Series {
    meaning: Arc<Meaning>,
    now: Current,
    changes: History,
    /// The next sample has all that there is, and not only what has changed.
    whole: bool,
    /// Whether the stream has it now. What it counted is remembered, to be gone on with.
    told: bool,
}

impl Deref for Series {
    type Target = Meaning;

    fn deref(&self) -> &Meaning {
        &self.meaning
    }
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
    Buckets(Box<Counts>),
}

/// What is in a histogram's buckets, of those that have something, ascending; most have not.
#[derive(Debug)]
struct Counts {
    /// Of all buckets: with other bounds counts are others.
    buckets: u32,
    counts: Box<[Count]>,
}

/// A bucket's number, and its count in the lower 48 bits: there may be hundreds of millions of them.
#[derive(Clone, Copy, Debug)]
struct Count(u64);

impl Count {
    const MOST: u64 = (1 << 48) - 1;

    fn new(bucket: u16, count: u64) -> Self {
        Self((u64::from(bucket) << 48) | count.min(Self::MOST))
    }

    fn bucket(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn count(self) -> u64 {
        self.0 & Self::MOST
    }
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
    pub(super) fn new(meaning: Arc<Meaning>) -> Self {
        Self { meaning, now: Current::None, changes: History::default(), whole: true, told: true }
    }

    /// Whether it is the series that this means.
    pub(super) fn is(&self, meaning: &Arc<Meaning>) -> bool {
        Arc::ptr_eq(&self.meaning, meaning)
    }

    /// Of what it means, which is no other's.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.meaning).addr()
    }

    /// The stream names it, once more or for the first time: its next sample is whole.
    pub(super) fn name(&mut self) {
        (self.whole, self.told) = (true, true);
    }

    /// A new stream begins, which may not name it.
    pub(super) fn await_name(&mut self) {
        self.told = false;
    }

    /// Whether the stream has it.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Whether it has had no value yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.now, Current::None)
    }

    /// It is not there any more: a gauge of it is 0. Counts are remembered, for it may come back with them.
    pub(super) fn end(&mut self, at: u64) {
        self.told = false;
        let zero = matches!(self.now, Current::None) || matches!(self.now, Current::Number(value) if value == 0.0);
        if self.family.kind == Kind::Gauge && self.family.kept_ms > 0 && !zero {
            self.now = Current::Number(0.0);
            self.changes.push_number(at, Number::exact(0.0));
        }
    }

    /// Takes a value. What is smaller than before is no growth, unless the agent was started anew: it may be a process that
    /// began anew, or one of several that ended.
    pub(super) fn apply(&mut self, sample: &Sample, at: u64, grown: Grown) {
        let kept = self.family.kept_ms;
        if kept == 0 {
            return;
        }
        self.expire(at.saturating_sub(kept));
        match self.family.kind {
            Kind::Gauge => {
                self.now = Current::Number(sample.value);
                self.changes.push_number(at, Number::exact(sample.value));
            }
            Kind::Counter => {
                let before = match self.now {
                    Current::Number(before) if before <= sample.value => Some(before),
                    Current::Number(_) => grown.anew.then_some(0.0),
                    _ => grown.from_nothing.then_some(0.0),
                };
                self.now = Current::Number(sample.value);
                if let Some(before) = before {
                    self.changes.push_number(at, Number::growth(sample.value - before));
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
        let before = match std::mem::replace(&mut self.now, Current::None) {
            Current::Buckets(counts) if counts.buckets as usize == buckets => Some(counts),
            _ => None,
        };
        let told = Counts::of(sample, buckets);
        let held: &[Count] = before.as_ref().map_or(&[], |it| &it.counts);
        let comparable = before.is_some();
        let mut growth = Vec::with_capacity(told.len());
        let mut shrunk = false;
        each_of_both(held, &told, |bucket, before, now| {
            // What is not told of is 0 in a whole sample, and as it was in others.
            let now = now.unwrap_or(if whole { 0 } else { before });
            shrunk |= now < before;
            if now > before {
                growth.push((bucket, u32::try_from(now - before).unwrap_or(u32::MAX)));
            }
        });
        let from_nothing = match (&before, shrunk) {
            (Some(_), false) => false,
            (Some(_), true) => grown.anew,
            (None, _) => first && grown.from_nothing,
        };
        let now = match before {
            Some(mut before) if !whole => {
                before.set(&told);
                before
            }
            _ => Box::new(Counts {
                buckets: buckets as u32,
                counts: told.into_iter().filter(|it| it.count() > 0).collect(),
            }),
        };
        if from_nothing {
            let all = now.counts.iter().filter(|it| it.count() > 0);
            growth = all.map(|it| (it.bucket(), u32::try_from(it.count()).unwrap_or(u32::MAX))).collect();
        } else if !comparable || shrunk {
            growth.clear();
        }
        if !growth.is_empty() {
            self.changes.push_buckets(at, &growth);
        }
        self.now = Current::Buckets(now);
    }

    /// Drops changes that are older, but of a gauge the newest of them, which is its value then.
    pub(super) fn expire(&mut self, cutoff: u64) {
        let changes = if self.family.kind == Kind::Histogram { Changes::Buckets } else { Changes::Numbers };
        self.changes.expire(changes, cutoff, self.family.kind == Kind::Gauge);
    }

    /// How much it grew after `from` and up to `to`: a counter's growth, a histogram's count.
    pub(crate) fn growth(&self, from: u64, to: u64) -> f64 {
        if self.family.kind == Kind::Histogram {
            let mut sum = 0;
            self.changes.each_bucket(|at| from < at && at <= to, |_, count| sum += u64::from(count));
            return sum as f64;
        }
        // Each kind by itself: sums of integers are exact.
        let (mut integers, mut nano, mut floats) = (0_u64, 0_u64, 0.0);
        for (_, number) in self.changes.numbers().filter(|(at, _)| from < *at && *at <= to) {
            match number {
                Number::Integer(more) => integers = integers.saturating_add(more),
                Number::Micro(more) => nano = nano.saturating_add(more.saturating_mul(1000)),
                Number::Nano(more) => nano = nano.saturating_add(more),
                Number::Float(more) => floats += more,
            }
        }
        integers as f64 + nano as f64 / 1e9 + floats
    }

    /// Adds how much each bucket grew.
    pub(crate) fn add_buckets(&self, from: u64, to: u64, into: &mut [f64]) {
        if self.family.kind != Kind::Histogram {
            return;
        }
        self.changes.each_bucket(
            |at| from < at && at <= to,
            |bucket, count| {
                if let Some(slot) = into.get_mut(usize::from(bucket)) {
                    *slot += f64::from(count);
                }
            },
        );
    }

    /// A gauge's last value up to `to`, its mean and its greatest from `from` on.
    pub(crate) fn gauge(&self, from: u64, to: u64) -> Option<Gauge> {
        if self.family.kind == Kind::Histogram {
            return None;
        }
        let (mut at, mut weighted, mut most, mut value) = (from, 0.0, None, None);
        for (changed, number) in self.changes.numbers().take_while(|(at, _)| *at <= to) {
            let number = number.value();
            if changed <= from {
                (value, most) = (Some(number), Some(number));
                continue;
            }
            // Not known before: as if it had always been what it was first.
            weighted += value.unwrap_or(number) * (changed - at) as f64;
            at = changed;
            value = Some(number);
            most = most.map_or(value, |it: f64| Some(it.max(number)));
        }
        let last = value?;
        weighted += last * (to - at) as f64;
        let mean = if to > from { weighted / (to - from) as f64 } else { last };
        Some(Gauge { last, mean, most: most.unwrap_or(last) })
    }
}

impl Counts {
    /// What a sample tells, ascending, of buckets that there are; of one that is told of twice the last.
    fn of(sample: &Sample, buckets: usize) -> Vec<Count> {
        let told = sample.buckets.iter().zip(&sample.counts).filter(|(bucket, _)| (**bucket as usize) < buckets);
        let mut told: Vec<Count> = told.map(|(bucket, count)| Count::new(*bucket as u16, *count)).collect();
        if !told.is_sorted_by(|a, b| a.bucket() < b.bucket()) {
            told.reverse();
            told.sort_by_key(|it| it.bucket());
            told.dedup_by_key(|it| it.bucket());
        }
        told
    }

    /// These buckets have these counts now.
    fn set(&mut self, told: &[Count]) {
        let mut next = 0;
        let all_there = told.iter().all(|told| {
            let found = self.counts[next..].iter().position(|it| it.bucket() >= told.bucket()).map(|it| next + it);
            let Some(at) = found.filter(|at| self.counts[*at].bucket() == told.bucket()) else { return false };
            self.counts[at] = *told;
            next = at;
            true
        });
        if !all_there {
            let mut all = Vec::with_capacity(self.counts.len() + told.len());
            let each = |bucket, before, now: Option<u64>| all.push(Count::new(bucket, now.unwrap_or(before)));
            each_of_both(&self.counts, told, each);
            self.counts = all.into();
        }
    }
}

/// Each bucket of either, ascending: what is in the first, and what in the second, if it is there.
fn each_of_both(held: &[Count], told: &[Count], mut each: impl FnMut(u16, u64, Option<u64>)) {
    let (mut held, mut told) = (held.iter().peekable(), told.iter().peekable());
    while let Some(bucket) = [held.peek(), told.peek()].into_iter().flatten().map(|it| it.bucket()).min() {
        let before = held.next_if(|it| it.bucket() == bucket).map_or(0, |it| it.count());
        each(bucket, before, told.next_if(|it| it.bucket() == bucket).map(|it| it.count()));
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
