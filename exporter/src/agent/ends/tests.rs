use exporter_ebpf::key::{Family, SeriesKey};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn runs(goid: u64) -> Goroutine {
    Goroutine { goid, is_dead: false }
}

#[test]
fn a_request_that_goes_on_is_looked_at_less_and_less() {
    let mut agenda = Agenda::new();
    let mut looks = Vec::new();
    for now in (10..1000).step_by(5) {
        for request in agenda.due(&[(1, 0)], now * SECOND) {
            looks.push(now);
            assert!(!agenda.is_over(request, Some(runs(7))));
        }
    }
    assert_eq!(looks, [10, 20, 40, 80, 160, 320, 480, 640, 800, 960]);
}

#[test]
fn a_turn_is_bounded_and_none_is_forgotten() {
    let all: Vec<Request> = (0..20_000).map(|key| (key, key % 100)).collect();
    let (mut agenda, mut seen) = (Agenda::new(), HashSet::new());
    for turn in 0..3 {
        let due = agenda.due(&all, turn);
        assert!(due.len() <= LOOKS);
        assert!(due.into_iter().all(|request| seen.insert(request)), "looked at twice while others wait");
    }
    assert_eq!(seen.len(), all.len());
    assert_eq!(agenda.due(&[], 4), []);
    assert!(agenda.waiting.is_empty(), "what has ended is forgotten");
}

#[test]
fn who_is_over() {
    let mut agenda = Agenda::new();
    let (request, later) = ((1, 5), (1, 6));
    agenda.due(&[request], 0);
    assert!(!agenda.is_over(request, Some(runs(7))) && !agenda.is_over(request, Some(runs(7))));
    assert!(agenda.is_over(request, Some(runs(8))), "another goroutine has its place");
    assert!(agenda.is_over(request, None), "no memory is there");
    assert!(agenda.is_over(request, Some(Goroutine { goid: 7, is_dead: true })));
    // The goroutine's place serves another request now, by another goroutine: the look was of the earlier one.
    agenda.due(&[later], 1);
    assert!(!agenda.is_over(request, None));
    assert!(!agenda.is_over(later, Some(runs(8))));
}

#[test]
fn a_program_that_does_not_answer_is_not_asked_again_until_it_does() {
    let of = |target, g| (address_key(target, g), 0);
    let all = [of(1, 1), of(2, 1), of(1, 2)];
    let mut agenda = Agenda::new();
    agenda.asked.insert(1);
    assert_eq!(agenda.due(&all, 0), [of(2, 1)]);
    agenda.tell.send((1, vec![(of(1, 1), None)])).expect("the agenda is there");
    assert_eq!(agenda.over(), [of(1, 1)]);
    assert_eq!(agenda.due(&all, 1), [of(1, 1), of(1, 2)]);
}

#[test]
fn a_hijack_before_a_request_is_of_another() {
    let at_ns = 100;
    let hijacks =
        HashMap::from([(address_key(3, 0xb0), Hijacked { series: SeriesKey::overflow(Family::HttpServer, 3), at_ns })]);
    let of = |target, writer, start_ns| {
        let entry = Span { start_ns, open: writer, words: [0; 3] };
        hijack_of(&hijacks, address_key(target, 0xa0), &entry).is_some()
    };
    assert!(of(3, 0xb0, 99) && of(3, 0xb0, 100));
    assert!(!of(3, 0xb0, 101) && !of(3, 0xb8, 99) && !of(4, 0xb0, 99));
}
