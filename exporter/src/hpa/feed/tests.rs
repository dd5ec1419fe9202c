use super::*;

fn figures(unix_ms: u64, pods: &[(&str, f64, [u64; 3])]) -> Figures {
    let mut figures = Figures { unix_ms, ..Figures::default() };
    let bounds: Arc<[f64]> = [0.1, 1.0].into();
    for (pod, active, counts) in pods {
        let measured = figures.containers.entry(("shop".into(), (*pod).into(), "app".into())).or_default();
        measured.families.extend(["http_server_active_requests", "http_server_request_duration_seconds"]);
        measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(*active));
        if counts.iter().any(|it| *it > 0) {
            let amount = Amount::Buckets { bounds: bounds.clone(), counts: (*counts).into() };
            measured.add("http_server_request_duration_seconds", vec!["http_route".into(), "/".into()], amount);
        }
    }
    figures
}

#[test]
fn a_frame_has_only_what_is_new() {
    let mut told = Told::default();
    let first = told.frame(&figures(1, &[("a", 1.0, [0, 5, 0]), ("b", 0.0, [0; 3])]));
    assert!(first.first);
    assert_eq!((first.containers.len(), first.series.len(), first.samples.len()), (2, 3, 3));
    assert!(first.containers.iter().all(|it| it.families.len() == 2), "idle, but measured");
    let same = told.frame(&figures(2, &[("a", 1.0, [0, 5, 0]), ("b", 0.0, [0; 3])]));
    assert_eq!(same, Frame { unix_ms: 2, ..Frame::default() });
    let grown = told.frame(&figures(3, &[("a", 1.0, [0, 7, 1]), ("b", 2.0, [0; 3])]));
    assert_eq!(grown.samples.len(), 2);
    let buckets = grown.samples.iter().find(|it| !it.buckets.is_empty()).unwrap();
    assert_eq!((&buckets.buckets[..], &buckets.counts[..]), (&[1, 2][..], &[7, 1][..]));
    let gone = told.frame(&figures(4, &[("a", 1.0, [0, 7, 1])]));
    assert_eq!(gone.gone, [first.containers[1].id]);
    // It is back: as another one.
    let back = told.frame(&figures(5, &[("a", 1.0, [0, 7, 1]), ("b", 2.0, [1, 0, 0])]));
    assert_eq!((back.containers.len(), back.series.len()), (1, 2));
    assert_ne!(back.containers[0].id, first.containers[1].id);
}

#[test]
fn several_processes_of_a_container_are_one() {
    let mut measured = Measured::default();
    measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(2.0));
    measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(3.0));
    assert_eq!(measured.series, [("http_server_active_requests", Vec::new(), Amount::Gauge(5.0))]);
}

#[test]
fn what_is_told_is_what_the_store_knows() {
    use std::time::Instant;

    use crate::hpa::api::testing;

    let mut told = Told::default();
    let mut store = testing::Known::new();
    let begun = Instant::now();
    for second in 0..10_u64 {
        let frame = told
            .frame(&figures(second * 1000, &[("a", second as f64, [second * 10, second * 3, 0]), ("b", 0.0, [0; 3])]));
        store.apply(&frame, begun + Duration::from_secs(second));
    }
    let now = begun + Duration::from_secs(9);
    assert_eq!(store.ask("rate(http_server_request_duration_seconds)", "a", now), Some(13.0));
    assert_eq!(store.ask("rate(http_server_request_duration_seconds)", "b", now), Some(0.0));
    assert_eq!(store.ask("last(http_server_active_requests)", "a", now), Some(9.0));
}

#[tokio::test(start_paused = true)]
async fn figures_are_read_once_for_all_and_not_without_listeners() {
    use std::sync::atomic::{AtomicU64, Ordering};

    use http_body_util::BodyExt as _;

    let reads = Arc::new(AtomicU64::new(0));
    let read = {
        let reads = reads.clone();
        move || figures(reads.fetch_add(1, Ordering::Relaxed), &[("a", 1.0, [1, 0, 0])])
    };
    let feed = Feed::default();
    let mut streams = [feed.listen(read.clone()), feed.listen(read.clone())];
    for stream in &mut streams {
        for _ in 0..3 {
            stream.frame().await.unwrap().unwrap();
        }
    }
    let read_by_now = reads.load(Ordering::Relaxed);
    assert!((3..=5).contains(&read_by_now), "{read_by_now}");
    drop(streams);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after = reads.load(Ordering::Relaxed);
    assert!(after <= read_by_now + 3, "{after}");
    // And begins again for the next.
    let mut stream = feed.listen(read);
    stream.frame().await.unwrap().unwrap();
    assert!(reads.load(Ordering::Relaxed) > after);
}
