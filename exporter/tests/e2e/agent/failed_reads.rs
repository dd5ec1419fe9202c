//! A read of a kernel's map that fails in the middle is not taken for the truth: figures stay as the last good read had them, and
//! the agent says so.

use xtask::service::get;

use super::hostile::Ring;
use crate::support::{agent::Scrape, eventually, failing::Failing, settles};

/// More than one batch of a read.
const SERIES: u64 = 20 * 50;

fn stale_seconds(scrape: &Scrape, map: &str) -> f64 {
    let all = scrape.samples.iter().filter(|it| it.name == "exporter_map_stale_seconds" && it.label("map") == map);
    all.map(|it| it.value).sum()
}

fn errors(scrape: &Scrape, map: &str) -> u64 {
    let all = scrape.samples.iter().filter(|it| it.name == "exporter_map_read_errors_total" && it.label("map") == map);
    all.map(|it| it.value as u64).sum()
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "it knows the registers of amd64 alone")]
fn a_read_that_fails_in_the_middle_leaves_the_last_good_figures_and_is_told() {
    let ring = Ring::start(&[]);
    let (hostile, neighbour) = (ring.hostile.pid(), ring.neighbour.pid());
    ring.ask("/fill?routes=20&statuses=50");
    ring.is_unharmed();
    settles("each is counted", &(SERIES + 1), || ring.agent.scrape().total(hostile));
    let before = ring.agent.scrape();
    assert!(errors(&before, "series") == 0 && stale_seconds(&before, "series") <= 0.0);
    assert!(ring.agent.target(hostile).expect("it is a target").get("stale").is_none());
    let (of_hostile, of_neighbour) = (before.counts(hostile), before.counts(neighbour));

    let failing = Failing::of(ring.agent.pid());
    let mut stale = 0;
    eventually("five scrapes with what was known before", || {
        get(ring.neighbour.address("http").expect("it listens"), "/hello").expect("it lives");
        let scrape = ring.agent.scrape();
        assert!(
            scrape.counts(hostile) == of_hostile,
            "{} of {} series",
            scrape.counts(hostile).len(),
            of_hostile.len()
        );
        let now = scrape.counts(neighbour);
        for (series, count) in &of_neighbour {
            assert!(
                now.get(series).is_some_and(|now| now >= count),
                "{series:?} of {count} went to {:?}",
                now.get(series)
            );
        }
        assert_eq!(scrape.active(neighbour), Some(0));
        stale += u32::from(stale_seconds(&scrape, "series") > 0.0 && errors(&scrape, "series") > 0);
        (stale >= 5).then_some(())
    });
    let told = ring.agent.target(neighbour).expect("it is a target")["stale"].to_string();
    assert!(told.contains("the kernel's map series cannot be read"), "{told}");
    assert!(failing.failed() > 0);
    drop(failing);

    settles("all is there again", &of_hostile, || ring.agent.scrape().counts(hostile));
    ring.is_unharmed();
    let after = ring.agent.scrape();
    assert!(after.total(neighbour) > before.total(neighbour) && errors(&after, "series") >= 5);
    assert!(after.lost().is_empty(), "{:?}", after.lost());
    assert!(stale_seconds(&after, "series") <= 0.0);
    assert!(ring.agent.target(neighbour).expect("it is a target").get("stale").is_none());
}
