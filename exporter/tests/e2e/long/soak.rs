//! Must show 8: a service whose goroutines' stacks grow and move, whose memory the collector takes at once, under load,
//! while agents come and go.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{Agent, checksum, kernel_complaints, load, must_be_root, service, service_of, start};
use xtask::go::Variant;

/// How long: GOPULSE_SOAK_SECONDS, or 5 minutes.
fn duration() -> Duration {
    let seconds = std::env::var("GOPULSE_SOAK_SECONDS").map_or(300, |text| {
        text.parse().unwrap_or_else(|_| panic!("GOPULSE_SOAK_SECONDS is a number of seconds, and not `{text}`"))
    });
    Duration::from_secs(seconds)
}

#[test]
fn soak() {
    must_be_root();
    let before = kernel_complaints();
    let mut services =
        [service("edge"), service_of("edge", "1.17", Variant::Strip)].map(|binary| start(&binary, &["-gogc", "1"]));
    let seconds = format!("{}s", duration().as_secs());
    let mix: Vec<String> = [(200_u64, 40), (5_000, 10), (60_000, 1)]
        .map(|(depth, weight)| format!("GET /deep?depth={depth} 200 /deep {weight} body={}", checksum(depth)))
        .into_iter()
        .chain(
            [
                "GET /ok 200 /ok 20 body=ok",
                "GET /silent 200 /silent 5 body=",
                "GET /panic-before 0 /panic-before 2",
                "GET /goexit 0 /goexit 1",
                "POST /body 200 /body 5 send=abc body=3",
                "GET /big?bytes=20000 200 /big 2",
                "GET /hijack 200 /hijack 1 body=hijacked",
            ]
            .map(str::to_owned),
        )
        .collect();
    let mix: Vec<&str> = mix.iter().map(String::as_str).collect();
    let until = Instant::now() + duration();
    let mut rounds = 0_u32;
    let mut counted = 0;
    thread::scope(|scope| {
        let loads = services.each_ref().map(|running| {
            let address = running.address("http").expect("it listens").to_string();
            let (seconds, mix) = (&seconds, &mix);
            scope.spawn(move || load(&["-address", &address, "-duration", seconds, "-c", "16"], mix))
        });
        while Instant::now() < until {
            let method = ["uprobe-multi", "perf-event"][rounds as usize % 2];
            let agent = Agent::start(&["--executable", "edge-*", "--attach", method]);
            for running in &services {
                agent.wait_measured(running.pid());
            }
            thread::sleep(Duration::from_millis(500 + 700 * u64::from(rounds % 4)));
            let scrape = agent.scrape();
            counted += services.each_ref().map(|running| scrape.total(running.pid())).iter().sum::<u64>();
            agent.stop();
            rounds += 1;
        }
        // `load` has asserted that no answer was wrong.
        let reports = loads.map(|load| load.join().expect("the load generator ran"));
        let total: u64 = reports.iter().map(|report| report.total).sum();
        println!("{total} right answers, {counted} counted, while {rounds} agents came and went in {seconds}");
    });
    for running in &mut services {
        assert!(running.is_alive(), "a service has crashed");
    }
    assert!(counted > 0);
    let new: Vec<_> = kernel_complaints().difference(&before).cloned().collect();
    assert_eq!(new, Vec::<String>::new(), "the kernel complains");
}
