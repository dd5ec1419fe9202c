use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, SeriesKey},
};

use instruments::{Known, describe};

use super::{contract::Kind, *};
use crate::{
    kubernetes::WatchFigures,
    process::{FileId, Image, Inode, Process, ProcessId},
    runtime::{Buckets, Figure, GcSummary, Goroutines, Reading, Waiting},
    target::Labels,
};

fn snapshot(series: usize) -> Arc<Snapshot> {
    let inode = Inode { device: 1, number: 2 };
    let process = Process {
        device: 1,
        id: ProcessId { pid: 7, image: Image::default(), inode },
        file: FileId { inode, modified_ns: 3, changed_ns: 0, size: 4 },
        executable: PathBuf::from("/srv/a \"quoted\" \\ name\n"),
    };
    let target = Labels::of_process(&process);
    let mut value = Durations::ZERO;
    value.buckets[0] = 2;
    value.buckets[7] = 1;
    value.buckets[20] = 1;
    value.sum_ns = 12_000_000_000;
    let of = |key: SeriesKey, text: Option<String>, value| {
        let family = Family::of_number(key.family).unwrap();
        let facts = Known { text: text.map(Into::into), second: None, go_minor: 27 };
        Series { target: target.clone(), family, labels: describe(family).labels(&key, &facts), value }
    };
    let get = SeriesKey { verb: 1, ..SeriesKey::of(Family::HttpServer, 1, 200) };
    let requests = (0..series).map(|i| of(get, Some(format!("/r{i}")), value));
    let others = Family::ALL.iter().filter(|it| **it != Family::HttpServer);
    let others = others.map(|family| of(SeriesKey::of(*family, 1, 404), Some("a:80".to_owned()), Durations::ZERO));
    let series = requests.chain(others).collect();
    let info = contract::GO_TARGET_INFO.labels.iter().map(|name| (*name, "x".to_owned())).collect();
    let figures = TargetFigures {
        target: target.clone(),
        open: instruments::ALL.iter().flat_map(|it| it.open).map(|it| (it.desc.name, 3)).collect(),
        probes: 5,
        probe_figures: vec![ProbeFigures { probes: "blocking", hits: 2, cpu_seconds: 0.5, sampled_ratio: 1.0 }],
        blocked_functions: vec![("main.main".to_owned(), 0.5)],
        run_queue: Some(RunQueueFigures {
            involuntary_switches: Some(1),
            periods: Some(2),
            throttled_periods: Some(1),
            throttled_seconds: Some(0.5),
            cpu_limit: Some(1.5),
        }),
        info,
    };
    let lost = vec![Lost { target: Some(target), reason: "route_limit", count: 9 }];
    let agent = AgentFigures {
        attach_method: "uprobe-multi",
        targets: vec![("measured", 1)],
        events: vec![("exec", 4)],
        maps: vec![MapFigures { name: "series".into(), entries: Some(1), capacity: 2, bytes: 3, failed_reads: 0 }],
        stale_maps: vec![("series", 1.5)],
        cpu_seconds: Some(0.5),
        resident_bytes: Some(1),
        kubernetes: Some(WatchFigures { pods: 1, watches: vec![("pods", true, 0)], events: vec![("written", 1)] }),
        runtime_reads: vec![("read", 3)],
        ..AgentFigures::default()
    };
    let runtimes = vec![runtime_figures(&figures.target)];
    Arc::new(Snapshot { series, targets: vec![figures], runtimes, lost, agent, ..Snapshot::default() })
}

/// All that a runtime can show.
fn runtime_figures(target: &Labels) -> RuntimeFigures {
    let mut reading = Reading::default();
    for figure in Figure::ALL {
        reading.figures.set(*figure, 1.5);
    }
    let buckets = Buckets { bounds: &[0.25, 1.0], counts: [1, 2, 3].into(), sum: 7.5 };
    reading.distributions = std::array::from_fn(|_| Some(buckets.clone()));
    reading.gc = Some(GcSummary { quantiles: [0.1, 0.2, 0.3, 0.4, 0.5], sum: 2.5, count: 9 });
    let waiting = vec![Waiting { reason: "chan receive", count: 3, oldest_seconds: Some(1.0) }];
    RuntimeFigures {
        target: target.clone(),
        go_version: Some("go1.27.3".into()),
        reading: Arc::new(reading),
        goroutines: Some(Arc::new(Goroutines { waiting, looked_at: 1.0 })),
        walk_age_seconds: 0.5,
    }
}

fn written(series: usize, format: Format) -> String {
    let mut out = Vec::new();
    write(&snapshot(series), format, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_has_cumulative_buckets_and_escapes_labels() {
    let text = written(1, Format::Text);
    let labels = r#"instance_pid="7",executable="a \"quoted\" \\ name\n",http_request_method="GET",http_response_status_code="200",http_route="/r0""#;
    for line in [
        format!("http_server_request_duration_seconds_bucket{{{labels},le=\"5e-05\"}} 2"),
        format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} 3"),
        format!("http_server_request_duration_seconds_bucket{{{labels},le=\"10\"}} 3"),
        format!("http_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
        format!("http_server_request_duration_seconds_sum{{{labels}}} 12"),
        format!("http_server_request_duration_seconds_count{{{labels}}} 4"),
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\nnot in\n{text}");
    }
}

/// Last buckets of the requests' histograms.
fn infinite(text: &str) -> usize {
    let buckets = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_bucket"));
    buckets.filter(|line| line.contains("le=\"+Inf\"")).count()
}

#[test]
fn a_family_in_pieces_has_one_header() {
    let text = written(500, Format::Text);
    assert_eq!(text.matches("# TYPE http_server_request_duration_seconds histogram").count(), 1);
    assert_eq!(infinite(&text), 500);
}

#[test]
fn what_a_runtime_keeps_is_written_in_both_formats() {
    let labels = r#"instance_pid="7",executable="a \"quoted\" \\ name\n""#;
    let sums = [
        format!("go_sched_latencies_seconds_sum{{{labels}}} 7.5"),
        format!("go_sched_latencies_seconds_count{{{labels}}} 6"),
        format!("go_gc_duration_seconds_sum{{{labels}}} 2.5"),
        format!("go_gc_duration_seconds_count{{{labels}}} 9"),
        format!("go_goroutines{{{labels}}} 1.5"),
    ];
    for (format, quantile, bucket) in [(Format::Text, "1", "1"), (Format::OpenMetrics, "1.0", "1.0")] {
        let text = written(1, format);
        let own = [
            format!("go_gc_duration_seconds{{{labels},quantile=\"{quantile}\"}} 0.5"),
            format!("go_sched_latencies_seconds_bucket{{{labels},le=\"{bucket}\"}} 3"),
        ];
        for line in sums.iter().chain(&own) {
            let swapped =
                line.replace(&format!("{{{labels},le=\"{bucket}\"}}"), &format!("{{le=\"{bucket}\",{labels}}}"));
            assert!(text.lines().any(|have| have == line || have == swapped), "{line}\nnot in\n{text}");
        }
        assert_eq!(text.matches("# TYPE go_gc_duration_seconds summary").count(), 1);
    }
}

#[test]
fn openmetrics_has_the_same_samples_and_ends() {
    let names = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
            .collect()
    };
    let open = written(3, Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n"));
    assert_eq!(infinite(&open), 3, "{open}");
    assert_eq!(names(&open), names(&written(3, Format::Text)));
    assert!(open.contains("# UNIT http_server_request_duration_seconds seconds"), "{open}");
    assert!(open.contains(r#"executable="a \"quoted\" \\ name\n""#));
}

#[test]
fn the_contract_is_well_formed_and_all_of_it_is_exposed() {
    let text = written(1, Format::Text);
    let mut names = BTreeSet::new();
    for desc in contract::all() {
        assert!(names.insert(desc.name), "{} stands twice", desc.name);
        assert_eq!(desc.kind == Kind::Counter, desc.name.ends_with("_total"), "{}", desc.name);
        assert!(desc.help.ends_with('.') && !desc.source.is_empty(), "{}", desc.name);
        assert!(text.contains(&format!("# TYPE {} ", desc.name)), "{} is not exposed", desc.name);
        for label in desc.labels {
            let exposed = text
                .lines()
                .filter(|line| line.starts_with(desc.name))
                .any(|line| line.contains(&format!("{label}=\"")));
            assert!(exposed, "{} has no label {label}", desc.name);
        }
    }
}

/// A family's name must not be another's, nor that of a sample that another's samples may be called (OpenMetrics 1.0, MetricFamily;
/// the suffixes by its types).
#[test]
fn no_two_families_of_openmetrics_share_a_name() {
    let text = written(1, Format::OpenMetrics);
    let mut names = BTreeSet::new();
    let mut families = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        families += 1;
        let (name, kind) = line.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["", "_total", "_created"],
            "histogram" => &["", "_bucket", "_sum", "_count", "_created"],
            "summary" => &["", "_sum", "_count", "_created"],
            "gauge" | "unknown" => &[""],
            other => panic!("{other}"),
        };
        for suffix in suffixes {
            assert!(names.insert(format!("{name}{suffix}")), "{name}{suffix} is the name of two");
        }
    }
    assert_eq!(families, contract::all().count());
    // Both are there, under the names that they have in the text format.
    assert!(text.lines().any(|line| line.starts_with("go_memstats_alloc_bytes{")));
    assert!(text.lines().any(|line| line.starts_with("go_memstats_alloc_bytes_total{")));
    assert_eq!(text.matches("# TYPE go_memstats_alloc_bytes_total unknown").count(), 1);
}

#[test]
fn counts_out_of_a_hostile_memory_do_not_wrap() {
    let mut snapshot = Arc::unwrap_or_clone(snapshot(1));
    let mut reading = Reading::default();
    let counts = [u64::MAX, 1, u64::MAX].into();
    reading.distributions[0] = Some(Buckets { bounds: &[0.25, 1.0], counts, sum: f64::INFINITY });
    snapshot.runtimes[0].reading = Arc::new(reading);
    let mut out = Vec::new();
    write(&Arc::new(snapshot), Format::Text, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let count = format!(" {}", u64::MAX);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("go_gc_heap_allocs_by_size_bytes_")).collect();
    assert_eq!(lines.iter().filter(|line| line.ends_with(&count)).count(), 4, "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("go_gc_heap_allocs_by_size_bytes_sum") && line.ends_with(" +Inf"))
    );
}

#[test]
fn the_reference_names_every_metric() {
    let page = reference();
    assert!(contract::all().all(|desc| page.contains(&format!("## `{}`", desc.name))));
}

#[test]
fn the_reference_in_the_book_is_current() {
    let page = include_str!("../../../docs/src/metrics.md");
    assert!(page == reference(), "run: target/release/gopulse metric-reference > docs/src/metrics.md");
}

#[test]
fn a_histograms_sum_is_a_family_beside_it_for_who_wants_it() {
    let seen = |names: &[&str]| {
        let mut seen = Vec::new();
        visit(
            &snapshot(1),
            |name| names.contains(&name),
            |name, labels, figure| {
                let route = labels.iter().any(|(label, _)| *label == "http_route");
                seen.push((name, route, matches!(figure, crate::metrics::Figure::Counter(12.0))));
            },
        );
        seen
    };
    let (all, sum) = ("http_server_request_duration_seconds", "http_server_request_duration_seconds_sum");
    assert_eq!(seen(&[sum]), [(sum, true, true)]);
    assert_eq!(seen(&[all, sum]), [(sum, true, true), (all, true, false)]);
    assert_eq!(seen(&[all]), [(all, true, false)]);
}
