//! The controller's own cases (Kubernetes 1.34.4, pkg/controller/podautoscaler/horizontal_test.go), in their order.

use super::*;
use crate::hpa::quantity::Fraction;

const NOW: Time = 100_000_000;
const MINUTE: i64 = 60_000;

type Events = &'static [i32];
const NONE: Events = &[];
/// Pods, their period, per cent, their period: `generateScalingRules`.
type Policies = Option<(i32, i32, i32, i32)>;
/// Name; events upwards and downwards over 120 s; least and most; rules upwards and downwards; current and desired; what is to
/// come out.
type Case = (&'static str, Events, Events, (i32, i32), Policies, Policies, (i32, i32), (i32, &'static str));

/// TestScalingWithRules.
#[rustfmt::skip]
const SCALING_WITH_RULES: &[Case] = &[
    ("prenormalized desired replicas within range", NONE, NONE, (3, 8), None, None, (5, 7), (7, "DesiredWithinRange")),
    ("prenormalized desired replicas < minReplicas", NONE, NONE, (2, 8), None, None, (3, 1), (2, "TooFewReplicas")),
    ("prenormalized desired replicas within range when minReplicas is 0", NONE, NONE, (0, 10), None, None, (1, 0), (0, "DesiredWithinRange")),
    ("maxReplicas is the limit because maxReplicas < scaleUpLimit", NONE, NONE, (1, 10), None, None, (20, 1000), (10, "TooManyReplicas")),
    ("desired replica count is more than the maximum replica count", NONE, NONE, (100, 150), None, None, (100, 1000), (150, "TooManyReplicas")),
    ("scaleUpLimit is the limit because scaleUpLimit < maxReplicas with user policies", NONE, NONE, (1, 2000), Some((0, 0, 1, 60)), None, (3, 1000), (4, "ScaleUpLimit")),
    ("scaleDownLimit is the limit because scaleDownLimit > minReplicas with user defined policies", NONE, NONE, (3, 2000), None, Some((20, 60, 0, 0)), (1000, 3), (980, "ScaleDownLimit")),
    ("scaleUp with default behavior", NONE, NONE, (1, 1000), None, None, (10, 50), (20, "ScaleUpLimit")),
    ("scaleUp with pods policy larger than percent policy", NONE, NONE, (1, 1000), Some((100, 60, 100, 60)), None, (10, 500), (110, "ScaleUpLimit")),
    ("scaleUp with percent policy larger than pods policy", NONE, NONE, (1, 1000), Some((2, 60, 100, 60)), None, (10, 500), (20, "ScaleUpLimit")),
    ("scaleUp with spec MaxReplicas limitation with large pod policy", NONE, NONE, (1, 1000), Some((100, 60, 0, 0)), None, (10, 50), (50, "DesiredWithinRange")),
    ("scaleUp with spec MaxReplicas limitation with large percent policy", NONE, NONE, (1, 1000), Some((10000, 60, 0, 0)), None, (10, 50), (50, "DesiredWithinRange")),
    ("scaleUp with pod policy limitation", NONE, NONE, (1, 1000), Some((30, 60, 0, 0)), None, (10, 50), (40, "ScaleUpLimit")),
    ("scaleUp with percent policy limitation", NONE, NONE, (1, 1000), Some((0, 0, 200, 60)), None, (10, 50), (30, "ScaleUpLimit")),
    ("scaleDown with percent policy larger than pod policy", NONE, NONE, (1, 1000), None, Some((20, 60, 1, 60)), (100, 2), (80, "ScaleDownLimit")),
    ("scaleDown with pod policy larger than percent policy", NONE, NONE, (1, 1000), None, Some((2, 60, 1, 60)), (100, 2), (98, "ScaleDownLimit")),
    ("scaleDown with spec MinReplicas=nil limitation with large pod policy", NONE, NONE, (1, 1000), None, Some((100, 60, 0, 0)), (10, 0), (1, "TooFewReplicas")),
    ("scaleDown with spec MinReplicas limitation with large pod policy", NONE, NONE, (1, 1000), None, Some((100, 60, 0, 0)), (10, 0), (1, "TooFewReplicas")),
    ("scaleDown with spec MinReplicas limitation with large percent policy", NONE, NONE, (5, 1000), None, Some((0, 0, 100, 60)), (10, 2), (5, "TooFewReplicas")),
    ("scaleDown with pod policy limitation", NONE, NONE, (1, 1000), None, Some((5, 60, 0, 0)), (10, 2), (5, "ScaleDownLimit")),
    ("scaleDown with percent policy limitation", NONE, NONE, (1, 1000), None, Some((0, 0, 50, 60)), (10, 5), (5, "DesiredWithinRange")),
    ("scaleUp with spec MaxReplicas limitation with large pod policy and events", &[1, 5, 9], NONE, (1, 200), Some((300, 60, 0, 0)), None, (100, 500), (200, "TooManyReplicas")),
    ("scaleUp with spec MaxReplicas limitation with large percent policy and events", &[1, 5, 9], NONE, (1, 200), Some((0, 0, 10000, 60)), None, (100, 500), (200, "TooManyReplicas")),
    ("scaleUp with currentReplicas limitation with rate.PeriodSeconds with a lot of recent scale up events", &[1, 5, 9], NONE, (1, 1000), Some((5, 120, 0, 0)), None, (100, 500), (100, "ScaleUpLimit")),
    ("scaleUp with pod policy and previous scale up events", &[1, 5, 9], NONE, (1, 1000), Some((150, 120, 0, 0)), None, (100, 500), (235, "ScaleUpLimit")),
    ("scaleUp with percent policy and previous scale up events", &[1, 5, 9], NONE, (1, 1000), Some((0, 0, 200, 120)), None, (100, 500), (255, "ScaleUpLimit")),
    ("scaleUp with percent policy and previous scale up and down events", &[4], &[2], (1, 1000), Some((0, 0, 300, 300)), None, (6, 24), (16, "ScaleUpLimit")),
    ("scaleDown with default policy and previous events", NONE, &[1, 5, 9], (1, 1000), None, None, (10, 5), (5, "DesiredWithinRange")),
    ("scaleDown with spec MinReplicas=nil limitation with large pod policy and previous events", NONE, &[1, 5, 9], (1, 1000), None, Some((115, 120, 0, 0)), (100, 0), (1, "TooFewReplicas")),
    ("scaleDown with spec MinReplicas limitation with large pod policy and previous events", NONE, &[1, 5, 9], (5, 1000), None, Some((130, 120, 0, 0)), (100, 0), (5, "TooFewReplicas")),
    ("scaleDown with spec MinReplicas limitation with large percent policy and previous events", NONE, &[1, 5, 9], (5, 1000), None, Some((0, 0, 100, 120)), (100, 2), (5, "TooFewReplicas")),
    ("scaleDown with pod policy limitation and previous events", NONE, &[1, 5, 9], (1, 1000), None, Some((5, 120, 0, 0)), (100, 2), (100, "ScaleDownLimit")),
    ("scaleDown with percent policy limitation and previous events", NONE, &[2, 4, 6], (1, 1000), None, Some((0, 0, 50, 120)), (100, 0), (56, "ScaleDownLimit")),
    ("scaleDown with percent policy and previous scale up and down events", &[2], &[4], (1, 1000), None, Some((0, 0, 50, 180)), (10, 1), (6, "ScaleDownLimit")),
    ("scaleDown with previous events preventing further scale down", NONE, &[10, 10, 10], (1, 1000), None, Some((0, 0, 10, 120)), (100, 0), (100, "ScaleDownLimit")),
    ("scaleDown with with previous events still allowing more scale down", NONE, &[10, 10, 10], (1, 1000), None, Some((0, 0, 1000, 120)), (10, 5), (5, "DesiredWithinRange")),
    ("check 'outdated' flag for events for one behavior for up", &[8, 12, 9, 11], NONE, (1, 1000), Some((1000, 60, 0, 0)), None, (100, 200), (200, "DesiredWithinRange")),
    ("check that events were not marked 'outdated' for two different policies in the behavior for up", &[8, 12, 9, 11], NONE, (1, 1000), Some((1000, 120, 100, 60)), None, (100, 200), (200, "DesiredWithinRange")),
    ("check that events were marked 'outdated' for two different policies in the behavior for up", &[8, 12, 9, 11], NONE, (1, 1000), Some((1000, 30, 100, 60)), None, (100, 200), (200, "DesiredWithinRange")),
    ("check 'outdated' flag for events for one behavior for down", NONE, &[8, 12, 9, 11], (1, 1000), None, Some((1000, 60, 0, 0)), (100, 5), (5, "DesiredWithinRange")),
    ("check that events were not marked 'outdated' for two different policies in the behavior for down", NONE, &[8, 12, 9, 11], (1, 1000), None, Some((1000, 120, 100, 60)), (100, 5), (5, "DesiredWithinRange")),
    ("check that events were marked 'outdated' for two different policies in the behavior for down", NONE, &[8, 12, 9, 11], (1, 1000), None, Some((1000, 30, 100, 60)), (100, 5), (5, "DesiredWithinRange")),
];

fn hpa(extra: &str) -> Hpa {
    Hpa::parse(&format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec:\n  scaleTargetRef: {{kind: Deployment, name: shop}}\n  \
         maxReplicas: 2000\n  minReplicas: 1\n  metrics:\n  - type: Pods\n    pods: {{metric: {{name: qps}}, target: {{type: \
         AverageValue, averageValue: 15}}}}\n{extra}"
    ))
    .unwrap()
}

fn filled(up: Policies, down: Policies) -> (Rules, Rules) {
    let defaults = hpa("  behavior: {}\n").spec.behavior.unwrap();
    let rules = |policies: Policies, default: Rules| {
        let Some((pods, pods_period, percent, percent_period)) = policies else { return default };
        let policy = |r#type, value, period_seconds| (value != 0).then_some(Policy { r#type, value, period_seconds });
        let both = [policy(PolicyType::Pods, pods, pods_period), policy(PolicyType::Percent, percent, percent_period)];
        Rules { policies: Some(both.into_iter().flatten().collect()), ..default }
    };
    (rules(up, defaults.scale_up), rules(down, defaults.scale_down))
}

/// `generateEventsUniformDistribution`.
fn spread(changes: Events) -> Vec<Event> {
    let segment = 120.0 / changes.len() as f64;
    let at = |index: usize| NOW - 1000 * ((120.0 - segment * (index + 1) as f64 + segment / 2.0) as i64);
    changes
        .iter()
        .enumerate()
        .map(|(index, change)| Event { change: *change, at: at(index), outdated: false })
        .collect()
}

#[test]
fn scaling_with_rules() {
    for (name, ups, downs, (least, most), up, down, (current, desired), expected) in SCALING_WITH_RULES {
        let (up, down) = filled(*up, *down);
        let controller = Controller { ups: spread(ups), downs: spread(downs), ..Controller::default() };
        assert_eq!(
            controller.convert_with((&up, &down), NOW, *current, *desired, (*least, *most)),
            *expected,
            "{name}"
        );
    }
}

#[test]
fn convert_desired_replicas_with_rules() {
    assert_eq!(convert(5, 7, 3, 8), (7, "DesiredWithinRange"));
    assert_eq!(convert(3, 1, 2, 8), (2, "TooFewReplicas"));
    assert_eq!(convert(1, 0, 0, 10), (0, "DesiredWithinRange"));
    assert_eq!(convert(20, 1000, 1, 10), (10, "TooManyReplicas"));
    assert_eq!(convert(3, 1000, 1, 2000), (6, "ScaleUpLimit"));
}

#[test]
fn limits_of_the_least_policy() {
    let rules = |()| Rules {
        select_policy: Some(SelectPolicy::Min),
        policies: Some(vec![
            Policy { r#type: PolicyType::Pods, value: 2, period_seconds: 60 },
            Policy { r#type: PolicyType::Percent, value: 50, period_seconds: 60 },
        ]),
        ..Rules::default()
    };
    let controller = Controller::default();
    assert_eq!(controller.up_limit(&rules(()), NOW, 1), 2);
    assert_eq!(controller.down_limit(&rules(()), NOW, 5), 3);
}

fn recommended(list: &[(i32, i64)]) -> Vec<(i32, Time)> {
    list.iter().map(|(count, minutes_ago)| (*count, NOW - minutes_ago * MINUTE)).collect()
}

/// Recommendations as count and minutes ago; then desired, expected, and how many are kept.
type Stabilized = (&'static [(i32, i64)], (i32, i32, usize));

#[test]
fn normalize_desired_replicas() {
    let cases: [Stabilized; 5] = [
        (&[], (5, 5, 1)),
        (&[(4, 2), (5, 1)], (3, 5, 3)),
        (&[(1, 2), (2, 1)], (3, 3, 3)),
        (&[(10, 10), (9, 9)], (3, 3, 2)),
        (&[(10, 10), (4, 1), (5, 2), (9, 9)], (3, 5, 4)),
    ];
    for (recommendations, (desired, expected, kept)) in cases {
        let mut controller = Controller { recommendations: recommended(recommendations), ..Controller::default() };
        assert_eq!((controller.stabilize(NOW, desired), controller.recommendations.len()), (expected, kept));
    }
}

#[test]
fn normalize_desired_replicas_with_behavior() {
    // Recommendations; current, desired; expected, and what is kept; windows upwards and downwards.
    #[expect(clippy::type_complexity, reason = "a table of one test")]
    let cases: [(&[(i32, i64)], (i32, i32), (i32, &[i32]), (i32, i32)); 11] = [
        (&[], (100, 5), (5, &[5]), (0, 0)),
        (&[(4, 2), (5, 1)], (100, 3), (5, &[4, 5, 3]), (0, 180)),
        (&[(4, 2), (5, 1)], (1, 7), (4, &[4, 5, 7]), (300, 0)),
        (&[(1, 2), (2, 1)], (100, 3), (3, &[1, 2, 3]), (300, 0)),
        (&[(4, 2), (5, 1)], (1, 3), (3, &[4, 5, 3]), (0, 300)),
        (&[(10, 10), (9, 9)], (100, 3), (3, &[10, 3]), (0, 0)),
        (&[(10, 10), (9, 9)], (1, 100), (100, &[10, 100]), (0, 0)),
        (&[(10, 10), (4, 1), (5, 2), (9, 9)], (100, 3), (5, &[10, 4, 5, 3]), (0, 180)),
        (&[(10, 100), (6, 1), (5, 2), (9, 3)], (1, 100), (5, &[100, 6, 5, 9]), (300, 0)),
        (&[(2, 100), (3, 3)], (2, 1), (2, &[1, 3]), (300, 300)),
        (&[(2, 100), (1, 3)], (2, 3), (2, &[3, 1]), (300, 300)),
    ];
    for (recommendations, (current, desired), (expected, kept), (up, down)) in cases {
        let mut controller = Controller { recommendations: recommended(recommendations), ..Controller::default() };
        let rules = |seconds| Rules { stabilization_window_seconds: Some(seconds), ..Rules::default() };
        let stabilized = controller.stabilize_with(&rules(up), &rules(down), NOW, current, desired);
        let counts: Vec<_> = controller.recommendations.iter().map(|it| it.0).collect();
        assert_eq!((stabilized, counts.as_slice()), (expected, kept), "{recommendations:?} {current} {desired}");
    }
}

fn running(count: u32) -> Vec<Pod> {
    (0..count)
        .map(|name| Pod {
            name,
            phase: calculator::Phase::Running,
            deleting: false,
            started: Some(0),
            ready: Some((true, 0)),
            request: Some(1000),
        })
        .collect()
}

fn reading(values: &[i64]) -> Reading {
    let metric = |value: &i64| calculator::PodMetric { value: *value, at: NOW, window: MINUTE };
    Reading::Pods(values.iter().enumerate().map(|(name, value)| (name as u32, metric(value))).collect())
}

/// TestScaleUpCM, TestToleranceCM, TestScaleDownStabilizeInitialSize, TestUpscaleCap and others of whole syncs.
#[test]
fn whole_syncs() {
    let sync = |hpa: &Hpa, replicas: i32, reading: Reading| {
        Controller::new(Flags { downscale_stabilization: 0, ..Flags::default() }).sync(
            hpa,
            NOW,
            replicas,
            &running(replicas as u32),
            &[reading],
        )
    };
    let plain = hpa("");
    assert_eq!(sync(&plain, 3, reading(&[20_000, 10_000, 30_000])).desired, 4);
    assert_eq!(sync(&plain, 3, reading(&[15_500, 15_500, 15_500])).desired, 3);
    assert_eq!(
        sync(&plain, 3, reading(&[100_000, 200_000, 300_000])),
        Decision { desired: 6, proposed: Some(40), reason: "ScaleUpLimit", failed: None }
    );
    // Nothing known is no reason to scale.
    let failed = sync(&plain, 3, Reading::Failed);
    assert_eq!((failed.desired, failed.proposed, failed.failed), (3, None, Some(NoCount::NoMetrics)));
    // Disabled at 0; within the limits again at once.
    assert_eq!(sync(&plain, 0, reading(&[])).reason, "ScalingDisabled");
    assert_eq!(sync(&plain, 2001, reading(&[])).desired, 2000);
    // The first count holds a scale-down for the stabilisation window.
    let mut controller = Controller::new(Flags::default());
    let down = |controller: &mut Controller, now| controller.sync(&plain, now, 5, &running(5), &[reading(&[1000; 5])]);
    assert_eq!(
        down(&mut controller, 0),
        Decision { desired: 5, proposed: Some(1), reason: "ScaleDownStabilized", failed: None }
    );
    assert_eq!(down(&mut controller, 300_000).desired, 5);
    assert_eq!(down(&mut controller, 300_001).desired, 1);
}

/// TestConfigurableTolerance.
#[test]
fn an_hpas_own_tolerance_holds_where_the_gate_is_on() {
    let own = hpa("  behavior: {scaleUp: {tolerance: 0.3}, scaleDown: {tolerance: 50m}}\n");
    assert_eq!(own.spec.behavior.as_ref().unwrap().scale_down.tolerance, Some(Fraction(0.05)));
    for (gate, values, expected) in
        [(true, 18_000, 3), (false, 18_000, 4), (true, 14_000, 3), (true, 9_000, 2), (false, 14_000, 3)]
    {
        let mut controller =
            Controller::new(Flags { own_tolerances: gate, downscale_stabilization: 0, ..Flags::default() });
        let decision = controller.sync(&own, NOW, 3, &running(3), &[reading(&[values; 3])]);
        assert_eq!(decision.desired, expected, "{gate} {values}");
    }
}

/// TestNoScaleDownOneMetricInvalid, TestScaleUpOneMetricInvalid.
#[test]
fn one_failing_metric_blocks_scaling_down_but_not_up() {
    let two = hpa("  - type: External\n    external: {metric: {name: queue}, target: {type: Value, value: 100}}\n");
    let sync = |replicas, reading| {
        Controller::new(Flags { downscale_stabilization: 0, ..Flags::default() }).sync(
            &two,
            NOW,
            replicas,
            &running(replicas as u32),
            &[reading, Reading::Failed],
        )
    };
    assert_eq!(sync(3, reading(&[30_000; 3])).desired, 6);
    assert_eq!(sync(3, reading(&[1000; 3])).desired, 3);
}

/// The condition `ScaledToZero` of Kubernetes 1.37.
#[test]
fn what_it_has_not_scaled_to_zero_itself_it_leaves_there() {
    let hpa = hpa(
        "  - type: External\n    external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 100}}\n",
    );
    let mut hpa = hpa;
    hpa.spec.min_replicas = 0;
    let flags = |condition| Flags { to_zero_condition: condition, downscale_stabilization: 0, ..Flags::default() };
    let sync = |controller: &mut Controller, now, replicas, queue| {
        controller.sync(
            &hpa,
            now,
            replicas,
            &running(replicas as u32),
            &[reading(&vec![0; replicas as usize]), Reading::Figure(queue)],
        )
    };
    let mut by_hand = Controller::new(flags(true));
    assert_eq!(
        sync(&mut by_hand, 0, 0, 250_000),
        Decision { desired: 0, proposed: None, reason: "ScalingDisabled", failed: None }
    );
    assert_eq!(sync(&mut Controller::new(flags(false)), 0, 0, 250_000).desired, 3);
    assert_eq!(sync(&mut Controller::new(flags(true)).having_scaled_to_zero(), 0, 0, 250_000).desired, 3);
    // It goes to 0 itself, stays there, and comes back.
    let mut own = Controller::new(flags(true));
    let mut at = 0;
    let mut next = |replicas, queue| {
        at += 15_000;
        sync(&mut own, at, replicas, queue).desired
    };
    assert_eq!(
        [(2, 0), (2, 0), (0, 0), (0, 250_000), (3, 250_000)].map(|(replicas, queue)| next(replicas, queue)),
        [2, 0, 0, 3, 3]
    );
}
