use super::*;
use crate::runtime::Figure;

fn me() -> Process {
    Process::find(std::process::id()).unwrap()
}

#[test]
fn a_reader_is_with_one_thread_at_a_time() {
    let mut known = Known::of(me());
    assert!(known.take().is_none() && known.begin() && known.is_away());
    assert!(!known.begin() && known.take().is_none());
    assert!(known.put_back(Reader::open(&me(), None).unwrap()));
    let reader = known.take().unwrap();
    assert!(known.take().is_none() && !known.begin());
    // It comes back long after the scrape went on without it: what it read is not shown, and it rests.
    known.reader = Slot::Away(Instant::now().checked_sub(2 * PATIENCE).unwrap());
    assert!(!known.put_back(reader));
    assert!(known.take().is_none() && !known.begin() && !known.is_away());
    // One that nobody waits for is not put in another's place.
    assert!(!known.put_back(Reader::open(&me(), None).unwrap()));
}

#[test]
fn scrapes_share_what_is_fresh_and_forget_who_is_gone() {
    let plain = Wanted { id: 1, process: me(), labels: Labels::of_process(&me()), plan: None };
    let runtimes = Runtimes::default();
    let (figures, (reads, ..)) = runtimes.read(vec![plain.clone()]);
    assert!(figures[0].reading.figures.at(Figure::ProcessOpenFds as usize).is_some_and(|fds| fds > 0.0));
    assert_eq!(reads[0], ("read", 1));
    // Another process has the id by now: it is begun with anew, and is not there.
    let mut other = plain;
    other.process.id.image.started += 1;
    let (figures, (reads, ..)) = runtimes.read(vec![other]);
    assert!(figures.is_empty());
    assert_eq!(reads[1], ("gone", 1));
    assert!(runtimes.read(Vec::new()).0.is_empty() && runtimes.kept().known.is_empty());
}
