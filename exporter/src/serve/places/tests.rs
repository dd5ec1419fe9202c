use std::time::Duration;

use super::activity::{HEAD, KEPT, STALL};
use super::*;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Client and seconds for which it has been waited for, in the order in which they came.
fn taken(of: &[(u8, Option<u64>)]) -> Vec<Taken> {
    let start = Instant::now();
    let held = |(number, (client, waited)): (usize, &(u8, Option<u64>))| Taken {
        number: number as u64,
        client: address(*client),
        waits_since: waited.map(|seconds| start + Duration::from_secs(1000 - seconds)),
    };
    of.iter().enumerate().map(held).collect()
}

fn decide(newcomer: u8, of: &[(u8, Option<u64>)]) -> Verdict {
    verdict(address(newcomer), &taken(of), 4, 2)
}

#[test]
fn while_there_is_room_nobody_gives_way() {
    assert_eq!(decide(1, &[(1, Some(9)), (1, Some(9)), (1, Some(9))]), Verdict::Welcome);
}

#[test]
fn who_has_been_waited_for_longest_gives_way() {
    let of = [(1, Some(3)), (2, Some(7)), (3, None), (4, Some(5))];
    assert_eq!(decide(9, &of), Verdict::InsteadOf(1));
}

#[test]
fn clients_with_more_than_their_share_go_first() {
    let of = [(2, Some(100)), (1, Some(1)), (1, Some(2)), (1, None)];
    assert_eq!(decide(9, &of), Verdict::InsteadOf(2));
    // All of them are being answered: the one who came last makes room, and not the neighbour who is waited for.
    let of = [(2, None), (1, None), (1, None), (1, None)];
    assert_eq!(decide(9, &of), Verdict::InsteadOf(3));
}

#[test]
fn who_has_its_share_takes_from_itself() {
    let of = [(2, Some(100)), (1, Some(1)), (1, Some(2)), (3, Some(9))];
    assert_eq!(decide(1, &of), Verdict::InsteadOf(2));
    assert_eq!(decide(1, &[(2, Some(100)), (1, None), (1, None), (3, Some(9))]), Verdict::Full);
}

#[test]
fn where_all_are_being_answered_and_nobody_has_too_many_there_is_no_place() {
    assert_eq!(decide(9, &[(1, None), (1, None), (2, None), (2, None)]), Verdict::Full);
}

#[test]
fn half_a_head_sent_byte_by_byte_does_not_gain_time() {
    let activity = Arc::new(Activity::begun(Carries::Heads));
    let since = activity.state().waits_since().expect("its first head is waited for");
    activity.received();
    assert_eq!(activity.state().waits_since(), Some(since));
    assert!(!activity.state().overdue(since + HEAD) && activity.state().overdue(since + HEAD * 2));
}

#[test]
fn a_connection_that_is_kept_has_long_for_its_next_request_and_short_for_the_rest_of_it() {
    let activity = Arc::new(Activity::begun(Carries::Heads));
    let asked = activity.asked();
    assert_eq!(activity.state().waits_since(), None);
    assert!(!activity.state().overdue(Instant::now() + Duration::from_hours(1)));
    drop(asked);
    let since = activity.state().waits_since().expect("the next request is waited for");
    assert!(!activity.state().overdue(since + KEPT) && activity.state().overdue(since + KEPT * 2));
    activity.received();
    let since = activity.state().waits_since().expect("the rest of the head is waited for");
    assert!(activity.state().overdue(since + HEAD * 2));
}

#[test]
fn a_connection_of_streams_waits_for_its_client_while_none_is_open_and_for_good() {
    let activity = Arc::new(Activity::begun(Carries::Streams));
    assert!(activity.state().overdue(Instant::now() + HEAD * 2), "the handshake has a limit");
    activity.ready();
    activity.received();
    assert!(!activity.state().overdue(Instant::now() + Duration::from_hours(1)));
    assert!(activity.state().waits_since().is_some());
    let (one, other) = (activity.asked(), activity.asked());
    drop(one);
    assert_eq!(activity.state().waits_since(), None);
    drop(other);
    assert!(activity.state().waits_since().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_writes_nothing_before_its_turn_and_each_request_takes_one() {
    let place = Places::new(16, Carries::Heads).in_turn().take(address(1)).expect("there is room");
    let activity = &place.activity;
    assert!(!activity.may_write());
    // A handshake takes a turn, and the first request none.
    activity.enters();
    assert!(activity.may_write());
    assert_eq!([0; 3].map(|_| activity.needs_turn()), [false, true, true]);
    assert!(activity.may_write());
    for i in 0..500 {
        place.turn(i % 2 == 0).await;
    }
    // Where there is no turnstile, nobody waits.
    let place = Places::new(16, Carries::Streams).take(address(1)).expect("there is room");
    place.turn(false).await;
    assert!(place.turnstiles.is_none());
}

#[tokio::test(start_paused = true)]
async fn probes_never_wait_for_others() {
    let places = Places::new(2048, Carries::Heads).in_turn();
    let place = || places.take(address(1)).expect("there is room");
    let others: Vec<_> = (0..300)
        .map(|_| {
            tokio::spawn({
                let it = place();
                async move { it.turn(false).await }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    place().turn(true).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(others.iter().any(|it| !it.is_finished()));
}

#[test]
fn a_reader_has_time_for_as_long_as_it_goes_on() {
    let activity = Arc::new(Activity::begun(Carries::Heads));
    let asked = activity.asked();
    activity.stalled();
    let since = activity.state().waits_since().expect("the client is waited for");
    activity.stalled();
    assert_eq!(activity.state().waits_since(), Some(since), "the same stall goes on");
    assert!(!activity.state().overdue(since + STALL) && activity.state().overdue(since + STALL * 2));
    activity.took();
    assert!(!activity.state().overdue(since + STALL * 2));
    // The answer is made, but its last bytes are not taken.
    activity.stalled();
    drop(asked);
    assert!(activity.state().overdue(Instant::now() + STALL * 2));
}

#[tokio::test]
async fn newcomers_are_served_while_others_say_nothing() {
    let places = Places::new(16, Carries::Heads);
    for _ in 0..160 {
        let place = places.take(address(1)).expect("an idle one gives way");
        places.serve(place, |place| {
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(place);
            })
            .abort_handle()
        });
    }
    assert_eq!(places.table().held.len(), 16);
    assert!(places.take(address(2)).is_some(), "and so is somebody else");
}

#[tokio::test]
async fn who_is_overdue_twice_is_ended() {
    let places = Places::new(16, Carries::Heads);
    let place = places.take(address(1)).expect("there is room");
    let late = Instant::now() + HEAD * 2;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    places.serve(place, |place| {
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop((place, ended));
        })
        .abort_handle()
    });
    places.sweep(late);
    assert!(!places.is_empty());
    places.sweep(late);
    assert!(places.is_empty());
    assert!(end.await.is_err(), "its task is dropped");
}
