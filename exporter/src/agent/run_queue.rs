//! The tracepoints on the run queue: attached while any target asks for what they tell.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tracing::{info, warn};

use super::{Agent, registry::Stage};
use crate::{kernel::RunQueueLinks, target::Feature};

/// The tracepoints, and what is known of them without waiting for who attaches or detaches them.
#[derive(Default)]
pub(super) struct RunQueue {
    /// Held for as long as that takes: nobody but who does so waits for it.
    links: Mutex<Option<RunQueueLinks>>,
    /// Whether somebody waits for his turn, who sees what is wanted by then.
    is_asked: AtomicBool,
    tells_involuntary: AtomicBool,
}

impl RunQueue {
    /// Whether they are attached and tell which threads lose their CPU while they could run.
    pub(super) fn tells_involuntary(&self) -> bool {
        self.tells_involuntary.load(Ordering::Relaxed)
    }

    /// Sees to it that they are attached if `wanted` says so, which is asked once it is this one's turn.
    fn see_to(&self, wanted: impl FnOnce() -> bool, attach: impl FnOnce() -> Result<RunQueueLinks, String>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_asked.swap(false, Ordering::AcqRel);
        match (wanted(), links.is_some()) {
            (true, false) => match attach() {
                Ok(attached) => {
                    info!(
                        involuntary_switches = attached.tells_involuntary,
                        "the scheduler's tracepoints are attached"
                    );
                    *links = Some(attached);
                }
                Err(error) => warn!(error, "run queue latency is not measured"),
            },
            (false, true) => *links = None,
            _ => {}
        }
        self.tells_involuntary.store(links.as_ref().is_some_and(|it| it.tells_involuntary), Ordering::Relaxed);
    }
}

impl Agent {
    /// Attaches or detaches them, as the targets of now ask. Blocks for some milliseconds, so it works elsewhere.
    pub(super) fn update_run_queue(&self) {
        // While another does so, what it will come to is not known: then it is asked after it.
        let agrees = self.inner.run_queue.links.try_lock().is_ok_and(|links| links.is_some() == self.wants_run_queue());
        if agrees || self.inner.run_queue.is_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = self.clone();
        tokio::task::spawn_blocking(move || {
            agent.inner.run_queue.see_to(|| agent.wants_run_queue(), || agent.inner.kernel.trace_run_queue());
        });
    }

    fn wants_run_queue(&self) -> bool {
        let state = self.state();
        let mut measured = state.targets.values().filter(|target| matches!(target.stage, Stage::Measured));
        measured.any(|target| target.features.has(Feature::RunQueue))
    }
}
