//! What ended targets of a container counted. A container that restarts, or is measured again after a pause, has the same labels:
//! its counters go on where they were, as long as its pod is there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, OfTarget as _},
    loss::Reason,
    wait::WaitState,
};
use instruments::{LabelSet, past_the_limit};

use super::{
    hpa::joined,
    profile::add_functions,
    state::{State, Target},
    waits::add_kept,
};
use crate::{hpa::feed::Counted, kernel::Kernel, kubernetes::Pods, target::Labels};

/// Series kept of one container and family. A program that crashes again and again may have other routes each time; what is more
/// is added up under the overflow route, of which there are as many as methods and statuses.
const MOST: usize = 1000;

/// Totals of one container.
#[derive(Default)]
pub(super) struct Retired {
    /// The pod that counted them.
    pub(super) uid: Arc<str>,
    pub(super) series: BTreeMap<Family, HashMap<LabelSet, Durations>>,
    /// By reason, as the kernel side numbers them.
    pub(super) lost: HashMap<u32, u64>,
    /// Hits of probes and the like.
    pub(super) kept: WaitState,
    /// Seconds that profiles have seen goroutines blocked, by function.
    pub(super) blocked_functions: BTreeMap<String, f64>,
    /// Since when they were counted without a gap.
    pub(super) counted: Option<Counted>,
}

impl Retired {
    fn add(&mut self, family: Family, labels: LabelSet, value: &Durations) {
        let totals = self.series.entry(family).or_default();
        let is_new = totals.len() >= MOST && !totals.contains_key(&labels);
        let labels = if is_new { past_the_limit(labels) } else { labels };
        totals.entry(labels).or_insert(Durations::ZERO).add(value);
    }
}

impl State {
    /// Takes over what targets that are about to be forgotten have counted, where their pod is still there or another
    /// target shows the same series.
    ///
    /// # Errors
    /// The kernel's maps cannot be read: then nothing is taken over, so that it can be tried again.
    pub(super) fn retire(
        &mut self,
        dead: &HashSet<u32>,
        kernel: &Kernel,
        max_routes: u32,
        pods: &Pods,
    ) -> io::Result<()> {
        let maps = kernel.maps();
        let of_pods: HashMap<u32, (Labels, Arc<str>)> = dead
            .iter()
            .filter_map(|id| {
                let target = self.targets.get(id)?;
                let uid = &target.placement.as_ref()?.uid;
                let outlived = || self.targets.values().any(|it| !dead.contains(&it.id) && it.labels == target.labels);
                (pods.knows(uid) || outlived()).then(|| (*id, (target.labels.clone(), uid.clone())))
            })
            .collect();
        if of_pods.is_empty() {
            return Ok(());
        }
        let counted = super::series::counted(maps, self, |id| of_pods.contains_key(&id))?;
        let lost = maps.losses()?;
        let mut lost: Vec<_> =
            lost.iter().filter_map(|(key, count)| Some((of_pods.get(&key.target)?, key.reason, *count))).collect();
        let unreadable = || io::Error::other("what the kernel side keeps of a target cannot be read");
        let kept: Vec<_> = of_pods
            .iter()
            .map(|(id, whose)| Ok((id, whose, maps.wait_states.get(*id).ok_or_else(unreadable)?)))
            .collect::<io::Result<_>>()?;
        for (key, value) in counted.series {
            let Some((family, series)) = super::series::labelled(self, &key, maps, max_routes) else { continue };
            let (labels, uid) = &of_pods[&key.target()];
            self.retired_of(labels, uid).add(family, series, &value);
        }
        for (id, (labels, uid), kept) in kept {
            let target = self.targets.get(id);
            let functions = target.map(|target| target.blocked_functions.clone()).unwrap_or_default();
            let found = target.map(Target::found);
            let retired = self.retired_of(labels, uid);
            retired.counted = match (retired.counted, found) {
                (Some(before), Some(found)) => Some(joined(before, found)),
                (before, found) => before.or(found),
            };
            add_kept(&mut retired.kept, &kept);
            let functions = functions.iter().map(|(name, seconds)| (name.as_str(), *seconds));
            add_functions(&mut retired.blocked_functions, functions);
        }
        let overflow = super::series::past_the_limit(self);
        lost.extend(overflow.filter_map(|(id, count)| Some((of_pods.get(&id)?, Reason::SeriesOverflow as u32, count))));
        for ((labels, uid), reason, count) in lost {
            *self.retired_of(labels, uid).lost.entry(reason).or_default() += count;
        }
        Ok(())
    }

    /// Drops the totals of pods that are gone. Not while a target of theirs still lingers: its series would go back by what the
    /// targets before it had counted, and a rate over that would count the rest twice.
    pub(super) fn forget_retired(&mut self, pods: &Pods) {
        let targets = &self.targets;
        let lingers = |labels: &Labels| targets.values().any(|target| target.labels == *labels);
        self.retired.retain(|labels, retired| pods.knows(&retired.uid) || lingers(labels));
    }

    fn retired_of(&mut self, labels: &Labels, uid: &Arc<str>) -> &mut Retired {
        let retired = self.retired.entry(labels.clone()).or_default();
        // The next pod of a StatefulSet has the name of the one before, and counts anew.
        if retired.uid != *uid {
            *retired = Retired { uid: uid.clone(), ..Retired::default() };
        }
        retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instruments::Value;

    fn labels(route: &str, status: u16) -> LabelSet {
        vec![("http_response_status_code", Value::Number(status)), ("http_route", Value::Text(route.into()))]
    }

    #[test]
    fn a_container_that_comes_again_with_other_routes_keeps_so_many() {
        let mut one = Durations::ZERO;
        one.record(Family::HttpServer.scale(), 1);
        let mut retired = Retired::default();
        for i in 0..3 * MOST {
            retired.add(Family::HttpServer, labels(&format!("/{i}"), 200 + (i % 2) as u16), &one);
            retired.add(Family::Stw, vec![("reason", Value::Word("unknown"))], &one);
        }
        let of_requests = &retired.series[&Family::HttpServer];
        assert_eq!(of_requests.len(), MOST + 2);
        assert_eq!(of_requests.values().map(Durations::count).sum::<u64>(), 3 * MOST as u64);
        assert_eq!(of_requests[&labels(instruments::OVERFLOW, 200)].count(), MOST as u64);
        assert_eq!(retired.series[&Family::Stw].values().map(Durations::count).sum::<u64>(), 3 * MOST as u64);
    }
}
