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
    use super::*;

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
}
