//! What a pod's or namespace's annotations ask for. A value that cannot be used is a problem with a text for its author, and is
//! as if it were not there.

use std::{collections::BTreeMap, sync::Arc};

/// Whether the pod is measured: `true` or `false`. On a namespace: the default of its pods.
pub(super) const ENABLED: &str = "gopulse.io/enabled";
/// What is measured of it: names with commas between.
pub(super) const FEATURES: &str = "gopulse.io/features";
/// Which of its containers: names with commas between.
pub(super) const CONTAINERS: &str = "gopulse.io/containers";
/// Templates of its routes, one a line or with commas between.
pub(super) const ROUTES: &str = "gopulse.io/routes";
/// How much CPU time probes may cost it.
pub(super) const BUDGET: &str = "gopulse.io/budget";

/// Ours begin with this; one that is none of the above is a mistake.
const PREFIX: &str = "gopulse.io/";
const KNOWN: [&str; 5] = [ENABLED, FEATURES, CONTAINERS, ROUTES, BUDGET];

/// Characters of a value that a problem repeats.
const SHOWN: usize = 60;
/// Templates of one pod.
const MAX_TEMPLATES: usize = 100;
/// Segments of a template: what a path is folded to has no more.
const MAX_TEMPLATE: usize = 256;

/// Checks of values that other stations understand: what is wrong, if anything is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Of `gopulse.io/features`.
    pub(crate) features: fn(&str) -> Result<(), String>,
    /// Of `gopulse.io/budget`.
    pub(crate) budget: fn(&str) -> Result<(), String>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) enabled: Option<bool>,
    /// As it was written, and found good.
    pub(super) features: Option<Arc<str>>,
    /// None: all of them.
    pub(super) containers: Option<Vec<String>>,
    pub(super) routes: Vec<String>,
    /// As it was written, and found good.
    pub(super) budget: Option<Arc<str>>,
}

/// Reads a pod's annotations. `containers` are the names of its containers.
pub(super) fn of_pod(
    annotations: &BTreeMap<String, String>,
    containers: &[&str],
    checks: Checks,
    problems: &mut Vec<String>,
) -> Asked {
    let get = |key: &str| annotations.get(key).map(|value| value.trim());
    for key in annotations.keys().filter(|key| key.starts_with(PREFIX) && !KNOWN.contains(&key.as_str())) {
        problems.push(format!("annotation {} is none of gopulse's: {}", shown(key), KNOWN.join(", ")));
    }
    let mut checked = |key: &str, check: fn(&str) -> Result<(), String>| {
        let value = get(key)?;
        match check(value) {
            Ok(()) => Some(Arc::from(value)),
            Err(reason) => {
                problems.push(format!("annotation {key}: {reason}"));
                None
            }
        }
    };
    let features = checked(FEATURES, checks.features);
    let budget = checked(BUDGET, checks.budget);
    Asked {
        enabled: enabled(annotations, problems),
        features,
        budget,
        containers: get(CONTAINERS).and_then(|value| names(value, containers, problems)),
        routes: get(ROUTES).map(|value| templates(value, problems)).unwrap_or_default(),
    }
}

/// Reads `gopulse.io/enabled` of a pod or a namespace.
pub(super) fn enabled(annotations: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Option<bool> {
    let value = annotations.get(ENABLED)?;
    match value.trim() {
        "true" => Some(true),
        "false" => Some(false),
        _ => {
            problems.push(format!("annotation {ENABLED} is {}: it must be \"true\" or \"false\"", shown(value)));
            None
        }
    }
}

/// Names that the pod has; none if that leaves none.
fn names(value: &str, known: &[&str], problems: &mut Vec<String>) -> Option<Vec<String>> {
    let asked: Vec<&str> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if asked.is_empty() {
        problems.push(format!("annotation {CONTAINERS} names no container"));
        return None;
    }
    if let Some(wrong) = asked.iter().find(|name| !known.contains(name)) {
        problems.push(format!(
            "annotation {CONTAINERS}: the pod has no container {}, it has {}",
            shown(wrong),
            known.join(", ")
        ));
        return None;
    }
    Some(asked.into_iter().map(str::to_owned).collect())
}

fn templates(value: &str, problems: &mut Vec<String>) -> Vec<String> {
    let asked: Vec<&str> = value.split([',', '\n']).map(str::trim).filter(|it| !it.is_empty()).collect();
    if asked.len() > MAX_TEMPLATES {
        problems.push(format!("annotation {ROUTES} has {} templates: {MAX_TEMPLATES} is the most", asked.len()));
        return Vec::new();
    }
    if let Some(wrong) = asked.iter().find(|it| !it.starts_with('/') || it.len() > MAX_TEMPLATE) {
        problems.push(format!(
            "annotation {ROUTES}: {} is no template: it must begin with / and have at most {MAX_TEMPLATE} bytes, as \
             /users/{{id}} or /files/{{path...}}",
            shown(wrong)
        ));
        return Vec::new();
    }
    asked.into_iter().map(str::to_owned).collect()
}

/// A value as a message may repeat it: whoever writes an annotation chooses its length and its bytes.
fn shown(value: &str) -> String {
    let short: String = value.chars().take(SHOWN).collect();
    let more = if short.len() < value.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS: Checks = Checks {
        features: |text| if text == "http" { Ok(()) } else { Err(format!("{text:?} is no feature")) },
        budget: |_| Ok(()),
    };

    fn read(pairs: &[(&str, &str)]) -> (Asked, Vec<String>) {
        let annotations = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut problems = Vec::new();
        let asked = of_pod(&annotations, &["app", "proxy"], CHECKS, &mut problems);
        (asked, problems)
    }

    #[test]
    fn good_values_are_taken() {
        let (asked, problems) = read(&[
            ("gopulse.io/enabled", " true "),
            ("gopulse.io/features", "http"),
            ("gopulse.io/containers", "app, proxy"),
            ("gopulse.io/routes", "/users/{id}\n/files/{path...}, /a/*"),
            ("gopulse.io/budget", "1%"),
            ("other.io/enabled", "maybe"),
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(asked.enabled, Some(true));
        assert_eq!(asked.features.as_deref(), Some("http"));
        assert_eq!(asked.containers, Some(vec!["app".to_owned(), "proxy".to_owned()]));
        assert_eq!(asked.routes, ["/users/{id}", "/files/{path...}", "/a/*"]);
        assert_eq!(asked.budget.as_deref(), Some("1%"));
        assert_eq!(read(&[]), (Asked::default(), Vec::new()));
    }

    #[test]
    fn a_bad_value_is_told_and_is_as_if_it_were_not_there() {
        for (key, value, expect) in [
            ("gopulse.io/enabled", "yes", "is \"yes\": it must be \"true\" or \"false\""),
            ("gopulse.io/enabled", "", "it must be"),
            ("gopulse.io/features", "htpp", "\"htpp\" is no feature"),
            ("gopulse.io/containers", "ap", "no container \"ap\", it has app, proxy"),
            ("gopulse.io/containers", " , ", "names no container"),
            ("gopulse.io/routes", "users/{id}", "\"users/{id}\" is no template"),
            ("gopulse.io/enable", "true", "\"gopulse.io/enable\" is none of gopulse's: gopulse.io/enabled"),
        ] {
            let (asked, problems) = read(&[(key, value)]);
            assert_eq!(asked, Asked::default(), "{key}");
            assert_eq!(problems.len(), 1, "{key}");
            assert!(problems[0].contains(expect), "{}", problems[0]);
        }
    }

    #[test]
    fn hostile_values_stay_short() {
        let long = "x".repeat(200_000);
        for key in KNOWN {
            let (_, problems) = read(&[(key, &long)]);
            assert!(key == FEATURES || problems.iter().all(|text| text.len() < 400), "{key}");
        }
        let many = "/a,".repeat(5000);
        assert!(read(&[("gopulse.io/routes", &many)]).0.routes.is_empty());
    }
}
