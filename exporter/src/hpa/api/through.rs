//! What of pods' figures cannot be told apart though it is asked for: what came by an Ingress' path, where the program's own routes
//! do not say, and a route that may have been counted with others. Pure.

use std::collections::BTreeSet;

use super::{
    evaluate::{is_meant, of_container},
    objects::{Path, Takes},
    selector::{Requirement, Selector, Test},
    store::PodView,
    table::{Metric, ROUTE, expression::Call},
};
use crate::hpa::families::Family;

/// The route that an agent counts requests under whose own are more than `max_routes`.
const OVERFLOW: &str = "_overflow";

/// Why a metric of these pods would be a guess; none where it is not.
pub(crate) fn unknowable(metric: &Metric, pods: &[PodView<'_>], selector: &Selector) -> Option<String> {
    by_path(metric, pods, selector).or_else(|| by_route(metric, pods, selector))
}

fn by_path(metric: &Metric, pods: &[PodView<'_>], selector: &Selector) -> Option<String> {
    let mut below: Vec<(&[Path], Routes)> = Vec::new();
    for pod in pods {
        let Some(paths) = pod.paths.as_deref().filter(|it| !it.iter().any(Path::is_all)) else { continue };
        for call in metric.expression.calls() {
            if Family::find(&call.family).is_ok_and(|it| !it.labels.contains(&ROUTE)) {
                return Some(format!(
                    "{} has no routes, by which what comes through a path could be told",
                    call.family
                ));
            }
            let routes = Routes::of(pod, call, selector);
            match below.iter_mut().find(|(known, _)| *known == paths) {
                Some((_, known)) => known.join(routes),
                None => below.push((paths, routes)),
            }
        }
    }
    below.into_iter().find_map(|(paths, routes)| by_paths(paths, &routes))
}

/// Why requests of these routes cannot be told to have come through these paths.
fn by_paths(paths: &[Path], routes: &Routes) -> Option<String> {
    let shown =
        || paths.iter().map(|it| it.path.as_str()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    let takes = |route: &str, what: Takes| paths.iter().any(|it| it.takes(route) == what);
    let perhaps = routes.meant.iter().find(|it| takes(it, Takes::Perhaps) && !takes(it, Takes::Yes));
    if let Some(route) = perhaps {
        return Some(format!(
            "the program's route {route} has a wildcard where the path ({}) has a text: which of its requests came through is \
             not known",
            shown()
        ));
    }
    let none = !routes.meant.is_empty() && !routes.all.iter().any(|it| takes(it, Takes::Yes));
    none.then(|| {
        let others = routes.meant.iter().map(|it| if it.is_empty() { "without a route" } else { it }).take(3);
        format!(
            "no request came by a route below the path ({}), but others did ({}): is the path rewritten or cut \
             (http.StripPrefix) on the way? 0 would be a guess",
            shown(),
            others.collect::<Vec<_>>().join(", ")
        )
    })
}

/// A route that is asked for may be among those that were too many.
fn by_route(metric: &Metric, pods: &[PodView<'_>], selector: &Selector) -> Option<String> {
    let wanted = selector.0.iter().find(|it| it.key == ROUTE)?;
    let Test::In(values) = &wanted.test else { return None };
    let only = Selector(vec![Requirement { key: ROUTE.to_owned(), test: Test::In(values.clone()) }]);
    if values.iter().any(|it| it == OVERFLOW) {
        return None;
    }
    let without = Selector(selector.0.iter().filter(|it| it.key != ROUTE).cloned().collect());
    for pod in pods {
        for call in metric.expression.calls() {
            let routes = Routes::of(pod, call, &without).all;
            let known = routes.iter().any(|route| only.matches(|_| Some(route)));
            if !known && routes.iter().any(|it| it == OVERFLOW) {
                return Some(format!(
                    "a pod has more routes than max_routes, and none {}: its requests may be counted under {OVERFLOW}",
                    values.join(" or ")
                ));
            }
        }
    }
    None
}

/// Routes of series; empty where one has none.
#[derive(Debug, Default)]
struct Routes {
    /// Of all.
    all: BTreeSet<String>,
    /// Of those that a metric is made from.
    meant: BTreeSet<String>,
}

impl Routes {
    fn of(pod: &PodView<'_>, call: &Call, selector: &Selector) -> Self {
        let mut routes = Self::default();
        for container in pod.containers.iter().filter(|it| of_container(selector, it)) {
            for series in container.series(&call.family) {
                let labels = &series.labels.0;
                let route =
                    labels.iter().find(|(name, _)| **name == *ROUTE).map_or(String::new(), |it| it.1.to_string());
                if is_meant(call, selector, container, labels) {
                    routes.meant.insert(route.clone());
                }
                routes.all.insert(route);
            }
        }
        routes
    }

    fn join(&mut self, mut other: Self) {
        self.all.append(&mut other.all);
        self.meant.append(&mut other.meant);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::hpa::{
        api::{
            Config,
            evaluate::evaluate,
            store::{Kept, Store},
        },
        wire::{self, Frame},
    };

    fn why(path: &str, meant: &[&str], others: &[&str]) -> Option<String> {
        let owned = |routes: &[&str]| routes.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
        let (meant, others) = (owned(meant), owned(others));
        let all = meant.union(&others).cloned().collect();
        by_paths(&[Path { path: path.into(), exact: false }], &Routes { all, meant })
    }

    #[test]
    fn what_came_through_a_path_is_told_by_the_programs_routes_or_not_at_all() {
        assert_eq!(why("/shop", &["/shop/cart", "/other", ""], &[]), None);
        assert_eq!(why("/shop", &[], &[]), None, "nothing came at all: 0");
        assert_eq!(why("/shop", &[], &["/healthz"]), None, "probes alone: 0");
        assert_eq!(
            why("/shop", &["/other"], &["/shop/cart"]),
            None,
            "paths are not cut on the way: 0 of what is chosen"
        );
        assert!(why("/acme", &["/acme", "/{tenant}/orders"], &[]).unwrap().contains("/{tenant}/orders has a wildcard"));
        assert!(why("/shop", &["/cart", "/orders/{id}"], &["/healthz"]).unwrap().contains("StripPrefix"));
        assert!(why("/shop", &[""], &[]).unwrap().contains("without a route"));
    }

    /// Two pods, each with so many requests of some routes in the second between two frames.
    fn store(pods: [&[(&str, u64)]; 2]) -> (Store, Instant) {
        let mut store = Store::new(Kept { others: Duration::from_secs(31), ..Kept::default() });
        let begun = Instant::now();
        let name = "http_server_request_duration_seconds".to_owned();
        let family = wire::Family { id: 1, name, kind: wire::Kind::Histogram.into(), bounds: vec![0.1, 0.25] };
        let mut frame = Frame { unix_ms: 1_000_000, first: true, families: vec![family], ..Frame::default() };
        let mut counted = Vec::new();
        for (pod, routes) in pods.iter().enumerate() {
            let id = 10 + pod as u32;
            let (pod, families) = (format!("pod-{pod}"), vec![1]);
            frame.containers.push(wire::Container {
                id,
                namespace: "shop".into(),
                pod,
                container: "app".into(),
                families,
                ..wire::Container::default()
            });
            for (route, count) in *routes {
                let series = 100 + frame.series.len() as u32;
                let labels = vec![ROUTE.to_owned(), (*route).to_owned()];
                frame.series.push(wire::Series { id: series, container: id, family: 1, labels });
                let sample =
                    |count| wire::Sample { series, buckets: vec![0], counts: vec![count], ..wire::Sample::default() };
                frame.samples.push(sample(0));
                counted.push(sample(*count));
            }
        }
        let agent = Arc::from("node");
        store.apply(&agent, &frame, begun).unwrap();
        let now = begun + Duration::from_secs(1);
        store.apply(&agent, &Frame { unix_ms: 1_001_000, samples: counted, ..Frame::default() }, now).unwrap();
        (store, now)
    }

    /// What the default table says of a metric of both pods, whole: a value, or why there is none.
    fn ask(pods: [&[(&str, u64)]; 2], metric: &str, selector: &str, path: Option<&str>) -> Result<f64, String> {
        let (store, now) = store(pods);
        let table = Config::default().table().unwrap();
        let (metric, chosen) = table.find(metric).ok_or("no metric")?;
        let mut selector = Selector::parse(selector).unwrap().of_figures().unwrap();
        selector.0.extend(chosen);
        let paths: Option<Arc<[Path]>> = path.map(|path| [Path { path: path.into(), exact: false }].into());
        let view = |pod| PodView { paths: paths.clone(), ..store.pod("shop", pod, now).unwrap() };
        let views = [view("pod-0"), view("pod-1")];
        if let Some(why) = unknowable(metric, &views, &selector) {
            return Err(why);
        }
        evaluate(metric, &views, &selector).map(|it| it.value.round()).ok_or_else(|| "unknown".to_owned())
    }

    #[test]
    fn values_of_routes_and_of_pods() {
        const RPS: &str = "http_server_requests_per_second";
        let pods: [&[(&str, u64)]; 2] =
            [&[("/orders/{id}", 30), ("/healthz", 5)], &[("/orders/{id}", 10), ("/cart", 20)]];
        let ask = |metric: &str, selector: &str, path: Option<&str>| ask(pods, metric, selector, path);
        assert_eq!(ask(RPS, "", None), Ok(60.0), "without probes");
        assert_eq!(ask(RPS, "http_route=x..healthz", None), Ok(5.0), "probes, for who wants them");
        assert_eq!(ask(&format!("{RPS}:x..healthz"), "", None), Ok(5.0));
        assert_eq!(ask(RPS, "http_route=x..orders._7bid_7d", None), Ok(40.0));
        assert_eq!(ask(&format!("{RPS}:x..orders._7bid_7d"), "", None), Ok(40.0));
        assert_eq!(ask(&format!("{RPS}:x..nowhere"), "", None), Ok(0.0));
        assert_eq!(ask(&format!("{RPS}_per_pod"), "", None), Ok(30.0));
        assert_eq!(ask(&format!("{RPS}_hottest_pod"), "http_route!=x..cart", None), Ok(30.0));
        assert_eq!(ask("measured_pods", "", None), Ok(2.0));
        assert_eq!(ask("http_server_slow_requests_percent", "", None), Ok(0.0));
        assert_eq!(ask(RPS, "", Some("/cart")), Ok(20.0));
        assert!(ask(RPS, "", Some("/orders/7")).unwrap_err().contains("wildcard"));
        assert!(ask(RPS, "", Some("/admin")).unwrap_err().contains("StripPrefix"));
        assert!(ask("http_server_active_requests", "", Some("/cart")).unwrap_err().contains("no routes"));
    }

    #[test]
    fn a_route_that_may_be_among_too_many_is_not_0() {
        const CART: &str = "http_server_requests_per_second:x..cart";
        let full: &[(&str, u64)] = &[("/cart", 20), ("_overflow", 7)];
        assert_eq!(ask([full, full], CART, "", None), Ok(40.0));
        let without: &[(&str, u64)] = &[("/orders", 20), ("_overflow", 7)];
        assert!(ask([full, without], CART, "", None).unwrap_err().contains("max_routes"));
        assert_eq!(ask([full, without], "http_server_requests_per_second:x._5foverflow", "", None), Ok(14.0));
    }
}
