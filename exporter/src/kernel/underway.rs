//! Attaching and detaching that are under way, which the process must not end in the middle of: a thread with a fatal signal cannot
//! write to the measured program's pages (mm/gup.c, `__get_user_pages`), so that the kernel gives up with "failed to unregister,
//! leaking uprobe" and the breakpoint stays. Knows nothing of what is attached.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

struct State {
    count: usize,
    closing: bool,
}

static STATE: Mutex<State> = Mutex::new(State { count: 0, closing: false });
static DONE: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them, or several that belong together, until it is dropped. Whoever hands links on to another thread begins that one's first.
pub(crate) struct Underway(());

impl Underway {
    /// Attaches, unless the process is about to end.
    pub(crate) fn attaching() -> Option<Self> {
        let mut state = state();
        if state.closing {
            return None;
        }
        state.count += 1;
        Some(Self(()))
    }

    /// Detaches, which is never refused.
    pub(crate) fn detaching() -> Self {
        state().count += 1;
        Self(())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        state().count -= 1;
        DONE.notify_all();
    }
}

/// Lets nothing more be attached, and waits until nothing is under way; how much still is, should that take too long.
pub(crate) fn settle(patience: Duration) -> usize {
    let mut guard = state();
    guard.closing = true;
    let waited = DONE.wait_timeout_while(guard, patience, |state| state.count > 0);
    waited.unwrap_or_else(PoisonError::into_inner).0.count
}
