//! How many replicas one metric asks for: the controller's replica calculator (Kubernetes 1.34.4,
//! pkg/controller/podautoscaler/replica_calculator.go and metrics/utilization.go), with its arithmetic on thousandths, its
//! rounding and its order of questions. Pure.

use std::collections::BTreeMap;

use thiserror::Error;

/// Milliseconds since the start of the simulation.
pub(crate) type Time = i64;

/// A pod, as the controller sees it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Which one; pods' metrics go by it.
    pub(crate) name: u32,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// When it was started, if the kubelet has said.
    pub(crate) started: Option<Time>,
    /// The Ready condition and since when it is so, if there is one.
    pub(crate) ready: Option<(bool, Time)>,
    /// What it requests of the resource, thousandths.
    pub(crate) request: Option<i64>,
}

/// Where a pod stands, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet running.
    Pending,
    /// Running.
    Running,
    /// Failed.
    Failed,
}

/// A pod's value of a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodMetric {
    /// Thousandths.
    pub(crate) value: i64,
    /// When it was measured.
    pub(crate) at: Time,
    /// Over how long, milliseconds.
    pub(crate) window: i64,
}

/// Values by pod.
pub(crate) type PodMetrics = BTreeMap<u32, PodMetric>;

/// How far from 1 a ratio may be so that nothing is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerances {
    /// Below 1.
    pub(crate) down: f64,
    /// Above 1.
    pub(crate) up: f64,
}

/// The moment, and what the controller was started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Now.
    pub(crate) now: Time,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`, milliseconds.
    pub(crate) cpu_initialization: i64,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`, milliseconds.
    pub(crate) initial_readiness: i64,
}

/// Why there is no count.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum NoCount {
    #[error("no metrics returned from the metrics API")]
    NoMetrics,
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoneReady,
    #[error("missing request in a pod")]
    NoRequest,
    #[error("no metrics returned matched known pods")]
    NoneKnown,
}

/// Replicas asked for, and the usage that the HPA's status shows, thousandths (per cent for a utilisation).
pub(crate) type Count = Result<(i32, i64), NoCount>;

impl Tolerances {
    fn within(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= 1.0 + self.up
    }
}

/// `int32(float64)` as Go compiles it for amd64: through 64 bits, whose lower half is kept.
pub(super) fn go_int32(value: f64) -> i32 {
    let range = i64::MIN as f64..-(i64::MIN as f64);
    if !range.contains(&value) {
        return 0;
    }
    value as i64 as i32
}

/// An average per pod against a target: Pods metrics, and resources with an average value.
pub(crate) fn pods(
    current: i32,
    mut metrics: PodMetrics,
    target: i64,
    tolerances: Tolerances,
    pods: &[Pod],
    cpu: Option<Clock>,
) -> Count {
    let groups = Groups::of(pods, &mut metrics, cpu)?;
    let ratio = |metrics: &PodMetrics| {
        let usage = total(metrics) / metrics.len() as i64;
        (usage as f64 / target as f64, usage)
    };
    let (first, usage) = ratio(&metrics);
    let replicas = groups.replicas(current, metrics, first, tolerances, |_| target, |metrics| Ok(ratio(metrics).0))?;
    Ok((replicas, usage))
}

/// A utilisation of what the pods request.
pub(crate) fn utilization(
    current: i32,
    mut metrics: PodMetrics,
    percent: i32,
    tolerances: Tolerances,
    pods: &[Pod],
    cpu: Option<Clock>,
) -> Count {
    let groups = Groups::of(pods, &mut metrics, cpu)?;
    let mut requests = BTreeMap::new();
    for pod in pods {
        requests.insert(pod.name, pod.request.ok_or(NoCount::NoRequest)?);
    }
    let ratio = |metrics: &PodMetrics| {
        let known = metrics.iter().filter_map(|(name, metric)| Some((metric.value, *requests.get(name)?)));
        let (used, requested) = known.fold((0_i64, 0_i64), |(used, requested), (value, request)| {
            (used.wrapping_add(value), requested.wrapping_add(request))
        });
        if requested == 0 {
            return Err(NoCount::NoneKnown);
        }
        let utilization = (used.wrapping_mul(100) / requested) as i32;
        Ok((f64::from(utilization) / f64::from(percent), utilization))
    };
    let (first, used) = ratio(&metrics)?;
    let missing = |name: &u32| requests.get(name).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100;
    let replicas = groups.replicas(current, metrics, first, tolerances, missing, |metrics| Ok(ratio(metrics)?.0))?;
    Ok((replicas, i64::from(used)))
}

/// One figure against a target value: Object and External metrics.
pub(crate) fn value(current: i32, usage: i64, target: i64, tolerances: Tolerances, pods: &[Pod]) -> Count {
    let ratio = usage as f64 / target as f64;
    if current == 0 {
        return Ok((go_int32(ratio.ceil()), usage));
    }
    if tolerances.within(ratio) {
        return Ok((current, usage));
    }
    if pods.is_empty() {
        return Err(NoCount::NoPods);
    }
    let ready =
        pods.iter().filter(|pod| pod.phase == Phase::Running && pod.ready.is_some_and(|(ready, _)| ready)).count();
    let replicas = ratio * ready as f64;
    Ok((if replicas > f64::from(i32::MAX) { i32::MAX } else { go_int32(replicas.ceil()) }, usage))
}

/// One figure, divided by the replicas there are, against a target: Object and External metrics with an average value.
pub(crate) fn average(current: i32, usage: i64, target: i64, tolerances: Tolerances) -> (i32, i64) {
    let ratio = usage as f64 / (target as f64 * f64::from(current));
    let replicas = if tolerances.within(ratio) {
        current
    } else {
        let asked = (usage as f64 / target as f64).ceil();
        if asked > f64::from(i32::MAX) { i32::MAX } else { go_int32(asked) }
    };
    let shown = if usage == i64::MAX { usage } else { (usage as f64 / f64::from(current)).ceil() as i64 };
    (replicas, shown)
}

fn total(metrics: &PodMetrics) -> i64 {
    metrics.values().fold(0, |sum, metric| sum.wrapping_add(metric.value))
}

/// `groupPods`: which pods count.
struct Groups {
    ready: usize,
    unready: Vec<u32>,
    missing: Vec<u32>,
}

impl Groups {
    /// Sorts the pods, and takes those that do not count out of the metrics.
    fn of(pods: &[Pod], metrics: &mut PodMetrics, cpu: Option<Clock>) -> Result<Self, NoCount> {
        if metrics.is_empty() {
            return Err(NoCount::NoMetrics);
        }
        if pods.is_empty() {
            return Err(NoCount::NoPods);
        }
        let mut groups = Self { ready: 0, unready: Vec::new(), missing: Vec::new() };
        for pod in pods {
            match (pod.phase, metrics.get(&pod.name)) {
                _ if pod.deleting || pod.phase == Phase::Failed => drop(metrics.remove(&pod.name)),
                (Phase::Pending, _) => groups.unready.push(pod.name),
                (_, None) => groups.missing.push(pod.name),
                (_, Some(metric)) if cpu.is_some_and(|clock| unready(pod, *metric, clock)) => {
                    groups.unready.push(pod.name);
                }
                (_, Some(_)) => groups.ready += 1,
            }
        }
        for name in &groups.unready {
            metrics.remove(name);
        }
        if metrics.is_empty() { Err(NoCount::NoneReady) } else { Ok(groups) }
    }

    /// The rest of `calcPlainMetricReplicas` and `GetResourceReplicas`, which differ in what a missing pod is taken for.
    fn replicas(
        &self,
        current: i32,
        mut metrics: PodMetrics,
        ratio: f64,
        tolerances: Tolerances,
        missing: impl Fn(&u32) -> i64,
        again: impl Fn(&PodMetrics) -> Result<f64, NoCount>,
    ) -> Result<i32, NoCount> {
        let up_with_unready = !self.unready.is_empty() && ratio > 1.0;
        if !up_with_unready && self.missing.is_empty() {
            return Ok(if tolerances.within(ratio) { current } else { go_int32((ratio * self.ready as f64).ceil()) });
        }
        let filled = |value| PodMetric { value, at: 0, window: 0 };
        if ratio < 1.0 {
            metrics.extend(self.missing.iter().map(|name| (*name, filled(missing(name)))));
        } else if ratio > 1.0 {
            metrics.extend(self.missing.iter().map(|name| (*name, filled(0))));
        }
        if up_with_unready {
            metrics.extend(self.unready.iter().map(|name| (*name, filled(0))));
        }
        let new_ratio = again(&metrics)?;
        let turned = (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0);
        if tolerances.within(new_ratio) || turned {
            return Ok(current);
        }
        let replicas = go_int32((new_ratio * metrics.len() as f64).ceil());
        let against = (new_ratio < 1.0 && replicas > current) || (new_ratio > 1.0 && replicas < current);
        Ok(if against { current } else { replicas })
    }
}

/// Whether a pod's CPU sample is not to be trusted yet.
fn unready(pod: &Pod, metric: PodMetric, clock: Clock) -> bool {
    let (Some((ready, since)), Some(started)) = (pod.ready, pod.started) else { return true };
    if started + clock.cpu_initialization > clock.now {
        !ready || metric.at < since + metric.window
    } else {
        !ready && started + clock.initial_readiness > since
    }
}

#[cfg(test)]
mod tests;
