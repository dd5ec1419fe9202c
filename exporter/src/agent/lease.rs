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

    /// Something of each that is held.
    pub(super) fn map<U>(&self, of: impl Fn(&T) -> U) -> Vec<U> {
        self.of.lock().held.get(&self.number).map_or_else(Vec::new, |held| held.things.iter().map(of).collect())
    }

    /// How many of them are held that are like this.
    pub(super) fn count(&self, is: impl Fn(&T) -> bool) -> usize {
        self.of.lock().held.get(&self.number).map_or(0, |held| held.things.iter().filter(|it| is(it)).count())
    }
}

#[cfg(test)]
mod tests;
