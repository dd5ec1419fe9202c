use std::{
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use super::*;

/// A hang guard.
const LONG: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Says so when it is dropped, as a link is detached then.
struct Thing(u32, Sender<u32>);

impl Drop for Thing {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

fn holding(leases: &Leases<Thing>, things: &[u32], until: Instant) -> (Lease<Thing>, Receiver<u32>) {
    let (tell, told) = mpsc::channel();
    let lease = leases.grant(until, drop);
    for thing in things {
        assert!(lease.add(Thing(*thing, tell.clone())).is_ok());
    }
    (lease, told)
}

#[test]
fn what_nobody_takes_back_is_let_go_of_while_its_holder_stands_still() {
    let leases = Leases::new();
    leases.watch().unwrap();
    // The thread waits for an hour when the others come.
    let (hour, untouched) = holding(&leases, &[7], Instant::now() + HOUR);
    let (lease, told) = holding(&leases, &[1, 2], Instant::now() + HOUR);
    assert!(lease.renew(Instant::now()));
    // The holder does no more than to stand in this.
    assert_eq!([told.recv_timeout(LONG), told.recv_timeout(LONG)], [Ok(1), Ok(2)]);
    assert!(lease.over().is_some() && !lease.renew(Instant::now() + HOUR) && lease.take().is_none());
    // What comes too late is its holder's.
    let (tell, late) = mpsc::channel();
    assert!(lease.add(Thing(3, tell)).is_err());
    assert_eq!(late.recv_timeout(LONG), Ok(3));
    assert_eq!((hour.count(|_| true), untouched.try_recv()), (1, Err(mpsc::TryRecvError::Empty)));
    assert!(hour.over().is_none());
}

#[test]
fn what_is_granted_last_may_end_first() {
    let leases = Leases::new();
    leases.watch().unwrap();
    let (_hour, _) = holding(&leases, &[7], Instant::now() + HOUR);
    for i in 0..3 {
        let (tell, told) = mpsc::channel();
        let lease = leases.grant(Instant::now(), move |_: Vec<Thing>| tell.send(i).unwrap());
        assert_eq!(told.recv_timeout(LONG), Ok(i));
        drop(lease);
    }
}

#[test]
fn a_time_that_is_renewed_is_the_one_that_counts_and_what_is_taken_back_is_not_let_go_of() {
    let leases = Leases::new();
    let now = Instant::now();
    let due = |after: u64| leases.0.lock().due(now + Duration::from_secs(after)).len();
    let (kept, _told) = holding(&leases, &[1], now + Duration::from_secs(10));
    let (taken, told) = holding(&leases, &[2, 3], now + Duration::from_secs(10));
    assert_eq!(due(9), 0);
    assert!(kept.renew(now + Duration::from_secs(20)));
    let things = taken.take().expect("they are held");
    assert_eq!((things.len(), told.try_recv()), (2, Err(mpsc::TryRecvError::Empty)));
    assert_eq!((due(19), kept.over()), (0, None));
    assert!(taken.take().is_some_and(|things| things.is_empty()) && !taken.renew(now + HOUR));
    assert_eq!((due(20), kept.over(), kept.count(|_| true)), (1, Some(now + Duration::from_secs(20)), 0));
    assert_eq!(taken.over(), None);
}
