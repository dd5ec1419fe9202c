//! What hostile frames and long lives cost.

use super::*;

#[test]
fn hostile_frames_are_errors() {
    let mut it = Fixture::new();
    let unknown = |what, id| Err(FrameError::Unknown { what, id });
    assert_eq!(it.try_frame(Frame { samples: vec![value(99, 1.0)], ..Frame::default() }), unknown("series", 99));
    assert_eq!(
        it.try_frame(Frame { series: vec![series(1, 99, 1, &[])], ..Frame::default() }),
        unknown("container", 99)
    );
    let wild = Frame { samples: vec![counts(10, &[(u32::MAX, 7), (3, u64::MAX)])], ..Frame::default() };
    it.seconds += 1;
    assert_eq!(it.try_frame(wild), Ok(()));
    let family = Family { bounds: vec![1.0, 1.0], ..histogram(9) };
    assert!(matches!(it.try_frame(Frame { families: vec![family], ..Frame::default() }), Err(FrameError::Family(_))));
    it.agent = "other".into();
    assert_eq!(it.try_frame(Frame::default()), Err(FrameError::NotFirst));
}

#[test]
fn families_that_nothing_is_made_of_cost_nothing() {
    let mut it = Fixture::new();
    it.store = Store::new(Kept {
        families: [("http_server_active_requests".to_owned(), Duration::from_secs(5))].into(),
        others: Duration::ZERO,
    });
    it.begin(&[("a", 0)]);
    it.tick(vec![counts(10, &[(1, 30)]), value(20, 4.0)]);
    assert_eq!(it.rate("a"), Some(0.0));
    assert_eq!(it.ask("last(http_server_active_requests)", 5.0, &["a"], ""), Some(4.0));
}

#[test]
fn what_is_kept_does_not_grow() {
    let mut it = Fixture::new();
    for second in 0..500 {
        it.tick(vec![counts(10, &[(1, 1000 + second)]), value(20, second as f64)]);
    }
    let view = it.store.pod("shop", "a", it.now()).unwrap();
    assert!(view.agent.frames.len() < 45, "{}", view.agent.frames.len());
    assert_eq!(it.rate("a"), Some(1.0));
}
