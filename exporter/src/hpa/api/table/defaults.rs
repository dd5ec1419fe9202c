//! The metrics served unless configured otherwise, the leading signals first.

use std::collections::BTreeMap;

use super::{Entry, Smoothing};

/// Name, window, expression, help.
const DEFAULTS: &[(&str, f64, &str, &str)] = &[
    (
        "http_server_active_requests",
        5.0,
        "avg(http_server_active_requests)",
        "Requests being served, the mean of 5 s. Rises first when a workload is short of capacity.",
    ),
    (
        "http_server_requests_per_second",
        15.0,
        "rate(http_server_request_duration_seconds)",
        "Requests answered a second.",
    ),
    (
        "http_server_requests_per_second_fast",
        3.0,
        "rate(http_server_request_duration_seconds)",
        "The same over 3 s: a step of load to twice the target shows after some 3 s.",
    ),
    (
        "http_server_requests_per_second:{http_route}",
        15.0,
        "rate(http_server_request_duration_seconds)",
        "Requests of one route answered a second.",
    ),
    (
        "http_server_requests_per_second_per_pod",
        15.0,
        "rate(http_server_request_duration_seconds) / pods()",
        "The mean over the measured pods, for External and Object metrics with `target.type: Value`.",
    ),
    (
        "http_server_requests_per_second_hottest_pod",
        15.0,
        "pods_max(rate(http_server_request_duration_seconds))",
        "Of the pod that has most: shows load that is spread unevenly.",
    ),
    (
        "go_runqueue_latency_p99_milliseconds",
        15.0,
        "quantile(0.99, go_runqueue_latency_seconds) * 1000",
        "How long threads wait for a CPU, 99th percentile: the node or the CPU limit is short.",
    ),
    (
        "go_sched_latency_p99_milliseconds",
        15.0,
        "quantile(0.99, go_sched_latencies_seconds) * 1000",
        "How long goroutines wait to run, 99th percentile: GOMAXPROCS is short.",
    ),
    (
        "go_goroutines_runnable",
        5.0,
        "avg(go_sched_goroutines_runnable_goroutines)",
        "Goroutines that could run and wait for a processor.",
    ),
    ("go_goroutines_waiting", 5.0, "avg(go_goroutines_waiting)", "Goroutines that wait; choose by the label `reason`."),
    ("go_goroutines_waiting:{reason}", 5.0, "avg(go_goroutines_waiting)", "Goroutines that wait for one reason."),
    (
        "go_goroutines_blocked:{reason}",
        15.0,
        "rate(go_goroutine_blocked_seconds_sum)",
        "Seconds a second that goroutines were blocked for one reason, counted when they run again; where that is measured.",
    ),
    (
        "go_gc_cpu_percent",
        120.0,
        "100 * rate(go_cpu_classes_gc_total_cpu_seconds_total) / rate(process_cpu_seconds_total)",
        "Share of the process's CPU time that the garbage collector takes; the runtime tells of it once a collection.",
    ),
    ("process_cpu_cores", 15.0, "rate(process_cpu_seconds_total)", "CPUs in use."),
    (
        "process_cpu_gomaxprocs_percent",
        15.0,
        "100 * rate(process_cpu_seconds_total) / avg(go_sched_gomaxprocs_threads)",
        "CPU in use as a share of GOMAXPROCS.",
    ),
    (
        "process_cpu_limit_percent",
        15.0,
        "100 * rate(process_cpu_seconds_total) / last(go_cpu_limit_cores)",
        "CPU in use as a share of the CPU limit; of containers that have one.",
    ),
    (
        "go_cpu_throttled_periods_percent",
        30.0,
        "100 * rate(go_cpu_throttled_periods_total) / rate(go_cpu_periods_total)",
        "Share of the CPU limit's periods in which it was used up.",
    ),
    ("process_resident_memory_bytes", 5.0, "last(process_resident_memory_bytes)", "Resident memory."),
    (
        "go_memory_limit_percent",
        5.0,
        "100 * (last(go_memory_classes_total_bytes) - last(go_memory_classes_heap_released_bytes)) \
         / last(go_gc_gomemlimit_bytes)",
        "The runtime's memory as a share of GOMEMLIMIT, as the runtime counts it; 0 where there is no limit.",
    ),
    (
        "http_server_request_duration_p50_milliseconds",
        15.0,
        "quantile(0.5, http_server_request_duration_seconds) * 1000",
        "Latency, median.",
    ),
    (
        "http_server_request_duration_p95_milliseconds",
        15.0,
        "quantile(0.95, http_server_request_duration_seconds) * 1000",
        "Latency, 95th percentile.",
    ),
    (
        "http_server_request_duration_p99_milliseconds",
        15.0,
        "quantile(0.99, http_server_request_duration_seconds) * 1000",
        "Latency, 99th percentile.",
    ),
    (
        "http_server_request_duration_p99_milliseconds:{http_route}",
        15.0,
        "quantile(0.99, http_server_request_duration_seconds) * 1000",
        "Latency of one route, 99th percentile.",
    ),
    (
        "http_server_request_duration_mean_milliseconds",
        15.0,
        "1000 * rate(http_server_request_duration_seconds_sum) / rate(http_server_request_duration_seconds)",
        "Latency, mean; 0 while there are no requests.",
    ),
    (
        "http_server_slow_requests_percent",
        15.0,
        "100 * above(0.25, http_server_request_duration_seconds)",
        "Share of the requests that took longer than 250 ms; 0 while there are none.",
    ),
    (
        "http_server_errors_per_second",
        15.0,
        "rate(http_server_request_duration_seconds{http_response_status_code=~\"5..\"})",
        "Requests answered with 5xx a second.",
    ),
    (
        "http_server_errors_percent",
        15.0,
        "100 * rate(http_server_request_duration_seconds{http_response_status_code=~\"5..\"}) \
         / rate(http_server_request_duration_seconds)",
        "Share of the requests that were answered with 5xx; 0 while there are none.",
    ),
    (
        "http_server_client_errors_per_second",
        15.0,
        "rate(http_server_request_duration_seconds{http_response_status_code=~\"4..\"})",
        "Requests answered with 4xx a second.",
    ),
    (
        "http_server_too_many_requests_per_second",
        15.0,
        "rate(http_server_request_duration_seconds{http_response_status_code=\"429\"})",
        "Requests answered with 429 a second: the program itself says that it is full.",
    ),
    (
        "rpc_server_active_calls",
        5.0,
        "avg(rpc_server_active_calls)",
        "gRPC calls being served, open streams among them, the mean of 5 s.",
    ),
    ("rpc_server_requests_per_second", 15.0, "rate(rpc_server_call_duration_seconds)", "gRPC calls ended a second."),
    (
        "rpc_server_requests_per_second:{rpc_method}",
        15.0,
        "rate(rpc_server_call_duration_seconds)",
        "gRPC calls of one method ended a second.",
    ),
    (
        "rpc_server_errors_per_second",
        15.0,
        "rate(rpc_server_call_duration_seconds{rpc_response_status_code!=\"OK\"})",
        "gRPC calls ended with another status than OK a second.",
    ),
    (
        "rpc_server_call_duration_p50_milliseconds",
        15.0,
        "quantile(0.5, rpc_server_call_duration_seconds) * 1000",
        "Duration of gRPC calls, median.",
    ),
    (
        "rpc_server_call_duration_p95_milliseconds",
        15.0,
        "quantile(0.95, rpc_server_call_duration_seconds) * 1000",
        "Duration of gRPC calls, 95th percentile.",
    ),
    (
        "rpc_server_call_duration_p99_milliseconds",
        15.0,
        "quantile(0.99, rpc_server_call_duration_seconds) * 1000",
        "Duration of gRPC calls, 99th percentile.",
    ),
    ("measured_pods", 5.0, "pods()", "Pods that are measured."),
];

/// The default table, as configuration.
pub(crate) fn defaults() -> BTreeMap<String, Entry> {
    let entry = |(name, window, expression, help): &(&str, f64, &str, &str)| {
        let entry = Entry {
            expression: (*expression).to_owned(),
            window_seconds: *window,
            smoothing: Smoothing::None,
            help: (*help).to_owned(),
        };
        ((*name).to_owned(), entry)
    };
    DEFAULTS.iter().map(entry).collect()
}
