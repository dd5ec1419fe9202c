use std::time::Duration;

use super::*;
use crate::hpa::api::testing::Known;

#[test]
fn a_listener_that_comes_late_knows_what_one_from_the_beginning_knows() {
    let pods = Pods { count: 3, namespaces: 1, rate: 50.0, routes: 2, runtime: true };
    let group = Group::new(&pods);
    let mut state = group.state.lock().unwrap();
    let (mut early, mut late) = (Known::new(), Known::new());
    let mut now = Instant::now();
    early.apply(&state.first(&pods, 7), now);
    for second in 0..40 {
        now += Duration::from_secs(1);
        let mut frame = state.step();
        frame.unix_ms += second * 1000;
        early.apply(&frame, now);
        if second == 10 {
            let first = Frame { unix_ms: frame.unix_ms, ..state.first(&pods, 7) };
            late.apply(&first, now);
        } else if second > 10 {
            late.apply(&frame, now);
        }
    }
    for expression in [
        "rate(http_server_request_duration_seconds)",
        "quantile(0.99, go_sched_latencies_seconds)",
        "avg(go_goroutines_waiting)",
        "rate(process_cpu_seconds_total)",
        "last(go_gc_gomemlimit_bytes)",
    ] {
        let ask = |known: &Known| known.ask_of("ns-0", expression, "pod-7-2", now);
        assert!(ask(&early).is_some_and(|it| it > 0.0), "{expression}");
        assert_eq!(ask(&early), ask(&late), "{expression}");
    }
}
