//! What the HPA controller gets when it asks for a metric: the path that it asks by, and what the answer means. Pure.

use serde_json::Value;

use super::{
    agents::{is_ready, name_of},
    cluster::{Attributes, escaped},
    report::Look,
    served::Served,
    wanted::{Source, Wanted},
};

/// The path that the controller asks by, and what it needs the right to get. `plural` is the described object's resource with
/// its group, as `deployments.apps`, and `pods` the selector of the scale.
pub(super) fn question<'a>(
    served: &'a Served,
    namespace: &'a str,
    wanted: &'a Wanted,
    plural: &'a str,
    pods: &str,
) -> (String, Attributes<'a>) {
    let Served { group, version, .. } = served;
    let (name, selector) = (wanted.name.as_str(), escaped(&wanted.selector.to_string()));
    let base = format!("/apis/{group}/{version}/namespaces/{namespace}");
    let object = wanted.object["name"].as_str().unwrap_or_default();
    let (path, resource, subresource) = match wanted.source {
        Source::External => (format!("{base}/{name}?labelSelector={selector}"), name, ""),
        Source::Object if plural == "namespaces" => {
            (format!("{base}/metrics/{name}?metricLabelSelector={selector}"), "metrics", "")
        }
        Source::Object => (format!("{base}/{plural}/{object}/{name}?metricLabelSelector={selector}"), plural, name),
        _ => {
            let pods = escaped(pods);
            (format!("{base}/pods/*/{name}?labelSelector={pods}&metricLabelSelector={selector}"), "pods", name)
        }
    };
    (path, Attributes { group, namespace, resource, subresource })
}

/// A pod without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) pod: String,
    /// In the words of the metrics-api.
    pub(super) why: Option<String>,
}

/// The pods that have no value and should have one: one that is not ready yet, or no more, has no figures for a moment.
pub(super) fn lacking<'p>(items: &[Value], running: &'p [Value]) -> Vec<&'p Value> {
    let known: Vec<&str> = items.iter().filter_map(|it| it["describedObject"]["name"].as_str()).collect();
    let lacks = |it: &&Value| !known.contains(&name_of(it)) && is_ready(it) != Some(false);
    running.iter().filter(lacks).collect()
}

/// The first few, each with its reason.
fn some(missing: &[Missing]) -> String {
    let one = |it: &Missing| match &it.why {
        Some(why) => format!("{} ({why})", it.pod),
        None => it.pod.clone(),
    };
    let shown: Vec<String> = missing.iter().take(3).map(one).collect();
    let unsaid = missing.iter().all(|it| it.why.is_none());
    let why = if unsaid { ": not measured, or their agent has been silent for 15 s" } else { "" };
    format!("{}{}{why}", shown.join(", "), if missing.len() > 3 { ", ..." } else { "" })
}

/// What is to be said of a value of several pods that is not of all of them.
pub(super) fn in_part(wanted: &Wanted, all: usize, missing: &[Missing]) -> String {
    format!(
        "{} is without {} of {all} pods: {}. Annotate pods that cannot be measured with gopulse.io/enabled: \"false\"",
        wanted.name,
        missing.len(),
        some(missing)
    )
}

/// Judges the values of type Pods, of so many pods that run.
pub(super) fn of_pods(wanted: &Wanted, items: &[Value], running: usize, missing: &[Missing]) -> Look {
    let name = &wanted.name;
    if !missing.is_empty() {
        return Look::Broken(format!(
            "{} of {running} pods have no value of {name}: {}; the HPA takes them for idle when scaling up and for full when scaling down",
            missing.len(),
            some(missing)
        ));
    }
    if items.is_empty() {
        return Look::Broken(format!("{name} has no values: none of its pods is ready"));
    }
    let values: Vec<&str> = items.iter().filter_map(|it| it["value"].as_str()).collect();
    if !wanted.selector.is_empty() && values.iter().all(|it| *it == "0") {
        return Look::Warned(format!(
            "{name} is 0 at every pod with the selector {}: no figures have these labels (metric.selector of the HPA), or there are no such requests",
            wanted.selector
        ));
    }
    let more = if values.len() > 5 { ", ..." } else { "" };
    Look::Whole(format!("{name} of {} pods: {}{more}", values.len(), values[..values.len().min(5)].join(", ")))
}

/// Judges the values of types Object and External.
pub(super) fn figure(wanted: &Wanted, items: &[Value]) -> Look {
    let name = &wanted.name;
    let values: Vec<&str> = items.iter().filter_map(|it| it["value"].as_str()).collect();
    match (values.as_slice(), wanted.source) {
        ([], _) => Look::Broken(format!("{name} has no values where one is needed")),
        (["0"], _) if !wanted.selector.without(&["scaledobject.keda.sh/name"]).is_empty() => Look::Warned(format!(
            "{name} is 0 with the selector {}: no figures have these labels, or there is nothing to count",
            wanted.selector
        )),
        ([value], _) => Look::Whole(format!("{name} is {value}")),
        (values, Source::Object) => Look::Broken(format!("{name} has {} values where one is needed", values.len())),
        // The controller adds them up.
        (values, _) => Look::Whole(format!("{name} is the sum of {}", values.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(metric: Value) -> Wanted {
        Wanted::all(&json!({"spec": {"metrics": [metric]}})).unwrap().remove(0)
    }

    fn pods_metric(selector: Value) -> Wanted {
        wanted(json!({"type": "Pods", "pods": {"metric": {"name": "rps", "selector": selector}}}))
    }

    #[test]
    fn the_controllers_paths() {
        let service = json!({"spec": {"service": {"namespace": "gopulse", "name": "gopulse-metrics-api"}}});
        let path = |group, wanted: &Wanted, plural: &str| {
            question(&Served::of(group, "v1beta1", &service), "shop", wanted, plural, "app in (a,b)").0
        };
        let custom = super::super::served::CUSTOM;
        let codes = json!({"matchExpressions": [{"key": "code", "operator": "In", "values": ["500", "503"]}]});
        assert_eq!(
            path(custom, &pods_metric(codes.clone()), ""),
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/rps?labelSelector=app%20in%20%28a%2Cb%29&metricLabelSelector=code%20in%20%28500%2C503%29"
        );
        let object = wanted(
            json!({"type": "Object", "object": {"metric": {"name": "rps"}, "describedObject": {"name": "web"}}}),
        );
        assert!(
            path(custom, &object, "rollouts.argoproj.io")
                .ends_with("/shop/rollouts.argoproj.io/web/rps?metricLabelSelector=")
        );
        assert!(path(custom, &object, "namespaces").ends_with("/namespaces/shop/metrics/rps?metricLabelSelector="));
        let external = wanted(json!({"type": "External", "external": {"metric": {"name": "rps", "selector": codes}}}));
        assert!(
            path("external.metrics.k8s.io", &external, "")
                .ends_with("/shop/rps?labelSelector=code%20in%20%28500%2C503%29")
        );
    }

    #[test]
    fn missing_values_are_broken_but_of_pods_that_are_not_ready() {
        let pod = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let item = |name: &str, value: &str| json!({"describedObject": {"name": name}, "value": value});
        let plain = pods_metric(Value::Null);
        let of_pods = |wanted: &Wanted, items: &[Value], running: &[Value]| {
            let missing = |pod: &&Value| Missing { pod: name_of(pod).to_owned(), why: None };
            let missing: Vec<Missing> = lacking(items, running).iter().map(missing).collect();
            super::of_pods(wanted, items, running.len(), &missing)
        };
        let both = [pod("a", "True"), pod("b", "True")];
        assert!(
            matches!(of_pods(&plain, &[item("a", "1")], &both), Look::Broken(text) if text.contains("1 of 2 pods") && text.contains("rps: b: not measured"))
        );
        assert_eq!(
            of_pods(&plain, &[item("a", "1")], &[pod("a", "True"), pod("b", "False")]),
            Look::Whole("rps of 1 pods: 1".into())
        );
        assert!(matches!(of_pods(&plain, &[], &[pod("b", "False")]), Look::Broken(_)));
        // An idle pod is 0; with a selector it may be a mistake, and may be that there are none.
        assert!(matches!(of_pods(&plain, &[item("a", "0"), item("b", "0")], &both), Look::Whole(_)));
        let chosen = pods_metric(json!({"matchExpressions": [{"key": "code", "operator": "In", "values": ["500"]}]}));
        assert!(
            matches!(of_pods(&chosen, &[item("a", "0"), item("b", "0")], &both), Look::Warned(text) if text.contains("code in (500)"))
        );
    }

    #[test]
    fn pods_without_a_value_are_told_with_what_the_metrics_api_says_of_them() {
        let missing = |pod: &str, why: Option<&str>| Missing { pod: pod.into(), why: why.map(str::to_owned) };
        let said = [missing("a", Some("its agent says: Go 1.12 is too old")), missing("b", None)];
        let text = in_part(&pods_metric(Value::Null), 5, &said);
        assert!(
            text.starts_with("rps is without 2 of 5 pods: a (its agent says: Go 1.12 is too old), b. Annotate"),
            "{text}"
        );
        let many: Vec<Missing> = ["a", "b", "c", "d"].iter().map(|it| missing(it, None)).collect();
        assert!(some(&many).starts_with("a, b, c, ...: not measured"));
    }

    #[test]
    fn one_figure() {
        let external = wanted(json!({"type": "External", "external": {"metric": {"name": "q"}}}));
        let values = |all: &[&str]| all.iter().map(|it| json!({"value": it})).collect::<Vec<_>>();
        assert_eq!(figure(&external, &values(&["40"])), Look::Whole("q is 40".into()));
        assert_eq!(figure(&external, &values(&["0"])), Look::Whole("q is 0".into()));
        assert_eq!(figure(&external, &values(&["40", "2"])), Look::Whole("q is the sum of 40, 2".into()));
        assert!(matches!(figure(&external, &[]), Look::Broken(_)));
        let object = wanted(json!({"type": "Object", "object": {"metric": {"name": "q"}}}));
        assert!(matches!(figure(&object, &values(&["1", "2"])), Look::Broken(_)));
    }
}
