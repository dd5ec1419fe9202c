use super::*;

fn with(spec: &str) -> Result<Hpa, SpecError> {
    Hpa::parse(&format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: shop}}\nspec:\n  scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: shop}}\n  maxReplicas: 10\n{spec}"
    ))
}

const PODS: &str =
    "  metrics:\n  - type: Pods\n    pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: 50}}\n";

#[test]
fn defaults_are_the_api_servers() {
    let hpa = with(&format!("{PODS}  behavior: {{scaleUp: {{stabilizationWindowSeconds: 30}}}}\n")).unwrap();
    assert_eq!(hpa.spec.min_replicas, 1);
    let behavior = hpa.spec.behavior.as_ref().unwrap();
    assert_eq!(behavior.scale_up.stabilization_window_seconds, Some(30));
    assert_eq!(behavior.scale_up.policies.as_ref().unwrap().len(), 2);
    assert_eq!(behavior.scale_down.stabilization_window_seconds, None);
    assert_eq!(behavior.scale_down.policies.as_ref().unwrap()[0].value, 100);
    assert_eq!(hpa.metrics()[0].goal, Goal::AverageValue(Milli(50_000)));
    assert!(with(PODS).unwrap().spec.behavior.is_none());
}

#[test]
fn what_the_api_server_refuses_is_refused_with_the_field() {
    let error = |spec: &str| with(spec).unwrap_err().to_string();
    assert!(error("").contains("spec.metrics"));
    assert!(error(&format!("{PODS}  minReplicas: 11\n")).contains("spec.maxReplicas"));
    assert!(error(&format!("{PODS}  behavior: {{scaleUp: {{policies: []}}}}\n")).contains("behavior.scaleUp.policies"));
    let value = PODS.replace("averageValue: 50", "value: 50");
    assert!(error(&value).contains("averageValue must be given"));
    assert!(error(&PODS.replace("50", "-1")).contains("positive"));
    assert!(error("  metrics:\n  - type: Object\n").contains("no such section"));
    assert!(error(&format!("{PODS}  minReplica: 2\n")).contains("minReplica"));
}

#[test]
fn other_objects_are_named_and_other_documents_passed_over() {
    let error = Hpa::parse("apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\n").unwrap_err().to_string();
    assert!(error.contains("autoscaling/v1") && error.contains("kubectl"), "{error}");
    assert!(Hpa::parse("apiVersion: apps/v1\nkind: Deployment\n").unwrap_err().to_string().contains("Deployment"));
    assert!(Hpa::parse("").is_err());
}
