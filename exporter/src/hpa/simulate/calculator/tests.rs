//! The calculator's own cases (Kubernetes 1.34.4, pkg/controller/podautoscaler/replica_calculator_test.go), in their order.

use super::*;
use Kind::{Average, Cpu, Pods, Value};

const NOW: Time = 100_000_000;
const MINUTE: i64 = 60_000;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pods,
    Value,
    Average,
    Cpu,
}

/// Name; kind; current replicas; tolerances downwards and upwards; target; values by pod, `@gone` of a pod that is no more;
/// requests by pod; pods: R(unning), P(ending), F(ailed) or S(ucceeded), d(eleting), u(nready), h: just started, c: 3 minutes
/// ago; replicas and usage.
type Case = (&'static str, Kind, i32, (f64, f64), i64, &'static str, &'static str, &'static str, Option<(i32, i64)>);

#[rustfmt::skip]
#[expect(clippy::unreadable_literal, reason = "as they stand there")]
const CASES: &[Case] = &[
    ("TestReplicaCalcDisjointResourcesMetrics", Cpu, 1, (0.1, 0.1), 100, "@gone 200", "2000", "R", None),
    ("TestReplicaCalcScaleUp", Cpu, 3, (0.1, 0.1), 30, "600 1000 1400", "2000 2000 2000", "R R R", Some((5, 50))),
    ("TestReplicaCalcContainerScaleUp", Cpu, 3, (0.1, 0.1), 30, "300 500 700", "1000 1000 1000", "R R R", Some((5, 50))),
    ("TestReplicaCalcScaleUpUnreadyLessScale", Cpu, 3, (0.1, 0.1), 30, "600 1000 1400", "2000 2000 2000", "Ru R R", Some((4, 60))),
    ("TestReplicaCalcScaleUpContainerHotCpuLessScale", Cpu, 3, (0.1, 0.1), 30, "300 500 700", "1000 1000 1000", "Rh Rc Rc", Some((4, 60))),
    ("TestReplicaCalcScaleUpHotCpuLessScale", Cpu, 3, (0.1, 0.1), 30, "600 1000 1400", "2000 2000 2000", "Rh Rc Rc", Some((4, 60))),
    ("TestReplicaCalcScaleUpUnreadyNoScale", Cpu, 3, (0.1, 0.1), 30, "800 1000 1400", "2000 2000 2000", "R Ru Ru", Some((3, 40))),
    ("TestExternalPerPodMetricReplicaOverflow", Average, 1, (0.1, 0.1), 1, "9223372036854775807", "", "R", Some((2147483647, 9223372036854775807))),
    ("TestExternalPerPodMetricUsageOverflow", Average, 1, (0.1, 0.1), 9223372036854775807, "9223372036854775807", "", "R", Some((1, 9223372036854775807))),
    ("TestReplicaCalcScaleHotCpuNoScale", Cpu, 3, (0.1, 0.1), 30, "800 1000 1400", "2000 2000 2000", "Rc Ruh Ruh", Some((3, 40))),
    ("TestReplicaCalcScaleUpIgnoresFailedPods", Cpu, 2, (0.1, 0.1), 30, "1000 1400", "2000 2000 2000 2000", "R R Fu Fu", Some((4, 60))),
    ("TestReplicaCalcScaleUpContainerIgnoresFailedPods", Cpu, 2, (0.1, 0.1), 30, "500 700", "1000 1000 1000 1000", "R R Fu Fu", Some((4, 60))),
    ("TestReplicaCalcScaleUpIgnoresDeletionPods", Cpu, 2, (0.1, 0.1), 30, "1000 1400", "2000 2000 2000 2000", "R R Rdu Rdu", Some((4, 60))),
    ("TestReplicaCalcScaleUpContainerIgnoresDeletionPods", Cpu, 2, (0.1, 0.1), 30, "500 700", "1000 1000 1000 1000", "R R Rdu Rdu", Some((4, 60))),
    ("TestReplicaCalcScaleUpCM", Pods, 3, (0.1, 0.1), 15000, "20000 10000 30000", "", "R R R", Some((4, 20000))),
    ("TestReplicaCalcScaleUpCMUnreadyHotCpuNoLessScale", Pods, 3, (0.1, 0.1), 15000, "50000 10000 30000", "", "Rc Rc Ruh", Some((6, 30000))),
    ("TestReplicaCalcScaleUpCMUnreadyHotCpuScaleWouldScaleDown", Pods, 3, (0.1, 0.1), 15000, "50000 15000 30000", "", "Ruh Rc Ruh", Some((7, 31666))),
    ("TestReplicaCalcScaleUpCMObject", Value, 3, (0.1, 0.1), 15000, "20000", "", "R R R", Some((4, 20000))),
    ("TestReplicaCalcScaleUpCMPerPodObject", Average, 3, (0.1, 0.1), 5000, "20000", "", "R R R", Some((4, 6667))),
    ("TestReplicaCalcScaleUpCMObjectIgnoresUnreadyPods", Value, 3, (0.1, 0.1), 10000, "50000", "", "Ru R Ru", Some((5, 50000))),
    ("TestReplicaCalcScaleUpCMExternal", Pods, 1, (0.1, 0.1), 4400, "8600", "", "R", Some((2, 8600))),
    ("TestReplicaCalcScaleUpCMExternalIgnoresUnreadyPods", Value, 3, (0.1, 0.1), 4400, "8600", "", "Ru R Ru", Some((2, 8600))),
    ("TestReplicaCalcScaleUpCMExternalNoLabels", Pods, 1, (0.1, 0.1), 4400, "8600", "", "R", Some((2, 8600))),
    ("TestReplicaCalcScaleUpPerPodCMExternal", Average, 3, (0.1, 0.1), 2150, "8600", "", "R R R", Some((4, 2867))),
    ("TestReplicaCalcScaleDown", Cpu, 5, (0.1, 0.1), 50, "200 600 1000 500 500", "2000 2000 2000 2000 2000", "R R R R R", Some((3, 28))),
    ("TestReplicaCalcContainerScaleDown", Cpu, 5, (0.1, 0.1), 50, "100 300 500 250 250", "1000 1000 1000 1000 1000", "R R R R R", Some((3, 28))),
    ("TestReplicaCalcScaleDownCM", Pods, 5, (0.1, 0.1), 20000, "12000 12000 12000 12000 12000", "", "R R R R R", Some((3, 12000))),
    ("TestReplicaCalcScaleDownPerPodCMObject", Average, 5, (0.1, 0.1), 2000, "6000", "", "R R R R R", Some((3, 1200))),
    ("TestReplicaCalcScaleDownCMObject", Value, 5, (0.1, 0.1), 20000, "12000", "", "R R R R R", Some((3, 12000))),
    ("TestReplicaCalcScaleDownCMExternal", Value, 5, (0.1, 0.1), 14334, "8600", "", "R R R R R", Some((3, 8600))),
    ("TestReplicaCalcScaleDownPerPodCMExternal", Average, 5, (0.1, 0.1), 2867, "8600", "", "R R R R R", Some((3, 1720))),
    ("TestReplicaCalcScaleDownExcludeUnreadyPods", Cpu, 5, (0.1, 0.1), 50, "200 600 1000 500 500", "2000 2000 2000 2000 2000", "R R R Ru Ru", Some((2, 30))),
    ("TestReplicaCalcScaleDownContainerExcludeUnreadyPods", Cpu, 5, (0.1, 0.1), 50, "100 300 500 250 250", "1000 1000 1000 1000 1000", "R R R Ru Ru", Some((2, 30))),
    ("TestReplicaCalcScaleDownExcludeUnscheduledPods", Cpu, 5, (0.1, 0.1), 50, "200", "2000 2000 2000 2000 2000", "R Pu Pu Pu Pu", Some((1, 10))),
    ("TestReplicaCalcScaleDownContainerExcludeUnscheduledPods", Cpu, 5, (0.1, 0.1), 50, "100 300 500 250 250", "1000 1000 1000 1000 1000", "R Pu Pu Pu Pu", Some((1, 10))),
    ("TestReplicaCalcScaleDownIgnoreHotCpuPods", Cpu, 5, (0.1, 0.1), 50, "200 600 1000 500 500", "2000 2000 2000 2000 2000", "Rc Rc Rc Rh Rh", Some((2, 30))),
    ("TestReplicaCalcScaleDownContainerIgnoreHotCpuPods", Cpu, 5, (0.1, 0.1), 50, "100 300 500 1000 1000", "1000 1000 1000 1000 1000", "Rc Rc Rc Rh Rh", Some((2, 30))),
    ("TestReplicaCalcScaleDownIgnoresFailedPods", Cpu, 5, (0.1, 0.1), 50, "200 600 1000 500 500", "2000 2000 2000 2000 2000 2000 2000", "R R R R R Fu Fu", Some((3, 28))),
    ("TestReplicaCalcScaleDownContainerIgnoresFailedPods", Cpu, 5, (0.1, 0.1), 50, "100 300 500 250 250", "1000 1000 1000 1000 1000 1000 1000", "R R R R R Fu Fu", Some((3, 28))),
    ("TestReplicaCalcScaleDownIgnoresDeletionPods", Cpu, 5, (0.1, 0.1), 50, "200 600 1000 500 500", "2000 2000 2000 2000 2000 2000 2000", "R R R R R Rdu Rdu", Some((3, 28))),
    ("TestReplicaCalcScaleDownIgnoresDeletionPods_StillRunning", Cpu, 5, (0.1, 0.1), 50, "100 300 500 250 250", "1000 1000 1000 1000 1000 1000 1000", "R R R R R Rdu Rdu", Some((3, 28))),
    ("TestReplicaCalcTolerance", Cpu, 3, (0.1, 0.1), 100, "2020 2060 2040", "1800 2000 2200", "R R R", Some((3, 102))),
    ("TestReplicaCalcToleranceCM", Pods, 3, (0.1, 0.1), 20000, "20000 21000 21000", "", "R R R", Some((3, 20666))),
    ("TestReplicaCalcToleranceCMObject", Value, 3, (0.1, 0.1), 20000, "20666", "", "R R R", Some((3, 20666))),
    ("TestReplicaCalcTolerancePerPodCMObject", Average, 4, (0.1, 0.1), 5000, "20166", "", "R R R R", Some((4, 5042))),
    ("TestReplicaCalcToleranceCMExternal", Value, 3, (0.1, 0.1), 8888, "8600", "", "R R R", Some((3, 8600))),
    ("TestReplicaCalcTolerancePerPodCMExternal", Average, 3, (0.1, 0.1), 2900, "8600", "", "R R R", Some((3, 2867))),
    ("TestReplicaCalcConfigurableToleranceCM", Pods, 3, (0.1, 0.01), 20000, "20000 21000 21000", "", "R R R", Some((4, 20666))),
    ("TestReplicaCalcConfigurableToleranceCMObject", Value, 3, (0.1, 0.01), 20000, "20666", "", "R R R", Some((4, 20666))),
    ("TestReplicaCalcConfigurableTolerancePerPodCMObject", Average, 4, (0.1, 0.01), 5000, "20208", "", "R R R R", Some((5, 5052))),
    ("TestReplicaCalcConfigurableToleranceCMExternal", Value, 3, (0.1, 0.01), 8800, "8900", "", "R R R", Some((4, 8900))),
    ("TestReplicaCalcConfigurableTolerancePerPodCMExternal", Average, 3, (0.1, 0.01), 2800, "8600", "", "R R R", Some((4, 2867))),
    ("TestReplicaCalcSuperfluousMetrics", Cpu, 4, (0.1, 0.1), 100, "8000 19000 6000 14000 6400 4000", "2000 2000 2000 2000", "R R R R", Some((24, 587))),
    ("TestReplicaCalcMissingMetrics", Cpu, 4, (0.1, 0.1), 100, "800 190", "2000 2000 2000 2000", "R R R R", Some((3, 24))),
    ("TestReplicaCalcEmptyMetrics", Cpu, 4, (0.1, 0.1), 100, "", "2000 2000 2000", "R R R R", None),
    ("TestReplicaCalcEmptyCPURequest", Cpu, 1, (0.1, 0.1), 100, "400", "", "R", None),
    ("TestPlainMetricReplicaCalcMissingMetricsNoChangeEq", Pods, 5, (0.1, 0.1), 20000, "20000 19000 21000", "", "R R R R R", Some((5, 20000))),
    ("TestReplicaCalcMissingMetricsNoChangeEq", Cpu, 2, (0.1, 0.1), 100, "2000", "2000 2000", "R R", Some((2, 100))),
    ("TestReplicaCalcMissingMetricsNoChangeGt", Cpu, 2, (0.1, 0.1), 100, "3800", "2000 2000", "R R", Some((2, 190))),
    ("TestReplicaCalcMissingMetricsNoChangeLt", Cpu, 2, (0.1, 0.1), 100, "1200", "2000 2000", "R R", Some((2, 60))),
    ("TestReplicaCalcMissingMetricsUnreadyChange", Cpu, 3, (0.1, 0.1), 50, "200 900", "2000 2000 2000", "Ru R R", Some((3, 45))),
    ("TestReplicaCalcMissingMetricsHotCpuNoChange", Cpu, 3, (0.1, 0.1), 50, "200 900", "2000 2000 2000", "Rh Rc Rc", Some((3, 45))),
    ("TestReplicaCalcMissingMetricsUnreadyScaleUp", Cpu, 3, (0.1, 0.1), 50, "200 4000", "2000 2000 2000", "Ru R R", Some((4, 200))),
    ("TestReplicaCalcMissingMetricsHotCpuScaleUp", Cpu, 3, (0.1, 0.1), 50, "200 4000", "2000 2000 2000", "Ruh Rc Rc", Some((4, 200))),
    ("TestReplicaCalcMissingMetricsUnreadyScaleDown", Cpu, 4, (0.1, 0.1), 50, "200 200 200", "2000 2000 2000 2000", "Ru R R R", Some((3, 10))),
    ("TestReplicaCalcMissingMetricsScaleDownTargetOver100", Cpu, 4, (0.1, 0.1), 300, "400 200 200", "2000 2000 4000 4000", "Ru R R R", Some((2, 6))),
    ("TestReplicaCalcDuringRollingUpdateWithMaxSurge", Cpu, 2, (0.1, 0.1), 50, "200 200", "2000 2000 2000", "R R R", Some((2, 10))),
    ("TestReplicaCalcDuringRollingUpdateWithMaxSurgeCM", Pods, 2, (0.1, 0.1), 17000, "10000 10000", "", "R R R", Some((2, 10000))),
];

fn pod(name: usize, flags: &str, requests: &[i64]) -> Pod {
    let started = match flags {
        flags if flags.contains('h') => NOW,
        flags if flags.contains('c') => NOW - 3 * MINUTE,
        _ => 0,
    };
    Pod {
        name: name as u32,
        phase: match flags.chars().next() {
            Some('P') => Phase::Pending,
            Some('F') => Phase::Failed,
            _ => Phase::Running,
        },
        deleting: flags.contains('d'),
        started: Some(started),
        ready: Some((!flags.contains('u'), 0)),
        request: requests.get(name).copied(),
    }
}

#[test]
fn the_controllers_own_cases() {
    for (name, kind, current, (down, up), target, values, requests, pods, expected) in CASES {
        let numbers = |text: &str| text.split_whitespace().map(|it| it.parse().unwrap()).collect::<Vec<i64>>();
        let requests = numbers(requests);
        let pods: Vec<Pod> =
            pods.split_whitespace().enumerate().map(|(name, flags)| self::pod(name, flags, &requests)).collect();
        let (gone, values) = values.strip_prefix("@gone ").map_or((0, *values), |rest| (1000, rest));
        let values = numbers(values);
        let metric = |value: &i64| PodMetric { value: *value, at: 0, window: MINUTE };
        let metrics: PodMetrics =
            values.iter().enumerate().map(|(name, value)| (name as u32 + gone, metric(value))).collect();
        let tolerances = Tolerances { down: *down, up: *up };
        let clock = Clock { now: NOW, cpu_initialization: 2 * MINUTE, initial_readiness: 10_000 };
        let count = match kind {
            Pods => super::pods(*current, metrics, *target, tolerances, &pods, None),
            Cpu => utilization(*current, metrics, *target as i32, tolerances, &pods, Some(clock)),
            Value => value(*current, values[0], *target, tolerances, &pods),
            Average => Ok(average(*current, values[0], *target, tolerances)),
        };
        assert_eq!(count.ok(), *expected, "{name}");
    }
}

#[test]
fn a_conversion_past_the_range_is_gos() {
    assert_eq!([3e9, -3e9, 1e19, f64::NAN].map(go_int32), [-1_294_967_296, 1_294_967_296, 0, 0]);
}
