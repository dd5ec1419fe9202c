use super::*;
use crate::hpa::api::Config;

const REQUESTS: &str = "http_server_request_duration_seconds";

fn entry(yaml: &str) -> Entry {
    serde_norway::from_str(yaml).unwrap()
}

fn error(name: &str, yaml: &str) -> String {
    Table::new(&[(name.to_owned(), entry(yaml))].into()).and_then(Table::fitting).unwrap_err().to_string()
}

#[test]
fn the_default_table_is_valid_and_keeps_half_a_minute() {
    let table = Table::new(&defaults()).unwrap();
    assert_eq!(table.kept().families["http_server_request_duration_seconds"], Duration::from_secs(16));
    assert!(table.get("http_server_requests_per_second").unwrap().is_additive());
    assert!(!table.get("http_server_request_duration_p99_milliseconds").unwrap().is_additive());
}

#[test]
fn the_page_in_the_book_is_the_table() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/hpa/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let now = Config::default().table().unwrap().markdown();
    assert_eq!(page, now, "write it anew: gopulse metrics-api --table > docs/src/hpa/metrics.md");
}

#[test]
fn mistakes_are_named_with_their_metric() {
    let f = REQUESTS;
    assert!(error("a b", &format!("expression: rate({f})")).contains("letters"));
    assert!(error("m", "expression: rate(f").contains("metric m: expression \"rate(f\", column 7"));
    assert!(error("m", "expression: '3'").contains("no family"));
    assert!(error("m", &format!("{{expression: rate({f}), window_seconds: 0}}")).contains("window_seconds"));
    assert!(error("m", &format!("{{expression: rate({f}), smoothing: {{ewma: {{alpha: 2}}}}}}")).contains("alpha"));
    assert!(Table::new(&BTreeMap::new()).unwrap_err().to_string().contains("default"));
}

#[test]
fn a_name_stands_for_each_route_and_for_nothing_else() {
    let table = Table::new(&defaults()).unwrap();
    let (metric, chosen) = table.find("http_server_requests_per_second:x..orders._7bid_7d").unwrap();
    assert_eq!(metric.name, "http_server_requests_per_second:{http_route}");
    assert_eq!(Selector(chosen), Selector::parse("http_route=/orders/{id}").unwrap());
    assert!(table.find("http_server_requests_per_second").unwrap().1.is_empty());
    assert!(table.find("http_server_requests_per_second:").is_none());
    // As it is declared it is no metric, and least of all that of a route of this name, which would be 0.
    assert!(table.template("http_server_requests_per_second:{http_route}").is_some());
    assert!(table.template("http_server_requests_per_second").is_none());
    let rate = entry(&format!("expression: rate({REQUESTS})"));
    let both = [("m:{http_route}".to_owned(), rate.clone()), ("m:{http_request_method}".to_owned(), rate)].into();
    assert!(Table::new(&both).unwrap_err().to_string().contains("in common"));
}

#[test]
fn figures_are_not_chosen_by_labels_that_they_do_not_have() {
    let table = Table::new(&defaults()).unwrap();
    let refuses =
        |metric: &str, selector: &str| table.get(metric).unwrap().refuses(&Selector::parse(selector).unwrap());
    assert_eq!(refuses("http_server_requests_per_second", "http_route=/,container=app"), None);
    assert!(refuses("http_server_active_requests", "http_route=/").unwrap().contains("no label"));
    assert!(refuses("http_server_requests_per_second", "http_rout=/").unwrap().contains("did you mean"));
}

#[test]
fn requests_of_probes_are_left_out_where_nobody_names_a_route() {
    let entries = [
        ("all".to_owned(), entry(&format!("expression: rate({REQUESTS})"))),
        ("one".to_owned(), entry(&format!("expression: 'rate({REQUESTS}{{http_route!=\"/x\"}})'"))),
        ("active".to_owned(), entry("expression: avg(http_server_active_requests)")),
    ];
    let table = Table::new(&entries.into()).unwrap().excluding(&["/healthz".to_owned()]);
    let matchers = |name: &str| table.get(name).unwrap().expression.calls()[0].matchers.len();
    assert_eq!((matchers("all"), matchers("one"), matchers("active")), (1, 1, 0));
    let labels = [(Box::from("http_route"), Box::from("/healthz"))];
    let calls = table.get("all").unwrap().expression.calls();
    assert!(!calls[0].matchers[0].matches(&labels, |_| false) && calls[0].matchers[0].matches(&labels, |_| true));
    assert!(table.markdown().contains("`/healthz`"));
}
