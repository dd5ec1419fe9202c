//! What the controller was shown and what it did, as JSON lines: the test that holds this simulation against the real
//! controller shows it the same.

use serde_json::json;

use super::{
    calculator::{Phase, Pod, Time},
    controller::{Decision, Reading},
};

/// One sync. Times are milliseconds since the start, values thousandths.
pub(super) fn line(now: Time, replicas: i32, pods: &[Pod], readings: &[Reading], decision: &Decision) -> String {
    let pods: Vec<_> = pods
        .iter()
        .map(|pod| {
            json!({
                "name": pod.name,
                "phase": match pod.phase {
                    Phase::Pending => "Pending",
                    Phase::Running => "Running",
                    Phase::Failed => "Failed",
                },
                "deleting": pod.deleting,
                "started": pod.started,
                "ready": pod.ready.map(|it| it.0),
                "readySince": pod.ready.map(|it| it.1),
                "request": pod.request,
            })
        })
        .collect();
    let readings: Vec<_> = readings
        .iter()
        .map(|reading| match reading {
            Reading::Pods(metrics) => {
                let values: Vec<_> = metrics
                    .iter()
                    .map(|(pod, it)| json!({ "pod": pod, "value": it.value, "at": it.at, "window": it.window }))
                    .collect();
                json!({ "pods": values })
            }
            Reading::Figure(value) => json!({ "figure": value }),
            Reading::Failed => json!({ "failed": true }),
        })
        .collect();
    let line = json!({
        "now": now,
        "replicas": replicas,
        "pods": pods,
        "readings": readings,
        "desired": decision.desired,
    });
    format!("{line}\n")
}
