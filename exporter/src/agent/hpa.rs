//! What the HPA is told beside figures: since when a container is counted without a gap, and which pods have no figures, and why.
//! Knows nothing of the stream, nor of who listens.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
    time::Instant,
};

use exporter_ebpf::key::Family;
use instruments::Instrument;

use super::{
    Agent, collect,
    ledger::View,
    registry::{Stage, Target, Targets},
};
use crate::{
    hpa::feed::{Counted, Figures},
    kubernetes::{Placement, Pods},
    metrics::Snapshot,
    target::Labels,
};

type Name = (String, String, String);

/// Why a pod has no figures, and whether that is as it should be.
type Reason = (bool, String);

impl Agent {
    /// The figures of now for the HPA. Blocks as [`Agent::snapshot`] does.
    pub(crate) fn figures(&self) -> Figures {
        let snapshot = collect::snapshot(self);
        let (counted, stale, without, reasons) = {
            let view = &self.reading().view;
            let targets = &view.targets;
            // What ended waits for a scrape; the HPA asks for what there is.
            (view.since(), targets.stale(Instant::now()), targets.without(), targets.reasons())
        };
        let figures = Figures::of(&told(snapshot, &stale, &without)).counted(|namespace, pod, container| {
            counted.get(&(namespace.to_owned(), pod.to_owned(), container.to_owned())).copied()
        });
        // Before all processes were looked at, it is not known that a pod has none.
        let scanned = self.inner.scanned.load(Ordering::Relaxed);
        match self.inner.pods.as_ref().filter(|_| scanned).and_then(Pods::asked) {
            None => figures,
            Some(asked) => figures.wanted(asked.into_iter().map(|asked| {
                let key = (asked.namespace.to_string(), asked.name.to_string());
                let (expected, reason) = match asked.refused {
                    Some(reason) => (true, reason.to_owned()),
                    None => reasons.get(&key).cloned().unwrap_or((true, "no Go process runs in it".to_owned())),
                };
                (key.0, key.1, expected, reason)
            })),
        }
    }
}

/// An instrument, and labels of which nothing is measured by it.
type Without = (&'static Instrument, HashSet<Labels>);

/// What of a snapshot says something of its targets. Those that began to be measured after it was read are in none: nothing was
/// counted of them then, and a rate since would have that as a second of nothing.
fn told(mut snapshot: Snapshot, stale: &HashSet<Labels>, without: &[Without]) -> Snapshot {
    let unsettled = std::mem::take(&mut snapshot.unsettled);
    snapshot.leave_out(&unsettled);
    snapshot.leave_out(stale);
    for (instrument, without) in without {
        let is_of = |name: &str| instrument.open.iter().any(|it| it.desc.name == name);
        for target in snapshot.targets.iter_mut().filter(|it| without.contains(&it.target)) {
            target.open.retain(|(name, _)| !is_of(name));
        }
        let is_shown = |family: Family| instrument.families.iter().any(|it| it.family == family);
        snapshot.series.retain(|it| !is_shown(it.family) || !without.contains(&it.target));
    }
    snapshot
}

fn name(placement: &Placement) -> Name {
    (placement.namespace.to_string(), placement.pod.to_string(), placement.container.to_string())
}

impl Target {
    /// When it was found, and whether it ran before.
    pub(super) fn found(&self) -> Counted {
        Counted { since: self.found, from_start: !self.late }
    }
}

/// Of two processes of a container, one after the other or beside each other.
pub(super) fn joined(a: Counted, b: Counted) -> Counted {
    match (a.from_start, b.from_start) {
        (true, true) => Counted { since: a.since.min(b.since), from_start: true },
        (false, false) => Counted { since: a.since.max(b.since), from_start: false },
        (false, true) => a,
        (true, false) => b,
    }
}

impl View {
    /// Since when containers are counted without a gap.
    fn since(&self) -> HashMap<Name, Counted> {
        let mut of: HashMap<Name, (&str, Counted)> = HashMap::new();
        let mut targets: Vec<&Target> = self.targets.values().collect();
        targets.sort_by_key(|target| target.found);
        for target in targets {
            let Some(placement) = target.placement.as_deref() else { continue };
            let retired = self.retired.get(&target.id).filter(|it| it.uid == placement.uid);
            let own = retired.and_then(|it| it.counted).map_or(target.found(), |before| joined(before, target.found()));
            // The next pod of a StatefulSet has the name of the one before, and counts anew.
            let known = of.get(&name(placement)).filter(|(uid, _)| **uid == *placement.uid);
            let counted = known.map_or(own, |(_, known)| joined(*known, own));
            of.insert(name(placement), (&placement.uid, counted));
        }
        of.into_iter().map(|(name, (_, counted))| (name, counted)).collect()
    }
}

impl Targets {
    /// Labels of which no target has measured what an instrument counts as under way: they have none, not 0.
    fn without(&self) -> Vec<Without> {
        let without = |instrument: &'static Instrument| {
            let measured = |target: &&Target| target.measures(instrument.feature);
            let with: HashSet<&Labels> = self.values().filter(measured).map(|it| &it.labels).collect();
            let others = self.values().map(|it| &it.labels).filter(|labels| !with.contains(labels));
            (instrument, others.cloned().collect())
        };
        instruments::ALL.into_iter().filter(|it| !it.open.is_empty()).map(without).collect()
    }

    /// Why pods have no figures, of those that have a Go process.
    fn reasons(&self) -> HashMap<(String, String), Reason> {
        let mut of = HashMap::new();
        for target in self.values() {
            let Some(placement) = target.placement.as_deref() else { continue };
            let reason = match &target.stage {
                Stage::Preparing => "its process is being looked at".to_owned(),
                Stage::Failed(reason) | Stage::Unsupported(reason) => reason.clone(),
                Stage::Measured | Stage::Gone(_) => continue,
            };
            of.insert((placement.namespace.to_string(), placement.pod.to_string()), (false, reason));
        }
        of
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::TargetFigures;

    #[test]
    fn a_process_that_ran_before_it_was_found_makes_a_gap() {
        let begun = Instant::now();
        let at = |seconds, from_start| Counted { since: begun + Duration::from_secs(seconds), from_start };
        // A restart of a container that is counted from its start.
        assert_eq!(joined(at(0, true), at(60, true)), at(0, true));
        // An opt-out and an opt-in.
        assert_eq!(joined(at(0, true), at(60, false)), at(60, false));
        assert_eq!(joined(at(60, false), at(90, true)), at(60, false), "and a restart after it");
        assert_eq!(joined(at(60, false), at(90, false)), at(90, false));
    }

    #[test]
    fn what_was_not_measured_when_the_counts_were_read_is_not_told_as_nothing_counted() {
        let labels = |pod: &str| {
            Labels::of_placement(&Placement {
                namespace: "shop".into(),
                pod: pod.into(),
                uid: pod.into(),
                container: "app".into(),
                image: "app".into(),
                workload: None,
                labels: [].into(),
                features: None,
                budget: None,
                routes: [].into(),
            })
        };
        let figures = |pod: &str| TargetFigures {
            target: labels(pod),
            open: vec![("http_server_active_requests", 0)],
            probes: 0,
            info: Vec::new(),
            probe_figures: Vec::new(),
            blocked_functions: Vec::new(),
            run_queue: None,
        };
        // Since it was read b is measured, and a new look at the state would not tell.
        let snapshot = Snapshot {
            unsettled: [labels("b")].into(),
            targets: ["a", "b", "c"].map(figures).into(),
            ..Snapshot::default()
        };
        let told = told(snapshot, &HashSet::new(), &[(instruments::ALL[0], [labels("c")].into())]);
        let shown: Vec<_> = told.targets.iter().map(|it| (it.target == labels("a"), it.open.len())).collect();
        assert_eq!(shown, [(true, 1), (false, 0)]);
    }
}
