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

    /// Whether requests could come through both. What is in doubt may take those of any path.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        other.doubt.is_some() || self.paths.iter().any(|it| other.paths.iter().any(|other| it.meets(other)))
    }

    /// With what comes in another way.
    pub(crate) fn join(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.doubt = self.doubt.take().or(other.doubt);
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

/// Which rules of an Ingress.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hosts<'a> {
    /// All.
    All,
    /// Those for this host.
    Only(&'a str),
    /// The others, and where requests go that fit no rule.
    Others(&'a str),
}

impl Hosts<'_> {
    fn has(self, rule: &Value) -> bool {
        let host = rule.get("host").and_then(Value::as_str);
        match self {
            Self::All => true,
            Self::Only(only) => host == Some(only),
            Self::Others(only) => host != Some(only),
        }
    }
}

/// Why the rules for a host are not all that takes its requests, or there are none.
pub(crate) fn has_host(ingress: &Value, host: &str) -> Result<(), String> {
    let hosts = || array(ingress.pointer("/spec/rules")).map(|it| it.get("host").and_then(Value::as_str).unwrap_or(""));
    if hosts().any(|it| it == host) {
        return Ok(());
    }
    // `*.example.com` is of one label more (networking/v1, IngressRule).
    let covers = |rule: &str| {
        let parent = host.split_once('.').map_or("", |(_, parent)| parent);
        rule.is_empty() || rule.strip_prefix("*.").is_some_and(|it| it == parent)
    };
    let mut shown: Vec<&str> = hosts().map(|it| if it.is_empty() { "any host" } else { it }).collect();
    shown.sort_unstable();
    shown.dedup();
    Err(match hosts().find(|it| covers(it)) {
        Some(rule) => format!(
            "host {host} has no rules of its own, and those for {} take other hosts' requests as well",
            if rule.is_empty() { "any host" } else { rule }
        ),
        None => format!("it has no rules for host {host}, but for {}", shown.join(", ")),
    })
}

/// Services that an Ingress' rules send requests to.
pub(crate) fn of_ingress(ingress: &Value, annotations: &BTreeMap<String, String>, hosts: Hosts<'_>) -> Services {
    let mut services = Services::new();
    let name = |backend: &Value| Some(backend.pointer("/service/name")?.as_str()?.to_owned());
    let spec = ingress.get("spec").unwrap_or(&Value::Null);
    let default = spec.get("defaultBackend").filter(|_| !matches!(hosts, Hosts::Only(_)));
    if let Some(service) = default.and_then(name) {
        services.entry(service).or_default().paths.push(Path { path: "/".into(), exact: false });
    }
    let rules = array(spec.get("rules")).filter(|rule| hosts.has(rule));
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

/// Services of its namespace that an HTTPRoute or a GRPCRoute sends requests to, and why those are not all that it sends them to.
pub(crate) fn of_route(route: &Value, namespace: &str) -> (Services, Option<String>) {
    let (mut services, mut outside) = (Services::new(), None);
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
                outside = Some(format!("it sends requests to {kind} {name}: pods of Services alone are known"));
                continue;
            }
            if let Some(other) = text("namespace").filter(|it| *it != namespace) {
                outside = Some(format!(
                    "it sends requests to Service {name} of namespace {other}: only pods of its own are asked for"
                ));
                continue;
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
    (services, outside)
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

/// Namespaces and names of the Gateways that a route names as its parents.
pub(crate) fn gateways_of<'a>(route: &'a Value, namespace: &'a str) -> Vec<(&'a str, &'a str)> {
    let parents = array(route.pointer("/spec/parentRefs")).filter_map(|parent| {
        let text = |key: &str| parent.get(key).and_then(Value::as_str);
        (text("kind").unwrap_or("Gateway") == "Gateway").then_some(())?;
        Some((text("namespace").unwrap_or(namespace), text("name")?))
    });
    parents.collect()
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
