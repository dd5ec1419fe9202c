//! A service that brings its own HTTP/2, golang.org/x/net/http2: over TLS by ConfigureServer, in the clear by h2c.NewHandler.

use crate::support::{Agent, agent::counted_by_service, load, must_be_root, service_of, settles, start};
use xtask::go::Variant;

const MIX: [&str; 6] = [
    "GET /hello 200 /hello 5",
    "GET /items/{n} 200 /items/{id} 3",
    "GET /items/0 404 /items/{id} 1",
    "POST /items 201 /items 2",
    "GET /silent 200 /silent 1",
    "GET /fail 500 /fail 1",
];

#[test]
fn http2_of_golang_org_x_net() {
    must_be_root();
    for variant in [Variant::Default, Variant::Strip] {
        let running = start(&service_of("xnet", "local", variant), &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        for (mode, kind) in [("h1", "http"), ("h2", "https"), ("h2c", "h2c")] {
            let address = running.address(kind).expect("it listens").to_string();
            load(&["-mode", mode, "-address", &address, "-n", "3000", "-c", "16", "-s", "4"], &MIX);
        }
        let own = counted_by_service(&running);
        assert_eq!(own.values().sum::<u64>(), 9000);
        settles("x/net's requests, and no preface among them", &own, || agent.scrape().counts(running.pid()));
        agent.stop();
        println!("x/net/http2, {}: 9000 requests equal", variant.name());
    }
}
