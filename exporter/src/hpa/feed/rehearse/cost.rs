//! What a second of the stream costs an agent by the number of a container's series, for benchmarks: of each the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, SeriesKey},
};
use instruments::{Known, describe};

use super::super::{Figures, Told};
use crate::{
    kubernetes::Placement,
    metrics::{Series, Snapshot},
    target::Labels,
};

/// Seconds that are rehearsed; the median is told.
const SECONDS: usize = 9;

/// Nanoseconds a series of one container that has so many: from a snapshot to figures, and from figures to a frame's bytes where all
/// have changed.
pub(super) fn of(series: usize) -> [f64; 2] {
    let mut snapshot = snapshot(series);
    let mut told = Told::default();
    let mut took: [Vec<Duration>; 2] = Default::default();
    let mut count = 0;
    for second in 0..=SECONDS {
        for it in &mut snapshot.series {
            it.value.sum_ns += 1_000_000;
            it.value.buckets[5] += 1;
        }
        let begun = Instant::now();
        let figures = Figures::of(&snapshot);
        let read = begun.elapsed();
        let frame = told.frame(&figures);
        let _ = frame.to_bytes();
        count = frame.samples.len();
        // The first second names everything.
        if second > 0 {
            took[0].push(read);
            took[1].push(begun.elapsed().saturating_sub(read));
        }
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2].as_nanos() as f64 / count.max(1) as f64
    })
}

/// A container with requests by so many routes, each of which has two series: durations and their sum.
fn snapshot(series: usize) -> Snapshot {
    let text = |text: &str| Arc::from(text);
    let target = Labels::of_placement(&Placement {
        namespace: text("shop"),
        pod: text("web-5d9c7f-x2x7p"),
        uid: text("1"),
        container: text("app"),
        image: text("example.com/app"),
        workload: None,
        labels: Arc::default(),
        features: None,
        budget: None,
        routes: Arc::default(),
    });
    let family = Family::HttpServer;
    let get = SeriesKey { verb: 1, ..SeriesKey::of(family, 1, 200) };
    let mut value = Durations::ZERO;
    value.buckets.iter_mut().zip(0..).for_each(|(count, bucket)| *count = bucket);
    let route = |number: usize| {
        let text = Some(format!("/orders/{{id}}/items/{number}").into());
        let labels = describe(family).labels(&get, &Known { text, second: None, go_minor: 27 });
        Series { target: target.clone(), family, labels, value }
    };
    Snapshot { series: (0..series / 2).map(route).collect(), ..Snapshot::default() }
}
