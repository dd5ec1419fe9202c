//! What Ingresses and routes of the Gateway API send to which Services, and what of it can be told by a program's own routes:
//! a path that is rewritten, a regular expression, a header leave no trace there. Pure: objects in, paths out.

use std::collections::BTreeMap;

use serde_json::Value;

/// Signs that make a path of a pathType of the controller's own a pattern.
const PATTERN: [char; 13] = ['*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\'];

/// A path that requests take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// As requests have it.
    pub(crate) path: String,
    /// Whether nothing below it is meant.
    pub(crate) exact: bool,
}

/// Whether requests of a route come through a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Yes,
    No,
    /// Some may.
    Perhaps,
}

impl Path {
    /// Whether everything comes through it.
    pub(crate) fn is_all(&self) -> bool {
        !self.exact && self.path.trim_end_matches('/').is_empty()
    }

    /// Whether requests of a route come through it. What a route has in braces, or after `:` or `*`, stands for any text.
    pub(crate) fn takes(&self, route: &str) -> Takes {
        if self.is_all() {
            return Takes::Yes;
        }
        // A host before the path of a pattern stays in the route.
        let Some(start) = route.find('/') else { return Takes::No };
        let route = &route[start..];
        let segments = |text: &str| -> Vec<String> {
            text.trim_matches('/').split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
        };
        let (path, parts) = (segments(&self.path), segments(route));
        let all_below = |it: &String| it == "**" || it.ends_with("...}") || (it.starts_with('*') && it.len() > 1);
        let mut perhaps = false;
        for (index, wanted) in path.iter().enumerate() {
            match parts.get(index) {
                Some(part) if all_below(part) => return Takes::Perhaps,
                Some(part) if part == wanted => {}
                Some(part) if part.contains(['{', '*']) || part.starts_with(':') => perhaps = true,
                _ => return Takes::No,
            }
        }
        let more = parts.len() > path.len();
        match (self.exact && more, perhaps) {
            (true, _) if parts.get(path.len()).is_some_and(all_below) => Takes::Perhaps,
            (true, _) => Takes::No,
            (false, true) => Takes::Perhaps,
            (false, false) if self.exact && self.path.ends_with('/') != route.ends_with('/') => Takes::No,
            (false, false) => Takes::Yes,
        }
    }

    /// Whether some request could come through both.
    fn meets(&self, other: &Self) -> bool {
        self.takes(&other.path) != Takes::No || other.takes(&self.path) != Takes::No
    }
}

/// What comes to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaches {
    /// Through which paths.
    pub(crate) paths: Vec<Path>,
    /// Why these do not tell which of a program's requests it is.
    pub(crate) doubt: Option<String>,
}

impl Reaches {
    /// Why it cannot be told which of the Service's requests come so; none where it can.
    pub(crate) fn unknowable(&self) -> Option<&str> {
        if self.paths.iter().any(Path::is_all) { None } else { self.doubt.as_deref() }
    }

    /// Whether requests could come through both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.paths.iter().any(|it| other.paths.iter().any(|other| it.meets(other)))
    }

    fn doubt(&mut self, why: impl FnOnce() -> String) {
        self.doubt.get_or_insert_with(why);
    }
}

/// By name of Service.
pub(crate) type Services = BTreeMap<String, Reaches>;

/// Annotations by which a controller changes paths, or reads them as patterns, by how they end; with the value where only one does.
const REWRITES: [(&str, Option<&str>); 14] = [
    ("/rewrite-target", None),
    ("/use-regex", Some("true")),
    ("/app-root", None),
    ("/configuration-snippet", None),
    ("/server-snippet", None),
    ("/rewrites", None),
    ("/path-rewrite", None),
    ("/request-redirect", None),
    ("/backend-path-prefix", None),
    ("/strip-path", Some("true")),
    ("/rewrite", None),
    ("/path-regex", Some("true")),
    ("/router.middlewares", None),
    ("/rule-type", None),
];

/// Services that an Ingress sends requests to.
pub(crate) fn of_ingress(ingress: &Value, annotations: &BTreeMap<String, String>) -> Services {
    let mut services = Services::new();
    let name = |backend: &Value| Some(backend.pointer("/service/name")?.as_str()?.to_owned());
    let spec = ingress.get("spec").unwrap_or(&Value::Null);
    if let Some(service) = spec.get("defaultBackend").and_then(name) {
        services.entry(service).or_default().paths.push(Path { path: "/".into(), exact: false });
    }
    let rules = spec.get("rules").and_then(Value::as_array).into_iter().flatten();
    for rule in rules.filter_map(|rule| rule.pointer("/http/paths")?.as_array()).flatten() {
        let Some(service) = rule.get("backend").and_then(name) else { continue };
        let kind = rule.get("pathType").and_then(Value::as_str).unwrap_or("ImplementationSpecific");
        let path = rule.get("path").and_then(Value::as_str).unwrap_or("/").to_owned();
        let reaches = services.entry(service).or_default();
        if kind == "ImplementationSpecific" && path.contains(PATTERN) {
            reaches.doubt(|| format!("its path {path} may be a pattern (pathType ImplementationSpecific)"));
        }
        reaches.paths.push(Path { path, exact: kind == "Exact" });
    }
    let changes = |(name, value): (&String, &String)| {
        REWRITES.iter().any(|(end, only)| name.ends_with(end) && only.is_none_or(|only| only == value))
    };
    if let Some((annotation, _)) = annotations.iter().find(|it| changes(*it)) {
        let why = || format!("its annotation {annotation} may change paths on the way, or have them read as patterns");
        for reaches in services.values_mut() {
            reaches.doubt(why);
        }
    }
    services
}

/// Services that an HTTPRoute or a GRPCRoute sends requests to; else why it cannot be told.
pub(crate) fn of_route(route: &Value, namespace: &str) -> Result<Services, String> {
    let mut services = Services::new();
    for rule in array(route.pointer("/spec/rules")) {
        let (paths, mut doubt) = paths_of(rule);
        let filters =
            array(rule.get("filters")).chain(array(rule.get("backendRefs")).flat_map(|it| array(it.get("filters"))));
        for filter in filters {
            if filter.pointer("/urlRewrite/path").is_some()
                || filter.get("type").and_then(Value::as_str) == Some("ExtensionRef")
            {
                doubt.get_or_insert_with(|| "a filter of its rules may change paths on the way".to_owned());
            }
        }
        for backend in array(rule.get("backendRefs")) {
            let text = |key: &str| backend.get(key).and_then(Value::as_str);
            let (kind, name) = (text("kind").unwrap_or("Service"), text("name").unwrap_or_default());
            if kind != "Service" || !text("group").unwrap_or_default().is_empty() {
                return Err(format!("it sends requests to {kind} {name}: pods of Services alone are known"));
            }
            if let Some(other) = text("namespace").filter(|it| *it != namespace) {
                return Err(format!(
                    "it sends requests to Service {name} of namespace {other}: only pods of its own are asked for"
                ));
            }
            if backend.get("weight").and_then(Value::as_u64) == Some(0) {
                continue;
            }
            let reaches = services.entry(name.to_owned()).or_default();
            reaches.paths.extend(paths.iter().cloned());
            if let Some(why) = &doubt {
                reaches.doubt(|| why.clone());
            }
        }
    }
    Ok(services)
}

/// Paths of a rule's matches, and why they do not say it all. A match by more than its path takes not all of it.
fn paths_of(rule: &Value) -> (Vec<Path>, Option<String>) {
    let all = || Path { path: "/".into(), exact: false };
    let (mut paths, mut doubt) = (Vec::new(), None);
    for matched in array(rule.get("matches")) {
        let text = |pointer: &str| matched.pointer(pointer).and_then(Value::as_str);
        let some = |key: &str| matched.get(key).is_some_and(|it| it.as_array().is_none_or(|it| !it.is_empty()));
        let grpc = matched.get("method").is_some_and(Value::is_object);
        let by_more = some("headers") || some("queryParams") || (!grpc && some("method"));
        let kind = text(if grpc { "/method/type" } else { "/path/type" });
        if by_more {
            doubt = Some("its rules choose by more than the path".to_owned());
        } else if kind == Some("RegularExpression") {
            doubt = Some("its rules have regular expressions".to_owned());
        } else if grpc {
            match (text("/method/service"), text("/method/method")) {
                (Some(service), Some(method)) => paths.push(Path { path: format!("/{service}/{method}"), exact: true }),
                (Some(service), None) => paths.push(Path { path: format!("/{service}"), exact: false }),
                _ => doubt = Some("its rules choose methods of any service".to_owned()),
            }
        } else {
            let path = text("/path/value").unwrap_or("/").to_owned();
            paths.push(Path { path, exact: kind == Some("Exact") });
        }
    }
    if paths.is_empty() && doubt.is_none() {
        paths.push(all());
    }
    (paths, doubt)
}

/// Whether a route names this Gateway as its parent.
pub(crate) fn is_child_of(route: &Value, route_namespace: &str, gateway: &str, namespace: &str) -> bool {
    array(route.pointer("/spec/parentRefs")).any(|parent| {
        let text = |key: &str| parent.get(key).and_then(Value::as_str);
        text("kind").unwrap_or("Gateway") == "Gateway"
            && text("name") == Some(gateway)
            && text("namespace").unwrap_or(route_namespace) == namespace
    })
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prefix(path: &str) -> Path {
        Path { path: path.into(), exact: false }
    }

    fn exact(path: &str) -> Path {
        Path { path: path.into(), exact: true }
    }

    fn backend(name: &str) -> Value {
        json!({"service": {"name": name, "port": {"number": 80}}})
    }

    #[test]
    fn a_path_takes_routes_below_it_and_is_in_doubt_where_a_wildcard_stands_for_its_text() {
        for (path, route, takes) in [
            (prefix("/"), "", Takes::Yes),
            (prefix("/"), "/anything", Takes::Yes),
            (prefix("/api"), "/api", Takes::Yes),
            (prefix("/api/"), "/api/items/{id}", Takes::Yes),
            (prefix("/api"), "shop.example/api/items", Takes::Yes),
            (prefix("/api"), "/apis", Takes::No),
            (prefix("/api/v1"), "/api", Takes::No),
            (prefix("/api"), "", Takes::No),
            (prefix("/acme"), "/{tenant}/orders", Takes::Perhaps),
            (prefix("/acme"), "/:tenant/orders", Takes::Perhaps),
            (prefix("/acme"), "/{path...}", Takes::Perhaps),
            (prefix("/acme"), "/*path", Takes::Perhaps),
            (prefix("/acme"), "/**", Takes::Perhaps),
            (prefix("/a/b"), "/{x}/c", Takes::No),
            (prefix("/a/b"), "/{x}/b/c", Takes::Perhaps),
            (exact("/login"), "/login", Takes::Yes),
            (exact("/login"), "/login/x", Takes::No),
            (exact("/login"), "/login/", Takes::No),
            (exact("/login"), "/{page}", Takes::Perhaps),
            (exact("/login"), "/login/{rest...}", Takes::Perhaps),
        ] {
            assert_eq!(path.takes(route), takes, "{path:?} {route}");
        }
    }

    #[test]
    fn an_ingress_sends_by_path_and_says_where_that_cannot_be_told() {
        let ingress = json!({"spec": {
            "defaultBackend": backend("web"),
            "rules": [{"http": {"paths": [
                {"path": "/api", "pathType": "Prefix", "backend": backend("api")},
                {"path": "/login", "pathType": "Exact", "backend": backend("web")},
                {"path": "/shop(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend("shop")},
                {"path": "/plain", "pathType": "ImplementationSpecific", "backend": backend("plain")},
            ]}}],
        }});
        let services = of_ingress(&ingress, &BTreeMap::new());
        assert_eq!(services["api"], Reaches { paths: vec![prefix("/api")], doubt: None });
        assert_eq!(services["web"].paths.len(), 2);
        assert!(services["shop"].unknowable().unwrap().contains("pattern"));
        assert_eq!(services["plain"].unknowable(), None);
        for (annotation, value, doubted) in [
            ("nginx.ingress.kubernetes.io/rewrite-target", "/$2", true),
            ("nginx.ingress.kubernetes.io/use-regex", "true", true),
            ("nginx.ingress.kubernetes.io/use-regex", "false", false),
            ("haproxy.org/path-rewrite", "/foo/(.*) /\\1", true),
            ("konghq.com/strip-path", "true", true),
            ("traefik.ingress.kubernetes.io/router.middlewares", "shop-strip@kubernetescrd", true),
            ("nginx.org/rewrites", "serviceName=api rewrite=/", true),
            ("nginx.ingress.kubernetes.io/proxy-body-size", "8m", false),
        ] {
            let annotations = [(annotation.to_owned(), value.to_owned())].into();
            let services = of_ingress(&ingress, &annotations);
            assert_eq!(services["api"].unknowable().is_some(), doubted, "{annotation}");
            assert_eq!(services["web"].unknowable(), None, "all that comes to it is meant, whatever its path");
        }
    }

    #[test]
    fn routes_of_the_gateway_api_send_by_path() {
        let route = |rules: Value| of_route(&json!({"spec": {"rules": rules}}), "shop");
        let to = |matches: Value| {
            route(json!([{"matches": matches, "backendRefs": [{"name": "api"}]}])).unwrap()["api"].clone()
        };
        assert_eq!(to(json!([])).paths, [prefix("/")]);
        let paths =
            json!([{"path": {"type": "PathPrefix", "value": "/api"}}, {"path": {"type": "Exact", "value": "/x"}}]);
        assert_eq!(to(paths), Reaches { paths: vec![prefix("/api"), exact("/x")], doubt: None });
        assert!(to(json!([{"path": {"type": "RegularExpression", "value": "/a.*"}}])).unknowable().is_some());
        assert!(
            to(json!([{"path": {"value": "/a"}, "headers": [{"name": "x", "value": "y"}]}])).unknowable().is_some()
        );
        assert!(to(json!([{"path": {"value": "/a"}, "method": "GET"}])).unknowable().is_some());
        let grpc =
            json!([{"method": {"service": "shop.Orders", "method": "Get"}}, {"method": {"service": "shop.Carts"}}]);
        assert_eq!(to(grpc).paths, [exact("/shop.Orders/Get"), prefix("/shop.Carts")]);
        assert!(to(json!([{"method": {"method": "Get"}}])).unknowable().is_some());

        let rewritten = json!([{"matches": [{"path": {"value": "/a"}}], "backendRefs": [{"name": "api"}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch"}}}]}]);
        assert!(route(rewritten).unwrap()["api"].unknowable().unwrap().contains("filter"));
        let split = json!([{"backendRefs": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}, {"name": "c", "weight": 0}]}]);
        assert_eq!(route(split).unwrap().into_keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(
            route(json!([{"backendRefs": [{"name": "a", "namespace": "other"}]}]))
                .unwrap_err()
                .contains("namespace other")
        );
        assert!(
            route(json!([{"backendRefs": [{"name": "a", "kind": "ServiceImport"}]}]))
                .unwrap_err()
                .contains("ServiceImport")
        );
    }

    #[test]
    fn paths_that_share_requests_meet_and_parents_are_found() {
        let one = |path: Path| Reaches { paths: vec![path], doubt: None };
        assert!(one(prefix("/")).meets(&one(prefix("/api"))) && one(prefix("/api")).meets(&one(exact("/api"))));
        assert!(!one(prefix("/api")).meets(&one(prefix("/web"))));
        let route = json!({"spec": {"parentRefs": [{"name": "edge"}, {"name": "other", "namespace": "infra"}]}});
        assert!(is_child_of(&route, "shop", "edge", "shop") && is_child_of(&route, "shop", "other", "infra"));
        assert!(!is_child_of(&route, "shop", "edge", "infra") && !is_child_of(&route, "shop", "other", "shop"));
    }
}
