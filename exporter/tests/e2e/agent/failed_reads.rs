//! A read of a kernel's map that fails in the middle is not taken for the truth: figures are absent from that scrape, and none goes
//! back.

use xtask::service::get;

use super::hostile::Ring;
use crate::support::{agent::Scrape, eventually, failing::Failing, settles};

/// More than one batch of a read.
const SERIES: u64 = 20 * 50;

fn errors(scrape: &Scrape, map: &str) -> u64 {
    let all = scrape.samples.iter().filter(|it| it.name == "exporter_map_read_errors_total" && it.label("map") == map);
    all.map(|it| it.value as u64).sum()
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "it knows the registers of amd64 alone")]
fn a_read_that_fails_in_the_middle_is_absent_and_no_counter_goes_back() {
    let ring = Ring::start(&[]);
    let (hostile, neighbour) = (ring.hostile.pid(), ring.neighbour.pid());
    ring.ask("/fill?routes=20&statuses=50");
    ring.is_unharmed();
    settles("each is counted", &(SERIES + 1), || ring.agent.scrape().total(hostile));
    let before = ring.agent.scrape();
    assert_eq!(errors(&before, "series"), 0);
    let (of_hostile, of_neighbour) = (before.counts(hostile), before.counts(neighbour));

    let failing = Failing::of(ring.agent.pid());
    let mut absent = 0;
    eventually("five scrapes without what could not be read", || {
        get(ring.neighbour.address("http").expect("it listens"), "/hello").expect("it lives");
        let scrape = ring.agent.scrape();
        let now = scrape.counts(hostile);
        assert!(now.is_empty() || now == of_hostile, "a part is shown: {} of {} series", now.len(), of_hostile.len());
        for (series, count) in scrape.counts(neighbour) {
            assert!(count >= of_neighbour.get(&series).copied().unwrap_or(0), "{series:?} went back to {count}");
        }
        absent += u32::from(now.is_empty() && errors(&scrape, "series") > 0);
        (absent >= 5).then_some(())
    });
    assert!(failing.failed() > 0);
    drop(failing);

    settles("all is there again", &of_hostile, || ring.agent.scrape().counts(hostile));
    ring.is_unharmed();
    let after = ring.agent.scrape();
    assert!(after.total(neighbour) > before.total(neighbour) && errors(&after, "series") >= 5);
    assert!(after.lost().is_empty(), "{:?}", after.lost());
}
