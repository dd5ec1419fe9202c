use super::*;
use crate::hpa::quantity::Milli;

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
    let nulls = with(&format!("{PODS}  minReplicas: null\n  behavior: {{scaleUp: null}}\n")).unwrap();
    assert_eq!(nulls.spec.min_replicas, 1);
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
fn what_the_controller_could_not_use_is_refused_too() {
    let error = |spec: &str| with(spec).map_or_else(|error| error.to_string(), |_| String::new());
    let target = "target: {type: AverageValue, averageValue: 50}";
    let external = format!("  metrics:\n  - type: External\n    external: {{metric: {{name: q}}, {target}}}\n");
    assert!(error(&format!("{PODS}  minReplicas: 0\n")).contains("must have an Object or External metric"));
    assert_eq!(error(&format!("{external}  minReplicas: 0\n")), "");
    let selector = "{name: rps, selector: {matchLabels: {http_route: '/items/{id}'}}}";
    let by_route = PODS.replace("{name: rps}", selector);
    assert!(
        error(&by_route).contains("spec.metrics[0]") && error(&by_route).contains("is no label value"),
        "{}",
        error(&by_route)
    );
    assert!(error(&PODS.replace("rps", "a/b")).contains("metric.name"));
    let object = "  metrics:\n  - type: Object\n    object: {describedObject: {kind: Service, name: ''}, metric: {name: rps}, target: {type: \
                  Value, value: 5}}\n";
    assert!(error(object).contains("describedObject"));
    let nameless = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec:\n  scaleTargetRef: {kind: Deployment, name: ''}\n  \
                    maxReplicas: 3\n";
    assert!(Hpa::parse(&format!("{nameless}{PODS}")).unwrap_err().to_string().contains("spec.scaleTargetRef"));
    let resource = "  metrics:\n  - type: Resource\n    resource: {name: cpu, container: app, target: {type: Utilization, averageUtilization: 60}}\n";
    assert!(error(resource).contains("container"), "{}", error(resource));
    assert_eq!(error(&resource.replace("container: app, ", "")), "");
    let both = format!("{PODS}    external: {{metric: {{name: q}}, {target}}}\n");
    assert!(error(&both).contains("there is a section external"));
    assert!(error(&PODS.replace("type: AverageValue", "type: Average")).contains("target.type"));
    for quantity in ["true", "[5]", "'1e3m'", "' 50'", "'1k '"] {
        assert!(
            error(&PODS.replace("averageValue: 50", &format!("averageValue: {quantity}"))).contains("quantity"),
            "{quantity}"
        );
    }
}

#[test]
fn advice_fits_the_kind() {
    let error = |kind: &str| {
        Hpa::parse(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: shop}}\nitems: []\n"))
            .unwrap_err()
            .to_string()
    };
    assert!(error("List").contains("give one object"));
    assert!(error("ScaledObject").contains("keda-hpa-shop"));
    assert!(error("Deployment").ends_with("of autoscaling/v2"));
}

#[test]
fn other_objects_are_named_and_other_documents_passed_over() {
    let error = Hpa::parse("apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\n").unwrap_err().to_string();
    assert!(error.contains("autoscaling/v1") && error.contains("kubectl"), "{error}");
    assert!(Hpa::parse("apiVersion: apps/v1\nkind: Deployment\n").unwrap_err().to_string().contains("Deployment"));
    for none in ["", "---\n---\n", "# later\n"] {
        assert!(Hpa::parse(none).unwrap_err().to_string().contains("there is no HorizontalPodAutoscaler"), "{none:?}");
    }
}
