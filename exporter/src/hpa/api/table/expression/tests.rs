use super::*;

fn value(text: &str) -> Option<f64> {
    Expression::parse(text).unwrap().evaluate(1, &mut |call, _| match call.family.as_str() {
        "two" => Some(2.0),
        "zero" => Some(0.0),
        _ => None,
    })
}

#[test]
fn products_bind_before_sums_and_division_by_nothing_is_nothing() {
    assert_eq!(value("1 + rate(two) * 3 - 4 / 2"), Some(5.0));
    assert_eq!(value("(1 + rate(two)) * 3"), Some(9.0));
    assert_eq!(value("rate(two) / rate(zero)"), Some(0.0));
    assert_eq!(value("rate(two) + rate(unknown)"), None);
}

#[test]
fn calls_carry_their_matchers() {
    let parsed = Expression::parse("quantile(0.99, f{http_route=\"/a b\", code=~\"5..\",x!=\"\"}) * 1000").unwrap();
    let call = parsed.calls()[0].clone();
    assert_eq!(call.function, Function::Quantile(0.99));
    assert_eq!(call.matchers.len(), 3);
    let labels = |route: &str, code: &str, x: &str| {
        [("http_route", route), ("code", code), ("x", x)].map(|(name, value)| (name.into(), value.into()))
    };
    let all = |labels: [(Box<str>, Box<str>); 3]| call.matchers.iter().all(|it| it.matches(&labels, |_| false));
    assert!(all(labels("/a b", "503", "1")));
    assert!(!all(labels("/a b", "403", "1")) && !all(labels("/a", "503", "1")) && !all(labels("/a b", "503", "")));
}

#[test]
fn pods_are_counted_and_looked_at_one_by_one() {
    let of_pods = |text: &str, each: &[Option<f64>]| {
        let value = &mut |_: &Call, pod: Option<usize>| match pod {
            Some(pod) => each[pod],
            None => Some(each.iter().flatten().sum()),
        };
        Expression::parse(text).unwrap().evaluate(each.len(), value)
    };
    let each = [Some(10.0), Some(70.0), None, Some(40.0)];
    assert_eq!(of_pods("pods()", &each), Some(4.0));
    assert_eq!(of_pods("rate(f) / pods()", &each[..2]), Some(40.0));
    assert_eq!(of_pods("pods_max(rate(f)) / 2", &each), Some(35.0));
    assert_eq!(of_pods("pods_mean(rate(f) + pods())", &each), Some(41.0));
    assert_eq!(of_pods("pods_min(rate(f))", &each), Some(10.0));
    assert_eq!(of_pods("pods_max(rate(f))", &[None]), None);
}

#[test]
fn what_adds_up() {
    let additive = |text| Expression::parse(text).unwrap().is_additive();
    assert!(additive("rate(f)") && additive("2 * rate(f) + avg(g) / 2"));
    assert!(!additive("quantile(0.5, f)") && !additive("rate(f) / rate(g)"));
    assert!(additive("pods()") && !additive("pods_max(rate(f))") && !additive("below(0.1, f)"));
    assert!(!additive("rate(f) / pods()"));
    // Whatever a constant is written as.
    assert!(additive("rate(f) / (2 * 30)") && additive("rate(f) * (1 / 60)") && !additive("(2 * 3) / rate(f)"));
    assert!(additive("rate(f) + 1") && additive("avg(f) - rate(g)") && !additive("rate(f) / rate(g) + 1"));
}

#[test]
fn some_pods_bound_from_below_what_only_grows() {
    let grows = |text| Expression::parse(text).unwrap().only_grows();
    for yes in
        ["rate(f)", "2 * rate(f) + avg(g) / 2 + 5", "rate(f) - 3", "pods()", "pods_max(rate(f))", "rate(f) * (3 - 1)"]
    {
        assert!(grows(yes), "{yes}");
    }
    for no in [
        "rate(f) - avg(g)",
        "5 - rate(f)",
        "rate(f) * (1 - 3)",
        "rate(f) / rate(g)",
        "quantile(0.5, f)",
        "pods_min(rate(f))",
    ] {
        assert!(!grows(no), "{no}");
    }
}

#[test]
fn what_says_nothing_of_pods_is_told() {
    let idle = |text| Expression::parse(text).unwrap().is_idle().unwrap_or_default();
    assert!(
        idle("rate(f) + pods_max(3)").contains("of figures") && idle("2 * (rate(f) / (1 - 1))").contains("always 0")
    );
    assert_eq!(idle("pods_mean(pods() + rate(f)) / 2"), "");
}

#[test]
fn errors_name_the_column() {
    let error = |text: &str| Expression::parse(text).unwrap_err().to_string();
    assert!(error("sum(f)").starts_with("column 1: \"sum\" is no function"));
    assert_eq!(error("rate(f"), "column 7: ) was expected");
    assert!(error("rate(f) rate(g)").starts_with("column 9:"));
    assert!(error("quantile(99, f)").contains("from 0 to 1"));
    assert!(error("rate()").contains("family"));
    assert!(error("rate(f{a=~\"(x\"})").contains("no pattern"));
    assert!(error("pods_max(pods_mean(rate(f)))").starts_with("column 10:"));
    assert!(error("below(f)").contains("number"));
    assert!(error("rate(f{a=\"x)").contains("closing"));
    for none in ["", "-1 * rate(f)", "2 *"] {
        assert!(error(none).contains("a number, a function or ( was expected"), "{none}");
    }
}
