//! What one listener has been told, so that a frame has only what is new. Pure; knows nothing of connections.

use std::collections::HashMap;

use super::{Amount, Counted, FED, Figures, Name, run, unix_ms_of};
use crate::hpa::wire::{Container, Family, Frame, Kind, Sample, Series, Unmeasured};

/// What one listener has been told, so that a frame has only what is new.
#[derive(Debug, Default)]
pub(super) struct Told {
    begun: bool,
    next: u32,
    /// By name: the id, and whether its bounds were known.
    families: HashMap<&'static str, (u32, bool)>,
    containers: HashMap<Name, (Container, ToldSeries)>,
    unmeasured: Option<Unmeasured>,
    /// Of the frames.
    number: u64,
}

/// By family and labels.
type ToldSeries = HashMap<(u32, Vec<String>), ToldOne>;

#[derive(Debug)]
struct ToldOne {
    id: u32,
    last: Amount,
    /// The last frame whose figures had it.
    seen: u64,
}

impl Told {
    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn frame(&mut self, figures: &Figures) -> Frame {
        let mut frame = Frame { unix_ms: figures.unix_ms, first: !self.begun, ..Frame::default() };
        if frame.first {
            frame.run = run();
        }
        self.begun = true;
        self.number += 1;
        for (name, measured) in &figures.containers {
            for (family, _, amount) in &measured.series {
                self.family(family, Some(amount), &mut frame);
            }
            let mut families: Vec<u32> =
                measured.families.iter().filter_map(|family| self.family(family, None, &mut frame)).collect();
            families.sort_unstable();
            self.container(name, families, measured.counted, &mut frame);
            for (family, labels, amount) in &measured.series {
                self.sample(name, family, labels, amount, &mut frame);
            }
            self.leave(name, &mut frame);
        }
        let gone: Vec<Name> =
            self.containers.keys().filter(|it| !figures.containers.contains_key(*it)).cloned().collect();
        frame.gone = gone.iter().filter_map(|name| Some(self.containers.remove(name)?.0.id)).collect();
        if figures.unmeasured.is_some() && figures.unmeasured != self.unmeasured {
            self.unmeasured.clone_from(&figures.unmeasured);
            frame.unmeasured.clone_from(&figures.unmeasured);
        }
        frame
    }

    /// Tells of series that a container has no longer.
    fn leave(&mut self, name: &Name, frame: &mut Frame) {
        let number = self.number;
        let Some((_, series)) = self.containers.get_mut(name) else { return };
        series.retain(|_, told| {
            let stays = told.seen == number;
            if !stays {
                if matches!(told.last, Amount::Gauge(_)) {
                    frame.samples.push(Sample { series: told.id, ..Sample::default() });
                }
                frame.gone_series.push(told.id);
            }
            stays
        });
    }

    /// The family's id; it is named where it has not been, and anew once a histogram's bounds are known.
    fn family(&mut self, name: &'static str, amount: Option<&Amount>, frame: &mut Frame) -> Option<u32> {
        let (_, kind, _) = FED.iter().find(|(fed, _, _)| *fed == name)?;
        let bounds = if let Some(Amount::Buckets { bounds, .. }) = amount { Some(bounds.to_vec()) } else { None };
        if let Some((id, known)) = self.families.get(name)
            && (*known || bounds.is_none())
        {
            return Some(*id);
        }
        let id = self.id();
        self.families.insert(name, (id, bounds.is_some()));
        // Nothing has happened yet: any bounds will do for nothing.
        let bounds = bounds.unwrap_or_else(|| if *kind == Kind::Histogram { vec![1.0] } else { Vec::new() });
        frame.families.push(Family { id, name: name.to_owned(), kind: (*kind).into(), bounds });
        Some(id)
    }

    fn container(&mut self, name: &Name, families: Vec<u32>, counted: Option<Counted>, frame: &mut Frame) {
        let counted_since_ms = counted.map_or(0, |it| unix_ms_of(it.since));
        let from_start = counted.is_some_and(|it| it.from_start);
        let same = |told: &Container| {
            told.families == families && (told.counted_since_ms, told.from_start) == (counted_since_ms, from_start)
        };
        let known = self.containers.get(name).map(|(told, _)| (told.id, same(told)));
        if let Some((_, true)) = known {
            return;
        }
        let id = known.map_or_else(|| self.id(), |(id, _)| id);
        let (namespace, pod, container) = name.clone();
        let told = Container { id, namespace, pod, container, families, counted_since_ms, from_start };
        frame.containers.push(told.clone());
        self.containers.entry(name.clone()).or_default().0 = told;
    }

    fn sample(&mut self, name: &Name, family: &'static str, labels: &[String], amount: &Amount, frame: &mut Frame) {
        let Some((family, _)) = self.families.get(family).copied() else { return };
        let (next, seen) = (self.next + 1, self.number);
        let Some((container, series)) = self.containers.get_mut(name) else { return };
        // Looked up by a whole key, since few labels are cheap to copy and a nested map is not.
        let key = (family, labels.to_vec());
        let before = series.get_mut(&key).map(|told| {
            told.seen = seen;
            &*told
        });
        let id = before.map_or(next, |told| told.id);
        let sample = match (amount, before.map(|told| &told.last)) {
            (amount, Some(before)) if amount == before => return,
            (Amount::Gauge(value) | Amount::Counter(value), _) => {
                Sample { series: id, value: *value, ..Sample::default() }
            }
            (Amount::Buckets { counts, .. }, before) => {
                let before = if let Some(Amount::Buckets { counts, .. }) = before { &counts[..] } else { &[] };
                let differs = |(bucket, count): &(usize, &u64)| before.get(*bucket).copied().unwrap_or(0) != **count;
                let changed = counts.iter().enumerate().filter(differs);
                let (buckets, counts) = changed.map(|(bucket, count)| (bucket as u32, *count)).unzip();
                Sample { series: id, buckets, counts, ..Sample::default() }
            }
        };
        if before.is_none() {
            self.next = next;
            frame.series.push(Series { id, container: container.id, family, labels: labels.to_vec() });
        }
        series.insert(key, ToldOne { id, last: amount.clone(), seen });
        frame.samples.push(sample);
    }
}
