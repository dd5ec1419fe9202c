use super::*;

#[test]
fn no_wait_that_is_followed_is_dropped_in_silence() {
    let at = |start_ns| Leftover { id: 1, pid: 2, at: (0, 0), seq: 7, reason: 3, start_ns, weight: 2.0 };
    let now = 20 * 60 * 1_000_000_000;
    let left = [at(now - 5), at(now - 4), at(now - 3), at(0), at(1)];
    // Waits; is runnable, while the collector scans it; waits for something else; waits; runs.
    let followed = Followed::of(&left, &[(7, 4), (7, 0x1001), (8, 4), (7, 4), (7, 2)], now);
    let starts = |of: &[Leftover]| of.iter().map(|it| it.start_ns).collect::<Vec<_>>();
    assert_eq!(starts(&followed.on), [now - 5, now - 4]);
    assert_eq!(starts(&followed.ended), [now - 3, 1]);
    assert_eq!(starts(&followed.too_long), [0]);
    assert_eq!(weight(&left, 1.5), 15);
}

#[test]
fn a_memory_that_does_not_answer_keeps_a_few_threads() {
    const ID: u32 = u32::MAX;
    let asking: Vec<_> = std::iter::from_fn(|| Asking::begin(ID)).take(100).collect();
    assert_eq!(asking.len(), MOST_ASKING);
    assert!(Asking::begin(ID - 1).is_some());
    drop(asking);
    assert!(Asking::begin(ID).is_some());
    assert!(ASKING.lock().unwrap().is_empty());
}

#[test]
fn what_cannot_be_read_is_not_there() {
    let (byte, word) = (3_u8, 5_u32);
    let here = (&raw const byte as u64, &raw const word as u64);
    assert_eq!(read(std::process::id(), &[here, here]), Some(vec![(3, 5); 2]));
    assert_eq!(read(std::process::id(), &[here, (8, 16)]), None);
}
