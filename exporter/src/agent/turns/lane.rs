//! The pace at which executables of one owner are read. Knows nothing of turns.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::allowance::Spending;

/// CPU time for reading executables of one owner: some are read at once, and then others with a fortieth of a core. A read of a program
/// of 10 MB takes some 10 ms.
const READS: Spending = Spending::new(Duration::from_millis(20), 40);
/// What is taken for the cost of a read that has not ended.
pub(super) const A_READ: Duration = Duration::from_millis(10);
/// How often who waits looks whether that is still needed.
const LOOK: Duration = Duration::from_millis(100);

/// What reading executables of one owner has cost, and who waits.
pub(super) struct Lane {
    spent: Mutex<Spending>,
    /// Whoever comes first goes first.
    first: tokio::sync::Mutex<()>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { spent: Mutex::new(READS), first: tokio::sync::Mutex::default() }
    }
}

impl Lane {
    pub(super) fn spent(&self) -> MutexGuard<'_, Spending> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be read. That it costs what most do is taken for granted, since several may begin at once. What is
    /// known meanwhile, by another process of the file, is not waited for.
    pub(super) async fn enter(&self, is_known: impl Fn() -> bool) {
        let _first = self.first.lock().await;
        loop {
            let now = Instant::now();
            if is_known() {
                self.spent().spend(A_READ, now);
                return;
            }
            let wait = {
                let mut spent = self.spent();
                let wait = spent.wait(now);
                if wait.is_zero() {
                    spent.spend(A_READ, now);
                    return;
                }
                wait
            };
            tokio::time::sleep(wait.min(LOOK)).await;
        }
    }

    /// What it has cost.
    pub(super) fn leave(&self, cost: Duration) {
        let mut spent = self.spent();
        spent.give_back(A_READ);
        spent.spend(cost, Instant::now());
    }
}
