//! What ended targets of a container counted. A container that restarts, or is measured again after a pause, has the same labels:
//! its counters go on where they were, as long as its pod is there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use exporter_ebpf::{durations::Durations, key::Family, wait::WaitState};
use instruments::{LabelSet, past_the_limit};

use crate::{agent::hpa::joined, hpa::feed::Counted, target::Labels};

/// Series kept of one container and family. A program that crashes again and again may have other routes each time; what is more
/// is added up under the overflow route, of which there are as many as methods and statuses.
const MOST: usize = 1000;
/// Functions of one target in the metric; more share one value.
const TOP: usize = 20;
/// What functions past [`TOP`] are called.
const OTHERS: &str = "_other";

/// Totals of one container.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Retired {
    /// The pod that counted them.
    pub(in crate::agent) uid: Arc<str>,
    /// When the last target was found that counted some.
    pub(in crate::agent) found: Option<Instant>,
    pub(in crate::agent) series: BTreeMap<Family, HashMap<LabelSet, Durations>>,
    /// By reason, as the kernel side numbers them.
    pub(in crate::agent) lost: HashMap<u32, u64>,
    /// Hits of probes and the like.
    pub(in crate::agent) kept: WaitState,
    /// Seconds that profiles have seen goroutines blocked, by function.
    pub(in crate::agent) blocked_functions: BTreeMap<String, f64>,
    /// Since when they were counted without a gap.
    pub(in crate::agent) counted: Option<Counted>,
}

/// A target that is to be forgotten.
pub(in crate::agent) struct Leaver {
    pub(in crate::agent) id: u32,
    /// What it has counted, and under which labels that is kept; none where it is not.
    pub(in crate::agent) totals: Option<(Labels, Retired)>,
}

impl Retired {
    /// Adds what was counted of a series.
    pub(in crate::agent) fn add(&mut self, family: Family, labels: LabelSet, value: &Durations) {
        let totals = self.series.entry(family).or_default();
        let is_new = totals.len() >= MOST && !totals.contains_key(&labels);
        let labels = if is_new { past_the_limit(labels) } else { labels };
        totals.entry(labels).or_insert(Durations::ZERO).add(value);
    }

    /// Adds what was lost for a reason.
    pub(in crate::agent) fn lose(&mut self, reason: u32, count: u64) {
        *self.lost.entry(reason).or_default() += count;
    }

    /// Adds what another target of the container has counted. The next pod of a StatefulSet has the name of the one before, and
    /// counts anew: of two pods the totals of the one count that was found last.
    pub(super) fn join(&mut self, other: Self) {
        if self.uid != other.uid {
            if self.found.is_none() || self.found <= other.found {
                *self = other;
            }
            return;
        }
        self.found = self.found.max(other.found);
        for (family, series) in other.series {
            for (labels, value) in series {
                self.add(family, labels, &value);
            }
        }
        for (reason, count) in other.lost {
            self.lose(reason, count);
        }
        add_kept(&mut self.kept, &other.kept);
        let functions = other.blocked_functions.iter().map(|(name, seconds)| (name.as_str(), *seconds));
        add_functions(&mut self.blocked_functions, functions);
        self.counted = match (self.counted, other.counted) {
            (Some(before), Some(after)) => Some(joined(before, after)),
            (before, after) => before.or(after),
        };
    }
}

/// Adds what only grows.
pub(in crate::agent) fn add_kept(sum: &mut WaitState, more: &WaitState) {
    sum.parks += more.parks;
    sum.runs += more.runs;
    sum.stacks = sum.stacks.wrapping_add(more.stacks);
    sum.stops += more.stops;
    sum.switches += more.switches;
    sum.involuntary += more.involuntary;
}

/// Adds up seconds by function; past [`TOP`] functions the others are one.
pub(in crate::agent) fn add_functions<'f>(
    to: &mut BTreeMap<String, f64>,
    more: impl IntoIterator<Item = (&'f str, f64)>,
) {
    for (function, seconds) in more {
        let room = to.len() < TOP || to.contains_key(function);
        *to.entry(if room { function } else { OTHERS }.to_owned()).or_default() += seconds;
    }
}

#[cfg(test)]
mod tests {
    use instruments::Value;

    use super::*;

    fn labels(route: &str, status: u16) -> LabelSet {
        vec![("http_response_status_code", Value::Number(status)), ("http_route", Value::Text(route.into()))]
    }

    #[test]
    fn a_container_that_comes_again_with_other_routes_keeps_so_many() {
        let mut one = Durations::ZERO;
        one.record(Family::HttpServer.scale(), 1);
        let mut retired = Retired::default();
        for i in 0..3 * MOST {
            let mut next = Retired::default();
            next.add(Family::HttpServer, labels(&format!("/{i}"), 200 + (i % 2) as u16), &one);
            next.add(Family::Stw, vec![("reason", Value::Word("unknown"))], &one);
            retired.join(next);
        }
        let of_requests = &retired.series[&Family::HttpServer];
        assert_eq!(of_requests.len(), MOST + 2);
        assert_eq!(of_requests.values().map(Durations::count).sum::<u64>(), 3 * MOST as u64);
        assert_eq!(of_requests[&labels(instruments::OVERFLOW, 200)].count(), MOST as u64);
        assert_eq!(retired.series[&Family::Stw].values().map(Durations::count).sum::<u64>(), 3 * MOST as u64);
    }
}
