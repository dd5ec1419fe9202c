//! The scheduler's tracepoints: attached while any target asks for what they tell.

use std::sync::PoisonError;

use tracing::{info, warn};

use super::{Agent, state::Stage};
use crate::target::Measure;

impl Agent {
    /// Attaches or detaches them, as the targets of now ask. Blocks for some milliseconds, so it works elsewhere.
    pub(super) fn see_to_scheduler(&self) {
        let wanted = |agent: &Self| {
            let state = agent.state();
            let measured = state.targets.values().filter(|target| matches!(target.stage, Stage::Measured));
            measured.into_iter().any(|target| target.features.has(Measure::Scheduler))
        };
        let attached = self.inner.scheduler.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if attached == wanted(self) {
            return;
        }
        let agent = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut links = agent.inner.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            // By now it may be otherwise.
            match (wanted(&agent), links.is_some()) {
                (true, false) => match agent.inner.kernel.trace_scheduler() {
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
        });
    }
}
