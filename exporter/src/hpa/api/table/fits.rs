//! Whether an expression's calls fit the families there are: what no figure can have would be 0 for ever. Pure.

use super::{
    expression::{Call, Function, Matcher, Test},
    name::Name,
};
use crate::hpa::{families::Family, wire::Kind};

const STATUS: &str = "http_response_status_code";
const METHOD: &str = "http_request_method";

/// Why a function does not fit a kind of family; none where it does.
pub(super) fn misuse(call: &Call, kind: Kind) -> Option<String> {
    let fits = match call.function {
        Function::Rate => kind != Kind::Gauge,
        Function::Quantile(_) | Function::Below(_) | Function::Above(_) => kind == Kind::Histogram,
        Function::Last | Function::Avg | Function::Max => kind == Kind::Gauge,
    };
    (!fits).then(|| format!("{call} does not fit a {kind:?}"))
}

/// Whether there is what a call names, in a metric of this name.
pub(super) fn check(call: &Call, names: &Name) -> Result<(), String> {
    let family = Family::find(&call.family)?;
    if let Some(misuse) = misuse(call, family.kind) {
        return Err(misuse);
    }
    let labels = call.matchers.iter().map(|it| it.label.as_str()).chain(names.labels());
    if let Some(lacks) = labels.into_iter().find_map(|it| family.lacks(it)) {
        return Err(lacks);
    }
    matchers_fit(&call.matchers)?;
    let (Function::Below(bound) | Function::Above(bound)) = call.function else { return Ok(()) };
    match family.bounds {
        Some(bounds) if bounds.contains(&bound) => Ok(()),
        Some(bounds) => {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            Err(format!(
                "how much of {} is below {bound} is known at the bounds of its buckets alone: {}",
                family.name,
                bounds.join(", ")
            ))
        }
        None => Err(format!("the buckets of {} are each program's own: use quantile", family.name)),
    }
}

/// Whether some label can fulfil them.
fn matchers_fit(matchers: &[Matcher]) -> Result<(), String> {
    for Matcher { label, test } in matchers {
        // One that counts without method and status, as past a limit, has them empty.
        let may_be = |value: &str| match label.as_str() {
            STATUS => value.is_empty() || (value.len() == 3 && value.bytes().all(|it| it.is_ascii_digit())),
            METHOD => value == "_OTHER" || !value.bytes().any(|it| it.is_ascii_lowercase()),
            _ => true,
        };
        match test {
            Test::Equal(value) | Test::NotEqual(value) if !may_be(value) => {
                let right = if label == STATUS {
                    "a status is as \"503\"; a class is =~\"5..\""
                } else {
                    "methods are in upper case, as \"GET\""
                };
                return Err(format!("no figure has {label} {value:?}: {right}"));
            }
            Test::Matches(pattern) | Test::MatchesNot(pattern) if label == STATUS => {
                let any = (100..1000).any(|it: u16| pattern.matches(&it.to_string())) || pattern.matches("");
                if !any {
                    return Err(format!("no status matches {:?}: a class of them is as =~\"5..\"", pattern.text()));
                }
            }
            Test::Equal(value) => {
                let is_other =
                    |it: &&Matcher| it.label == *label && matches!(&it.test, Test::Equal(other) if other != value);
                if matchers.iter().any(|it| is_other(&it)) {
                    return Err(format!("no figure has two values of {label}: give =~\"one|other\""));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Table};

    const REQUESTS: &str = "http_server_request_duration_seconds";

    fn error(name: &str, yaml: &str) -> String {
        let entry: Entry = serde_norway::from_str(yaml).unwrap();
        Table::new(&[(name.to_owned(), entry)].into())
            .and_then(Table::fitting)
            .map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn what_no_figures_have_is_refused_with_what_was_meant() {
        let f = REQUESTS;
        let refused = |expression: &str| error("m", &format!("expression: '{expression}'"));
        assert!(refused("rate(http_server_request_duration_second)").contains("did you mean"));
        assert!(refused(&format!("rate({f}{{http_rute=\"/\"}})")).contains("did you mean \"http_route\"?"));
        assert!(refused(&format!("rate({f}{{container=\"a\"}})")).contains("no label \"container\""));
        assert!(refused("quantile(0.5, http_server_active_requests)").contains("does not fit a Gauge"));
        assert!(refused(&format!("avg({f})")).contains("does not fit a Histogram"));
        assert!(refused(&format!("below(0.3, {f})")).contains("0.25, 0.5"));
        assert!(refused("above(0.001, go_sched_latencies_seconds)").contains("use quantile"));
        assert!(error("m:{reason}", &format!("expression: rate({f})")).contains("no label \"reason\""));
        assert!(error("m:{reason}", "expression: pods()").contains("family"));
    }

    #[test]
    fn what_says_nothing_of_pods_is_refused() {
        assert!(error("m", &format!("expression: rate({REQUESTS}) + pods_max(3)")).contains("are of figures"));
        assert!(error("m", &format!("expression: rate({REQUESTS}) / (2 - 2)")).contains("always 0"));
    }

    #[test]
    fn values_that_no_label_has_are_refused() {
        let of = |matchers: &str| error("m", &format!("expression: 'rate({REQUESTS}{{{matchers}}})'"));
        let status = "http_response_status_code";
        for (wrong, words) in [
            (format!("{status}=\"5..\""), "a class is =~"),
            (format!("{status}=\"5xx\""), "a class is =~"),
            (format!("{status}!=\"5xx\""), "a class is =~"),
            (format!("{status}=~\"5xx\""), "no status matches \"5xx\""),
            (format!("{status}=~\"50\""), "no status matches"),
            ("http_request_method=\"get\"".to_owned(), "upper case"),
            ("http_route=\"/a\",http_route=\"/b\"".to_owned(), "two values of http_route"),
        ] {
            assert!(of(&wrong).contains(words), "{wrong}: {}", of(&wrong));
        }
        for right in [
            format!("{status}=~\"5..|429\""),
            format!("{status}=\"\""),
            format!("{status}!~\"2..|3..\",http_route=~\"/api/.*\",http_request_method=\"_OTHER\""),
            "http_route=\"/a\",http_route!=\"/b\"".to_owned(),
        ] {
            assert_eq!(of(&right), "", "{right}");
        }
    }
}
