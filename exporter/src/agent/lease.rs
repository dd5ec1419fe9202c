//! Things that are held until a time, and let go of by then, whoever else stands still: by a plain thread, which needs neither
//! the tokio runtime nor any lock but its own. Knows nothing of what they are.

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Instant,
};

/// All of them, and the thread that looks at them.
pub(super) struct Leases<T>(Arc<Shared<T>>);

struct Shared<T> {
    table: Mutex<Table<T>>,
    /// Tells the thread of a time before the one that it waits for.
    sooner: Condvar,
}

struct Table<T> {
    held: BTreeMap<u64, Held<T>>,
    number: u64,
    /// The time that the thread waits for, if there is one.
    awaited: Option<Instant>,
}

struct Held<T> {
    until: Instant,
    things: Vec<T>,
    let_go: Box<dyn FnOnce(Vec<T>) + Send>,
    /// When they were let go of.
    over: Arc<OnceLock<Instant>>,
}

/// Things of one holder. Where nobody takes them back, they are let go of when their time has come.
pub(super) struct Lease<T> {
    of: Arc<Shared<T>>,
    number: u64,
    over: Arc<OnceLock<Instant>>,
}

impl<T> Clone for Lease<T> {
    fn clone(&self) -> Self {
        Self { of: Arc::clone(&self.of), number: self.number, over: Arc::clone(&self.over) }
    }
}

impl<T: Send + 'static> Leases<T> {
    pub(super) fn new() -> Self {
        let table = Table { held: BTreeMap::new(), number: 0, awaited: None };
        Self(Arc::new(Shared { table: Mutex::new(table), sooner: Condvar::new() }))
    }

    /// Starts the thread, which stays for as long as the process.
    pub(super) fn watch(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("leases".into()).stack_size(64 * 1024).spawn(move || shared.watch()).map(drop)
    }

    /// Holds what will be added until then; `let_go` gets all of it, on the thread, and must not block.
    pub(super) fn grant(&self, until: Instant, let_go: impl FnOnce(Vec<T>) + Send + 'static) -> Lease<T> {
        let over = Arc::<OnceLock<Instant>>::default();
        let held = Held { until, things: Vec::new(), let_go: Box::new(let_go), over: Arc::clone(&over) };
        let mut table = self.0.lock();
        table.number += 1;
        let number = table.number;
        table.held.insert(number, held);
        self.0.told_of(&table, until);
        drop(table);
        Lease { of: Arc::clone(&self.0), number, over }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told_of(&self, table: &Table<T>, until: Instant) {
        if table.awaited.is_none_or(|awaited| until < awaited) {
            self.sooner.notify_one();
        }
    }

    fn watch(&self) {
        let mut table = self.lock();
        loop {
            let due = table.due(Instant::now());
            if !due.is_empty() {
                drop(table);
                for held in due {
                    (held.let_go)(held.things);
                }
                table = self.lock();
                continue;
            }
            table.awaited = table.held.values().map(|held| held.until).min();
            table = match table.awaited {
                None => self.sooner.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let time = at.saturating_duration_since(Instant::now());
                    self.sooner.wait_timeout(table, time).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl<T> Table<T> {
    /// Takes out those whose time has come.
    fn due(&mut self, now: Instant) -> Vec<Held<T>> {
        let numbers: Vec<u64> = self.held.iter().filter(|(_, it)| it.until <= now).map(|(number, _)| *number).collect();
        let due: Vec<_> = numbers.iter().filter_map(|number| self.held.remove(number)).collect();
        for held in &due {
            let _ = held.over.set(now);
        }
        due
    }
}

impl<T> Lease<T> {
    /// Holds one thing more.
    ///
    /// # Errors
    /// The thing, where its time is over already.
    pub(super) fn add(&self, thing: T) -> Result<(), T> {
        match self.of.lock().held.get_mut(&self.number) {
            Some(held) => {
                held.things.push(thing);
                Ok(())
            }
            None => Err(thing),
        }
    }

    /// Another time for all of them; whether they are still held.
    pub(super) fn renew(&self, until: Instant) -> bool {
        let mut table = self.of.lock();
        let Some(held) = table.held.get_mut(&self.number) else { return false };
        held.until = until;
        self.of.told_of(&table, until);
        true
    }

    /// Takes them back: nothing the second time, and none where they were let go of.
    pub(super) fn take(&self) -> Option<Vec<T>> {
        let held = self.of.lock().held.remove(&self.number);
        if self.over().is_some() {
            return None;
        }
        Some(held.map(|mut held| mem::take(&mut held.things)).unwrap_or_default())
    }

    /// When they were let go of, if they were.
    pub(super) fn over(&self) -> Option<Instant> {
        self.over.get().copied()
    }

    /// How many of them are held that are like this.
    pub(super) fn count(&self, is: impl Fn(&T) -> bool) -> usize {
        self.of.lock().held.get(&self.number).map_or(0, |held| held.things.iter().filter(|it| is(it)).count())
    }
}

#[cfg(test)]
mod tests {
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
}
