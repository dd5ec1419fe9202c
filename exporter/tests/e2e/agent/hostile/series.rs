//! Series without end.

use std::collections::BTreeSet;

use super::Ring;
use crate::support::settles;

const OVERFLOW: (&str, u16, &str) = ("_OTHER", 0, "_overflow");

fn key(method: &str, status: u16, route: &str) -> (String, u16, String) {
    (method.to_owned(), status, route.to_owned())
}

#[test]
fn one_program_has_a_share_of_the_map() {
    // A quarter of this is a target's share.
    const MAX_SERIES: &str = "1024";
    const SHARE: u64 = 256;
    let ring = Ring::start(&["--max-series", MAX_SERIES]);
    let pid = ring.hostile.pid();
    ring.ask("/fill?routes=20&statuses=100");
    // With the request that asked for it, whose series is new too.
    let all = 20 * 100 + 1;
    settles("each is counted", &all, || ring.agent.scrape().total(pid));
    let scrape = ring.agent.scrape();
    let counts = scrape.counts(pid);
    assert_eq!(counts.len() as u64, SHARE + 1);
    let (method, status, route) = OVERFLOW;
    assert_eq!(counts[&key(method, status, route)], all - SHARE);
    assert_eq!(scrape.lost(), [format!("series_limit: {}", all - SHARE)]);
    // A series that is new now.
    ring.is_unharmed();
    let of_neighbour = ring.agent.scrape().counts(ring.neighbour.pid());
    assert_eq!(of_neighbour.into_keys().collect::<Vec<_>>(), [key("GET", 200, "/hello")]);
}

#[test]
fn a_full_map_costs_labels_and_no_count() {
    let ring = Ring::start(&["--max-series", "16"]);
    let pid = ring.hostile.pid();
    ring.ask("/fill?routes=5&statuses=10");
    settles("each is counted", &51, || ring.agent.scrape().total(pid));
    assert_eq!(ring.agent.scrape().counts(pid).len(), 16 + 1);
    // Its own overflow series.
    ring.is_unharmed();
    let scrape = ring.agent.scrape();
    let (method, status, route) = OVERFLOW;
    assert_eq!(scrape.counts(ring.neighbour.pid()).into_keys().collect::<Vec<_>>(), [key(method, status, route)]);
    let lost: BTreeSet<_> = scrape.lost().into_iter().collect();
    assert_eq!(lost, [format!("series_limit: {}", 51 - 16), "series_limit: 100".to_owned()].into());
}

#[test]
fn statuses_that_http_does_not_have_are_one() {
    let ring = Ring::start(&[]);
    ring.ask("/fill?statuses=400&from=600");
    let wanted = [(key("GET", 200, "/fill"), 1), (key("HEAD", 0, "/r0"), 400)].into();
    settles("400 statuses", &wanted, || ring.agent.scrape().counts(ring.hostile.pid()));
    ring.is_unharmed();
}
