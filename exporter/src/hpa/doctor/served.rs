//! Who serves a metrics API, and whether the aggregation layer reaches it. Pure.

use serde_json::Value;

use crate::hpa::known::Known;

pub(super) const CUSTOM: &str = "custom.metrics.k8s.io";
pub(super) const EXTERNAL: &str = "external.metrics.k8s.io";

/// Whose server it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Gopulse,
    Keda,
    /// Another adapter: namespace and name of its Service.
    Other(String),
    /// It may not be read.
    Hidden,
}

/// A version of a metrics API.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) group: &'static str,
    pub(super) version: String,
    pub(super) owner: Owner,
    /// The APIService with its Service, for people.
    pub(super) shown: String,
}

impl Served {
    /// By an APIService.
    pub(super) fn of(group: &'static str, version: &str, service: &Value) -> Self {
        let (namespace, name) = reference(service);
        let owner = if name.contains("gopulse") {
            Owner::Gopulse
        } else if name.contains("keda") {
            Owner::Keda
        } else {
            Owner::Other(format!("{namespace}/{name}"))
        };
        let shown = format!("{version}.{group} (Service {namespace}/{name})");
        Self { group, version: version.to_owned(), owner, shown }
    }
}

impl Served {
    /// Of whom nothing may be read.
    pub(super) fn hidden(group: &'static str, version: &str) -> Self {
        Self { group, version: version.to_owned(), owner: Owner::Hidden, shown: format!("{version}.{group}") }
    }
}

/// Namespace and name of an APIService's Service.
pub(super) fn reference(service: &Value) -> (&str, &str) {
    let reference = &service["spec"]["service"];
    (reference["namespace"].as_str().unwrap_or_default(), reference["name"].as_str().unwrap_or_default())
}

/// Why an APIService is not available, and what to do; `now` is what the API server says when it is asked to pass a question on,
/// if that fails, and `service` the Service, if it is there.
pub(super) fn unavailable(api_service: &Value, now: Option<&str>, service: Option<&Value>) -> Option<String> {
    let (namespace, of) = reference(api_service);
    let conditions = api_service["status"]["conditions"].as_array().into_iter().flatten();
    let available = conditions.into_iter().find(|it| it["type"] == "Available");
    let said = |key: &str| available.and_then(|it| it[key].as_str()).unwrap_or_default().to_owned();
    let (mut reason, mut message) = (said("reason"), said("message"));
    if available.is_some_and(|it| it["status"] == "True") {
        // The condition may be of before.
        (reason, message) = ("although its condition says so".to_owned(), now?.to_owned());
    }
    let families = service.map(|it| &it["spec"]["ipFamilies"]);
    let advice = if message.contains("x509") || message.contains("certificate") {
        "its caBundle is not that of the server's certificate; gopulse metrics-api writes it itself, if its ServiceAccount may patch apiservices (see its log)".to_owned()
    } else if reason == "ServiceNotFound" || message.contains("not found") {
        format!(
            "there is no Service {of} in namespace {namespace}: the server is gone, or was installed elsewhere; remove the APIService or install it again"
        )
    } else if reason == "MissingEndpoints" || reason == "EndpointsNotFound" {
        format!("the Service has no ready pods: see `kubectl get pods -n {namespace}`")
    } else if families.and_then(Value::as_array).is_some_and(|it| *it == ["IPv6"]) {
        "the control plane cannot reach the Service's pods. Their addresses are IPv6 alone: the server must listen on [::] (`address: \"[::]:6443\"` of gopulse metrics-api), not on 0.0.0.0".to_owned()
    } else {
        "the control plane cannot reach the Service's pods: a firewall or NetworkPolicy between the API server and port 6443, or the server does not answer".to_owned()
    };
    Some(format!("is not available: {reason} {message}: {advice}"))
}

/// Whether a server may have a metric that its APIResourceList does not show: of the metrics-api's names that stand for one of
/// each route or reason those are listed that there are requests of, and of those a part.
pub(super) fn may_have(owner: &Owner, list: &Value, metric: &str, known: &Known) -> bool {
    lists(list, metric) || (*owner == Owner::Gopulse && known.is_one_of_several(metric))
}

/// Whether an APIResourceList has a metric, of whatever object.
pub(super) fn lists(list: &Value, metric: &str) -> bool {
    let names = list["resources"].as_array().into_iter().flatten().filter_map(|it| it["name"].as_str());
    names.into_iter().any(|name| name.split_once('/').map_or(name, |it| it.1) == metric)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn api_service(name: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"spec": {"service": {"namespace": "keda", "name": name}},
            "status": {"conditions": [{"type": "Available", "status": status, "reason": reason, "message": message}]}})
    }

    #[test]
    fn the_owner_is_known_by_the_service() {
        let owner = |name: &str| Served::of(EXTERNAL, "v1beta1", &api_service(name, "True", "", "")).owner;
        assert_eq!(owner("keda-operator-metrics-apiserver"), Owner::Keda);
        assert_eq!(owner("gopulse-metrics-api"), Owner::Gopulse);
        assert_eq!(owner("prometheus-adapter"), Owner::Other("keda/prometheus-adapter".into()));
    }

    #[test]
    fn why_it_is_not_available() {
        let why = |status: &str, reason: &str, message: &str, now: Option<&str>, service: Option<&Value>| {
            unavailable(&api_service("a", status, reason, message), now, service).unwrap_or_default()
        };
        assert_eq!(why("True", "Passed", "", None, None), "");
        assert!(why("True", "Passed", "", Some("x509: unknown authority"), None).contains("caBundle"));
        assert!(why("False", "ServiceNotFound", "", None, None).contains("no Service a in namespace keda"));
        assert!(why("False", "MissingEndpoints", "", None, None).contains("no ready pods"));
        assert!(why("False", "FailedDiscoveryCheck", "timeout", None, None).contains("firewall"));
        let v6 = json!({"spec": {"ipFamilies": ["IPv6"]}});
        assert!(why("False", "FailedDiscoveryCheck", "connection refused", None, Some(&v6)).contains("listen on [::]"));
    }

    #[test]
    fn discovery_lists_by_object_or_by_name() {
        let list =
            json!({"resources": [{"name": "pods/rps"}, {"name": "deployments.apps/rps"}, {"name": "externalmetrics"}]});
        assert_eq!(["rps", "externalmetrics", "pods", "qps"].map(|it| lists(&list, it)), [true, true, false, false]);
    }

    #[test]
    fn the_metrics_api_may_have_more_of_a_template_than_it_lists() {
        let (list, known) = (json!({"resources": [{"name": "pods/rps"}]}), Known::of(None));
        let route = "http_server_requests_per_second:x..checkout";
        let may = |owner: &Owner, metric: &str| may_have(owner, &list, metric, &known);
        assert!(may(&Owner::Gopulse, "rps") && may(&Owner::Gopulse, route));
        // A value that is not spelled as `--encode` spells it, and names of no template.
        let no = ["http_server_requests_per_second", "http_server_requests_per_second:x._zz", "rps:x..checkout"];
        assert_eq!(no.map(|it| may(&Owner::Gopulse, it)), [false; 3]);
        assert!(!may(&Owner::Other("a/b".into()), route));
    }
}
