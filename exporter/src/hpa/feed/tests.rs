use super::*;
use crate::hpa::wire::{Frame, Sample};

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
fn figures_are_of_when_the_kernels_counts_were_read() {
    let read_at = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
    let slow = Snapshot { read_at: Some(read_at), ..Snapshot::default() };
    assert_eq!(Figures::of(&slow).unix_ms, unix_ms_of(read_at));
    assert!(Figures::of(&Snapshot::default()).unix_ms > unix_ms_of(read_at));
}

fn waiting(unix_ms: u64, reasons: &[(&'static str, f64)]) -> Figures {
    let mut figures = Figures { unix_ms, ..Figures::default() };
    let measured = figures.containers.entry(("shop".into(), "a".into(), "app".into())).or_default();
    measured.families.insert("go_goroutines_waiting");
    for (reason, count) in reasons {
        let labels = vec!["reason".into(), (*reason).into()];
        measured.add("go_goroutines_waiting", labels, Amount::Gauge(*count));
    }
    figures
}

#[test]
fn a_series_that_is_not_there_any_more_is_told() {
    use crate::hpa::api::testing;

    let (mut told, mut store, begun) = (Told::default(), testing::Known::new(), Instant::now());
    let first = told.frame(&waiting(0, &[("select", 3.0), ("semacquire", 500.0)]));
    store.apply(&first, begun);
    let gone = told.frame(&waiting(1000, &[("select", 3.0)]));
    let id = first.series.iter().find(|it| it.labels[1] == "semacquire").unwrap().id;
    // The 0 is for a metrics-api that does not know of the other.
    assert_eq!(
        (&gone.gone_series[..], &gone.samples[..]),
        (&[id][..], &[Sample { series: id, ..Sample::default() }][..])
    );
    store.apply(&gone, begun + Duration::from_secs(1));
    let ask = |store: &testing::Known, second| {
        store.ask("last(go_goroutines_waiting)", "a", begun + Duration::from_secs(second))
    };
    assert_eq!(ask(&store, 1), Some(3.0));
    assert_eq!(told.frame(&waiting(2000, &[("select", 3.0)])), Frame { unix_ms: 2000, ..Frame::default() });
    let back = told.frame(&waiting(3000, &[("select", 3.0), ("semacquire", 7.0)]));
    assert!(back.series.len() == 1 && back.series[0].id > id);
    store.apply(&back, begun + Duration::from_secs(3));
    assert_eq!(ask(&store, 3), Some(10.0));
    // Past a new stream, which does not have it.
    store.apply(&Told::default().frame(&waiting(4000, &[("select", 2.0)])), begun + Duration::from_secs(4));
    assert_eq!(ask(&store, 4), Some(2.0));
    // An old metrics-api, which does not read the field, reads the 0.
    let mut store = testing::Known::new();
    let mut told = Told::default();
    store.apply(&told.frame(&waiting(0, &[("select", 3.0), ("semacquire", 500.0)])), begun);
    let gone = told.frame(&waiting(1000, &[("select", 3.0)]));
    store.apply(&Frame { gone_series: Vec::new(), ..gone }, begun + Duration::from_secs(1));
    assert_eq!(ask(&store, 1), Some(3.0));
}

#[test]
fn what_is_known_of_containers_and_of_pods_without_figures_is_told_when_it_changes() {
    let mut told = Told::default();
    let begun = Instant::now();
    let with = |unix_ms, from_start, reasons: &[(&str, &str)]| {
        let reasons: Vec<_> = reasons.iter().map(|(pod, why)| (*pod, *why)).collect();
        figures(unix_ms, &[("a", 1.0, [0, 5, 0])])
            .counted(|_, _, _| Some(Counted { since: begun, from_start }))
            .wanted(reasons.into_iter().map(|(pod, why)| ("shop".to_owned(), pod.to_owned(), true, why.to_owned())))
    };
    let first = told.frame(&with(1, true, &[("b", "no Go"), ("a", "it has figures")]));
    assert!(first.run != 0 && first.containers[0].counted_since_ms != 0 && first.containers[0].from_start);
    let pods = first.unmeasured.unwrap().pods;
    assert_eq!((pods.len(), &*pods[0].pod, &*pods[0].reason), (1, "b", "no Go"));
    assert_eq!(told.frame(&with(2, true, &[("b", "no Go")])), Frame { unix_ms: 2, ..Frame::default() });
    let other = told.frame(&with(3, false, &[]));
    assert_eq!((other.containers.len(), other.unmeasured), (1, Some(Unmeasured::default())));
    // An agent that does not know yet says nothing, and takes nothing back.
    assert_eq!(told.frame(&figures(4, &[("a", 1.0, [0, 5, 0])])).unmeasured, None);
}

#[test]
fn many_series_of_a_container_are_told_apart_and_added_up() {
    let mut measured = Measured::default();
    let labels = |route: usize| vec!["http_route".to_owned(), format!("/{route}")];
    for route in (0..20_000).chain(0..20_000) {
        measured.add("http_server_active_requests", labels(route), Amount::Gauge(1.0));
    }
    assert_eq!(measured.series.len(), 20_000);
    assert!(measured.series.iter().all(|(_, _, amount)| *amount == Amount::Gauge(2.0)));
    // Two that have one hash.
    measured.places.values_mut().for_each(|place| *place = 0);
    measured.add("http_server_active_requests", labels(7), Amount::Gauge(1.0));
    assert_eq!((measured.series.len(), &measured.series[7].2), (20_000, &Amount::Gauge(3.0)));
}

#[test]
fn several_processes_of_a_container_are_one() {
    let mut measured = Measured::default();
    measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(2.0));
    measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(3.0));
    assert_eq!(measured.series, [("http_server_active_requests", Vec::new(), Amount::Gauge(5.0))]);
    // But for what is the container's, and not a process's.
    let mut measured = Measured::default();
    measured.add(CPU_LIMIT, Vec::new(), Amount::Gauge(1.5));
    measured.add(CPU_LIMIT, Vec::new(), Amount::Gauge(1.5));
    assert_eq!(measured.series, [(CPU_LIMIT, Vec::new(), Amount::Gauge(1.5))]);
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

#[tokio::test(start_paused = true)]
async fn figures_of_before_are_not_told_again() {
    use std::sync::atomic::{AtomicU64, Ordering};

    use http_body_util::BodyExt as _;

    let read_at = Arc::new(AtomicU64::new(7));
    let read = {
        let read_at = read_at.clone();
        move || figures(read_at.load(Ordering::Relaxed), &[("a", 1.0, [1, 0, 0])])
    };
    let feed = Feed::default();
    let mut stream = feed.listen(read);
    stream.frame().await.unwrap().unwrap();
    let again = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await;
    assert!(again.is_err(), "they were told as if nothing had been counted since");
    read_at.store(8, Ordering::Relaxed);
    stream.frame().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_after_the_agent_stood_still_begins_with_what_is_read_then() {
    use bytes::BytesMut;

    use crate::hpa::wire::next_frame;

    let now = unix_ms();
    for (read_before, begins_with) in [(now - 7_000, now), (now, now)] {
        let (sender, receiver) = watch::channel(Arc::new(Figures::default()));
        let kept = receiver.clone();
        sender.send(Arc::new(figures(read_before, &[]))).unwrap();
        let (frames, mut told) = mpsc::channel(2);
        tokio::spawn(tell(kept, frames));
        tokio::task::yield_now().await;
        sender.send(Arc::new(figures(now, &[]))).unwrap();
        let first = next_frame(&mut BytesMut::from(&told.recv().await.unwrap()[..])).unwrap().unwrap();
        assert_eq!((first.first, first.unix_ms), (true, begins_with));
    }
}
