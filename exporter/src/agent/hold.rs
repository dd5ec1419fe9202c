//! A lock that is to be held for microseconds, and that measures for how long it is held. Knows nothing of what it guards.

use std::{
    ops::{Deref, DerefMut},
    panic::Location,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

/// A mutex that remembers its longest hold.
pub(super) struct Brief<T> {
    inner: Mutex<T>,
    longest: Mutex<Option<Hold>>,
}

/// One hold of the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// How long it took.
    pub(crate) took: Duration,
    /// How long its thread ran meanwhile: on a busy machine it may have been without a CPU for the rest.
    pub(crate) worked: Duration,
    /// Where in the code the lock was taken.
    pub(crate) by: &'static Location<'static>,
}

/// The lock, until it is dropped.
pub(super) struct Guard<'l, T> {
    value: MutexGuard<'l, T>,
    longest: &'l Mutex<Option<Hold>>,
    since: Instant,
    worked: Duration,
    by: &'static Location<'static>,
}

impl<T> Brief<T> {
    pub(super) fn new(value: T) -> Self {
        Self { inner: Mutex::new(value), longest: Mutex::new(None) }
    }

    #[track_caller]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        let value = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Guard { value, longest: &self.longest, since: Instant::now(), worked: worked(), by: Location::caller() }
    }

    /// The longest hold that has ended since this was last asked.
    pub(super) fn take_longest(&self) -> Option<Hold> {
        self.longest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        if longest.is_none_or(|hold| hold.took < took) {
            *longest = Some(Hold { took, worked: worked().saturating_sub(self.worked), by: self.by });
        }
    }
}

/// CPU time of this thread.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_hold_is_told_once_with_its_place() {
        let lock = Brief::new(1);
        assert!(lock.take_longest().is_none());
        *lock.lock() += 1;
        let guard = lock.lock();
        let line = line!() - 1;
        std::thread::sleep(Duration::from_millis(2));
        drop(guard);
        assert_eq!(*lock.lock(), 2);
        let longest = lock.take_longest().unwrap();
        assert!(longest.took >= Duration::from_millis(2) && longest.worked < longest.took, "{longest:?}");
        assert_eq!(longest.by.line(), line);
        assert!(lock.take_longest().is_none());
    }
}
