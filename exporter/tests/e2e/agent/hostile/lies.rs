//! Requests whose fields are not what they say: each is counted, nothing of another's memory is shown, and nobody is harmed.

use std::collections::BTreeMap;

use xtask::{exposition, service::get};

use super::Ring;
use crate::support::settles;

#[test]
fn requests_full_of_lies() {
    let ring = Ring::start(&[]);
    let pid = ring.hostile.pid();
    // Nothing, a word, the end of what a program may have, beyond it, the kernel's, and the last byte there is.
    let addresses = ["0", "8", "4096", "140737488351232", "140737488355328", "-4294967296", "-1"];
    let lengths = ["0", "1", "127", "128", "1048576", "4611686018427387904", "-1"];
    let mut asked = 0;
    for of in ["method", "pattern", "path", "uri"] {
        for address in addresses {
            for length in lengths {
                assert_eq!(ring.ask(&format!("/lie?of={of}&address={address}&length={length}")).trim(), "done");
                asked += 1;
            }
        }
        ring.is_unharmed();
    }
    for address in addresses {
        assert_eq!(ring.ask(&format!("/lie?of=url&address={address}")).trim(), "done");
        asked += 1;
    }
    settles("each is counted", &asked, || ring.agent.scrape().total(pid));
    let text = get(ring.agent.address, "/metrics").expect("/metrics answers");
    let samples = exposition::parse(&text);
    let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in samples.iter().filter(|it| it.name == "exporter_lost_total" && it.value > 0.0) {
        assert_eq!(sample.label("instance_pid"), pid.to_string());
        *lost.entry(sample.label("reason")).or_default() += sample.value as u64;
    }
    println!("    {asked} asked, {lost:?}");
    assert_eq!(lost.keys().copied().collect::<Vec<_>>(), ["memory_unreadable"]);
    for sample in samples.iter().filter(|it| it.label("instance_pid") == pid.to_string()) {
        let route = sample.label("http_route");
        assert!(route.is_empty() || route == "/lie" || route == "_overflow", "{route}");
    }
    ring.is_unharmed();
}
