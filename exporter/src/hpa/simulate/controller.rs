//! From what the metrics ask for to a replica count: the controller's reconciliation (Kubernetes 1.34.4,
//! pkg/controller/podautoscaler/horizontal.go): several metrics, failing ones, stabilisation, policies, limits. Pure.

use super::calculator::{self, Clock, Count, NoCount, Pod, PodMetrics, Time, Tolerances, go_int32};
use crate::hpa::spec::{Goal, Hpa, Policy, PolicyType, Rules, SelectPolicy, SourceType};

/// The controller's flags. The defaults are Kubernetes'.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// `--horizontal-pod-autoscaler-tolerance`.
    pub(crate) tolerance: f64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`, milliseconds.
    pub(crate) downscale_stabilization: i64,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`, milliseconds.
    pub(crate) cpu_initialization: i64,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`, milliseconds.
    pub(crate) initial_readiness: i64,
    /// Feature gate HPAConfigurableTolerance: on since Kubernetes 1.35.
    pub(crate) own_tolerances: bool,
    /// Whether what somebody else has scaled to 0 is left there (condition `ScaledToZero`): since Kubernetes 1.37.
    pub(crate) to_zero_condition: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            downscale_stabilization: 300_000,
            cpu_initialization: 300_000,
            initial_readiness: 30_000,
            own_tolerances: true,
            to_zero_condition: true,
        }
    }
}

/// What one metric gives at a sync.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// By pod; of Pods, Resource and ContainerResource metrics. Empty: the metrics API knows none.
    Pods(PodMetrics),
    /// One figure, thousandths; of Object and External metrics.
    Figure(i64),
    /// The metrics API has no answer.
    Failed,
}

/// What the controller keeps between syncs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controller {
    flags: Flags,
    recommendations: Vec<(i32, Time)>,
    ups: Vec<Event>,
    downs: Vec<Event>,
    /// The condition `ScaledToZero`.
    to_zero: bool,
    /// What stabilisation made of the last proposal.
    stabilized: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    change: i32,
    at: Time,
    outdated: bool,
}

/// What a sync came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The replicas that it sets.
    pub(crate) desired: i32,
    /// What the metrics alone asked for, if they did.
    pub(crate) proposed: Option<i32>,
    /// What held it, in the words of the HPA's conditions, or why there is none.
    pub(crate) reason: &'static str,
    /// What is wrong with metrics, of which some or all failed.
    pub(crate) failed: Option<NoCount>,
}

impl Controller {
    /// With nothing known yet.
    pub(crate) fn new(flags: Flags) -> Self {
        Self { flags, ..Self::default() }
    }

    /// The same, at a workload that it has scaled to 0 before.
    pub(crate) fn having_scaled_to_zero(self) -> Self {
        Self { to_zero: true, ..self }
    }

    /// What stabilisation made of the proposal of the last sync, before policies and limits; none if there was none.
    pub(crate) fn stabilized(&self) -> Option<i32> {
        self.stabilized
    }

    /// One sync: `replicas` are the scale's, `readings` those of the HPA's metrics in their order.
    pub(crate) fn sync(&mut self, hpa: &Hpa, now: Time, replicas: i32, pods: &[Pod], readings: &[Reading]) -> Decision {
        let spec = &hpa.spec;
        self.stabilized = None;
        if self.recommendations.is_empty() {
            self.recommendations.push((replicas, now));
        }
        let fixed = |desired, reason| Decision { desired, proposed: None, reason, failed: None };
        let paused = self.flags.to_zero_condition && !self.to_zero;
        let decision = if replicas == 0 && (spec.min_replicas != 0 || paused) {
            return fixed(0, "ScalingDisabled");
        } else if replicas > spec.max_replicas {
            fixed(spec.max_replicas, "TooManyReplicas")
        } else if replicas < spec.min_replicas {
            fixed(spec.min_replicas, "TooFewReplicas")
        } else {
            match self.propose(hpa, now, replicas, pods, readings) {
                (None, failed) => return Decision { failed, ..fixed(replicas, "FailedGetMetrics") },
                (Some(proposed), failed) => {
                    // The controller starts from 0, so that less asks for nothing.
                    let (desired, reason) = self.normalize(hpa, now, replicas, proposed.max(0));
                    Decision { desired, proposed: Some(proposed), reason, failed }
                }
            }
        };
        if decision.desired != replicas {
            self.to_zero = decision.desired == 0;
        }
        if decision.desired != replicas && spec.behavior.is_some() {
            self.store_event(hpa, now, replicas, decision.desired);
        }
        decision
    }

    /// `computeReplicasForMetrics`: the greatest of what the metrics ask for; none if all fail, or if some fail and the others
    /// ask for less than there is.
    fn propose(
        &self,
        hpa: &Hpa,
        now: Time,
        replicas: i32,
        pods: &[Pod],
        readings: &[Reading],
    ) -> (Option<i32>, Option<NoCount>) {
        let metrics = hpa.metrics();
        let mut most = 0;
        let mut failed = None;
        let mut failures = 0;
        for (metric, reading) in metrics.iter().zip(readings) {
            let cpu = (matches!(metric.source, SourceType::Resource | SourceType::ContainerResource)
                && metric.name == "cpu")
                .then_some(Clock {
                    now,
                    cpu_initialization: self.flags.cpu_initialization,
                    initial_readiness: self.flags.initial_readiness,
                });
            match self.count(hpa, replicas, pods, reading, metric.goal, cpu) {
                Ok((count, _)) if most == 0 || count > most => most = count,
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    failed.get_or_insert(error);
                }
            }
        }
        let none = failures >= metrics.len() || (failures > 0 && most < replicas);
        ((!none).then_some(most), failed)
    }

    fn count(
        &self,
        hpa: &Hpa,
        replicas: i32,
        pods: &[Pod],
        reading: &Reading,
        goal: Goal,
        cpu: Option<Clock>,
    ) -> Count {
        let tolerances = self.tolerances(hpa);
        match (reading, goal) {
            (Reading::Pods(metrics), Goal::AverageValue(target)) => {
                calculator::pods(replicas, metrics.clone(), target.0, tolerances, pods, cpu)
            }
            (Reading::Pods(metrics), Goal::Utilization(percent)) => {
                calculator::utilization(replicas, metrics.clone(), percent, tolerances, pods, cpu)
            }
            (Reading::Figure(usage), Goal::Value(target)) => {
                calculator::value(replicas, *usage, target.0, tolerances, pods)
            }
            (Reading::Figure(usage), Goal::AverageValue(target)) => {
                Ok(calculator::average(replicas, *usage, target.0, tolerances))
            }
            _ => Err(NoCount::NoMetrics),
        }
    }

    fn tolerances(&self, hpa: &Hpa) -> Tolerances {
        let own = |rules: fn(&crate::hpa::spec::Behavior) -> &Rules| {
            let behavior = hpa.spec.behavior.as_ref().filter(|_| self.flags.own_tolerances)?;
            Some(rules(behavior).tolerance?.0)
        };
        Tolerances {
            down: own(|it| &it.scale_down).unwrap_or(self.flags.tolerance),
            up: own(|it| &it.scale_up).unwrap_or(self.flags.tolerance),
        }
    }

    fn normalize(&mut self, hpa: &Hpa, now: Time, current: i32, desired: i32) -> (i32, &'static str) {
        let (least, most) = (hpa.spec.min_replicas, hpa.spec.max_replicas);
        let (stabilized, limited) = match &hpa.spec.behavior {
            None => {
                let stabilized = self.stabilize(now, desired);
                (stabilized, convert(current, stabilized, least, most))
            }
            Some(behavior) => {
                let (up, down) = (&behavior.scale_up, &behavior.scale_down);
                let stabilized = self.stabilize_with(up, down, now, current, desired);
                (stabilized, self.convert_with((up, down), now, current, stabilized, (least, most)))
            }
        };
        self.stabilized = Some(stabilized);
        let (replicas, reason) = limited;
        let held = replicas == stabilized && stabilized != desired;
        match (held, desired >= current && hpa.spec.behavior.is_some()) {
            (true, true) => (replicas, "ScaleUpStabilized"),
            (true, false) => (replicas, "ScaleDownStabilized"),
            (false, _) => (replicas, reason),
        }
    }

    /// `stabilizeRecommendation`.
    fn stabilize(&mut self, now: Time, desired: i32) -> i32 {
        let cutoff = now - self.flags.downscale_stabilization;
        let mut most = desired;
        let mut old = None;
        for (index, (recommendation, at)) in self.recommendations.iter().enumerate() {
            if *at < cutoff {
                old = Some(index);
            } else {
                most = most.max(*recommendation);
            }
        }
        self.remember(old, desired, now);
        most
    }

    /// `stabilizeRecommendationWithBehaviors`.
    fn stabilize_with(&mut self, up: &Rules, down: &Rules, now: Time, current: i32, desired: i32) -> i32 {
        let window =
            |rules: &Rules, default: i64| rules.stabilization_window_seconds.map_or(default, |it| i64::from(it) * 1000);
        let up_cutoff = now - window(up, 0);
        // The controller takes whole seconds of its flag (`maybeInitScaleDownStabilizationWindow`).
        let down_cutoff = now - window(down, self.flags.downscale_stabilization / 1000 * 1000);
        let (mut least, mut most) = (desired, desired);
        let mut old = None;
        for (index, (recommendation, at)) in self.recommendations.iter().enumerate() {
            if *at > up_cutoff {
                least = least.min(*recommendation);
            }
            if *at > down_cutoff {
                most = most.max(*recommendation);
            }
            if *at < up_cutoff && *at < down_cutoff {
                old = Some(index);
            }
        }
        self.remember(old, desired, now);
        current.max(least).min(most)
    }

    fn remember(&mut self, slot: Option<usize>, desired: i32, now: Time) {
        match slot {
            Some(index) => self.recommendations[index] = (desired, now),
            None => self.recommendations.push((desired, now)),
        }
    }

    /// `convertDesiredReplicasWithBehaviorRate`.
    fn convert_with(
        &self,
        (up, down): (&Rules, &Rules),
        now: Time,
        current: i32,
        desired: i32,
        (least, most): (i32, i32),
    ) -> (i32, &'static str) {
        if desired > current {
            let limit = self.up_limit(up, now, current).max(current);
            let (allowed, reason) = if most > limit { (limit, "ScaleUpLimit") } else { (most, "TooManyReplicas") };
            if desired > allowed {
                return (allowed, reason);
            }
        } else if desired < current {
            let limit = self.down_limit(down, now, current).min(current);
            let (allowed, reason) = if least < limit { (limit, "ScaleDownLimit") } else { (least, "TooFewReplicas") };
            if desired < allowed {
                return (allowed, reason);
            }
        }
        (desired, "DesiredWithinRange")
    }

    fn up_limit(&self, rules: &Rules, now: Time, current: i32) -> i32 {
        let proposed = |policy: &Policy| {
            let before = self.before(policy, now, current);
            match policy.r#type {
                PolicyType::Pods => before.wrapping_add(policy.value),
                // The product is taken as it stands there: 1 + 10/100 is a little more than 1.1.
                PolicyType::Percent => go_int32((f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil()),
            }
        };
        let proposals = rules.policies.iter().flatten().map(proposed);
        match rules.select_policy {
            Some(SelectPolicy::Disabled) => current,
            Some(SelectPolicy::Min) => proposals.min().unwrap_or(i32::MAX),
            _ => proposals.max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, rules: &Rules, now: Time, current: i32) -> i32 {
        let proposed = |policy: &Policy| {
            let before = self.before(policy, now, current);
            match policy.r#type {
                PolicyType::Pods => before.wrapping_sub(policy.value),
                PolicyType::Percent => go_int32(f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)),
            }
        };
        let proposals = rules.policies.iter().flatten().map(proposed);
        match rules.select_policy {
            Some(SelectPolicy::Disabled) => current,
            Some(SelectPolicy::Min) => proposals.max().unwrap_or(i32::MIN),
            _ => proposals.min().unwrap_or(i32::MAX),
        }
    }

    /// The replicas there were at the start of a policy's period.
    fn before(&self, policy: &Policy, now: Time, current: i32) -> i32 {
        let cutoff = now - i64::from(policy.period_seconds) * 1000;
        let changed = |events: &[Event]| events.iter().filter(|it| it.at > cutoff).map(|it| it.change).sum::<i32>();
        current - changed(&self.ups) + changed(&self.downs)
    }

    /// `storeScaleEvent`.
    fn store_event(&mut self, hpa: &Hpa, now: Time, before: i32, after: i32) {
        let Some(behavior) = &hpa.spec.behavior else { return };
        let (rules, events) =
            if after > before { (&behavior.scale_up, &mut self.ups) } else { (&behavior.scale_down, &mut self.downs) };
        let longest = rules.policies.iter().flatten().map(|it| it.period_seconds).max().unwrap_or(0);
        let cutoff = now - i64::from(longest) * 1000;
        let mut slot = None;
        for (index, event) in events.iter_mut().enumerate() {
            event.outdated |= event.at < cutoff;
            if event.outdated {
                slot = Some(index);
            }
        }
        let event = Event { change: (after - before).abs(), at: now, outdated: false };
        match slot {
            Some(index) => events[index] = event,
            None => events.push(event),
        }
    }
}

/// `convertDesiredReplicasWithRules`.
fn convert(current: i32, desired: i32, least: i32, most: i32) -> (i32, &'static str) {
    let limit = go_int32((2.0 * f64::from(current)).max(4.0));
    let (allowed, reason) = if most > limit { (limit, "ScaleUpLimit") } else { (most, "TooManyReplicas") };
    if desired < least {
        (least, "TooFewReplicas")
    } else if desired > allowed {
        (allowed, reason)
    } else {
        (desired, "DesiredWithinRange")
    }
}

#[cfg(test)]
mod tests;
