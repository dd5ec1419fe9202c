//! What the HPA says of itself. Pure.

use serde_json::Value;

use super::{report::Look, workload::Waker};

/// A condition of an HPA's status.
pub(super) fn condition<'a>(hpa: &'a Value, kind: &str) -> Option<&'a Value> {
    hpa["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

/// Whether the controller says that it has a value and acts by it.
pub(super) fn active(hpa: &Value) -> bool {
    condition(hpa, "ScalingActive").is_some_and(|it| it["status"] == "True")
}

/// Judges the conditions of an HPA whose workload has so many replicas.
pub(super) fn judge(hpa: &Value, replicas: i64, waker: Waker) -> Look {
    if replicas == 0 && waker == Waker::Keda {
        return Look::Passed("KEDA has scaled the workload to 0: the HPA rests".to_owned());
    }
    for kind in ["AbleToScale", "ScalingActive"] {
        if let Some(it) = condition(hpa, kind).filter(|it| it["status"] == "False") {
            let text = |key: &str| it[key].as_str().unwrap_or_default();
            return Look::Broken(format!("{kind} is False: {}: {}", text("reason"), text("message")));
        }
    }
    if hpa["status"]["conditions"].as_array().is_none_or(Vec::is_empty) {
        return Look::Broken(
            "it has none: the controller has not looked at it; is kube-controller-manager running?".to_owned(),
        );
    }
    let limited = condition(hpa, "ScalingLimited").filter(|it| it["status"] == "True");
    Look::Whole(limited.map_or_else(
        || "able to scale and active".to_owned(),
        |it| format!("active, but limited: {}", it["message"].as_str().unwrap_or_default()),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hpa(kind: &str, status: &str, reason: &str) -> Value {
        json!({"status": {"conditions": [{"type": kind, "status": status, "reason": reason, "message": "because"}]}})
    }

    #[test]
    fn what_is_false_is_broken_but_for_keda_at_zero() {
        let disabled = hpa("ScalingActive", "False", "ScalingDisabled");
        assert!(
            matches!(judge(&disabled, 2, Waker::Nobody), Look::Broken(text) if text.contains("ScalingDisabled: because"))
        );
        assert!(matches!(judge(&disabled, 0, Waker::Keda), Look::Passed(_)));
        assert!(matches!(judge(&disabled, 2, Waker::Keda), Look::Broken(_)));
        let limited = hpa("ScalingLimited", "True", "TooManyReplicas");
        assert_eq!(judge(&limited, 2, Waker::Nobody), Look::Whole("active, but limited: because".into()));
        assert!(matches!(judge(&json!({}), 2, Waker::Nobody), Look::Broken(_)));
        // On Kubernetes 1.37 it is there, and False, wherever nobody scaled to 0.
        assert!(matches!(judge(&hpa("ScaledToZero", "False", "NotScaledToZero"), 2, Waker::Nobody), Look::Whole(_)));
    }
}
