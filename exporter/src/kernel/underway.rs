//! Attaching and detaching that are under way, which the process must not end in the middle of: a thread with a fatal signal cannot
//! write to the measured program's pages (mm/gup.c, `__get_user_pages`), so that the kernel gives up with "failed to unregister,
//! leaking uprobe" and the breakpoint stays. Knows nothing of what is attached.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

struct State {
    count: usize,
    ending: bool,
}

static STATE: Mutex<State> = Mutex::new(State { count: 0, ending: false });
static DONE: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them, until it is dropped.
pub(super) struct Underway(());

impl Underway {
    /// None once the process is about to end.
    pub(super) fn begin() -> Option<Self> {
        let mut state = state();
        if state.ending {
            return None;
        }
        state.count += 1;
        Some(Self(()))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        state().count -= 1;
        DONE.notify_all();
    }
}

/// Lets no more begin, and waits until none is under way; how many still are, should that take too long.
pub(crate) fn settle(patience: Duration) -> usize {
    let mut guard = state();
    guard.ending = true;
    let waited = DONE.wait_timeout_while(guard, patience, |state| state.count > 0);
    waited.unwrap_or_else(PoisonError::into_inner).0.count
}
