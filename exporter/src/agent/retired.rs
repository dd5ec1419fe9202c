//! What ended targets of a container counted. A container that restarts, or is measured again after a pause, has the same labels:
//! its counters go on where they were, as long as its pod is there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
};

use exporter_ebpf::{
    http::SeriesValue,
    loss::Reason,
    wait::{WaitValue, WatchState},
};

use super::{
    hpa::joined,
    profile::add_functions,
    routes::OVERFLOW,
    state::{State, Target},
    waits::add_kept,
};
use crate::{hpa::feed::Counted, kernel::Kernel, kubernetes::Pods, target::Labels};

/// Series kept of one container. A program that crashes again and again may have other routes each time; what is more is added
/// up under the overflow route, of which there are as many as methods and statuses.
const MOST: usize = 1000;

/// Label values of one series: route, method, status.
pub(super) type SeriesLabels = (Option<Arc<str>>, u8, u16);

/// Totals of one container.
#[derive(Default)]
pub(super) struct Retired {
    /// The pod that counted them.
    pub(super) uid: Arc<str>,
    pub(super) http: HashMap<SeriesLabels, SeriesValue>,
    /// By reason, as the kernel side numbers them.
    pub(super) lost: HashMap<u32, u64>,
    /// By kind and reason.
    pub(super) waits: HashMap<(u16, Option<&'static str>), WaitValue>,
    /// Hits of probes and the like.
    pub(super) kept: WatchState,
    /// Seconds that profiles have seen goroutines blocked, by function.
    pub(super) blocked_functions: BTreeMap<String, f64>,
    /// Since when they were counted without a gap.
    pub(super) counted: Option<Counted>,
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
        let (series, _) = super::series::counted(maps, self, |id| of_pods.contains_key(&id))?;
        let lost = maps.losses()?;
        let mut lost: Vec<_> =
            lost.iter().filter_map(|(key, count)| Some((of_pods.get(&key.target)?, key.reason, *count))).collect();
        let (waits, _) = super::waits::shown(kernel, self, |id| of_pods.contains_key(&id))?;
        let unreadable = || io::Error::other("what the kernel side keeps of a target cannot be read");
        let kept: Vec<_> = of_pods
            .iter()
            .map(|(id, whose)| Ok((id, whose, maps.watch_states.get(*id).ok_or_else(unreadable)?)))
            .collect::<io::Result<_>>()?;
        for (key, value) in series {
            let route = self.route_label(&key, maps, max_routes);
            let (labels, uid) = &of_pods[&key.target];
            let totals = &mut self.retired_of(labels, uid).http;
            let mut series = (route, key.method, key.status);
            if totals.len() >= MOST && !totals.contains_key(&series) {
                series.0 = Some(OVERFLOW.into());
            }
            totals.entry(series).or_insert(SeriesValue::ZERO).add(&value);
        }
        for ((id, kind, reason), value) in waits {
            let (labels, uid) = &of_pods[&id];
            let total = self.retired_of(labels, uid).waits.entry((kind, reason)).or_insert(WaitValue::ZERO);
            for (total, count) in total.buckets.iter_mut().zip(value.buckets) {
                *total += count;
            }
            total.sum_ns = total.sum_ns.saturating_add(value.sum_ns);
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
        let past_the_limit = super::series::past_the_limit(self);
        lost.extend(
            past_the_limit.filter_map(|(id, count)| Some((of_pods.get(&id)?, Reason::SeriesOverflow as u32, count))),
        );
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
