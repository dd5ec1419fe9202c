//! All ways in which net/http serves, and what clients may do to it: the program is its own client and says what was asked. Each
//! request is counted, once, with the status that was on the wire.

use serde::Deserialize;
use xtask::{go::Variant, service::get};

use crate::support::{Agent, agent::Counts, must_be_root, service, service_of, settles, start};

#[derive(Deserialize)]
struct Counted {
    method: String,
    status: u16,
    route: String,
    count: u64,
}

#[test]
fn every_way_to_serve() {
    must_be_root();
    for binary in [
        service("servers"),
        service_of("servers", "1.22", Variant::Strip),
        service_of("servers", "1.27", Variant::Strip),
    ] {
        let running = start(&binary, &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        let mut wanted = Counts::new();
        // Before and after what is only attached once it is needed.
        for round in ["first", "second"] {
            let told = get(running.address("http").expect("it listens"), "/run").expect("it gets the answers it wants");
            let told: Vec<Counted> = serde_json::from_str(&told).expect("it is JSON");
            for it in told {
                *wanted.entry((it.method, it.status, it.route)).or_default() += it.count;
            }
            settles(&format!("{round}, {}", binary.display()), &wanted, || agent.scrape().counts(running.pid()));
            settles("none is in flight", &Some(0), || agent.scrape().active(running.pid()));
            assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        }
        agent.stop();
    }
}
