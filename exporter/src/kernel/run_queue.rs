//! The scheduler's tracepoints, by which waits in the run queue are seen: attached while somebody asks for them, since they fire
//! for every thread of the machine.

use aya::programs::{ProgramError, raw_trace_point::RawTracePointLink};
use tracing::debug;

use super::{load::Kernel, refusal::chain};

/// The attached tracepoints. Dropping it detaches them.
pub(crate) struct RunQueueLinks {
    // Dropped for their effect.
    _links: Vec<RawTracePointLink>,
    /// Whether the kernel tells which threads lose their CPU while they could run (Linux 5.18 on).
    pub(crate) tells_involuntary: bool,
}

impl Kernel {
    /// Attaches them.
    ///
    /// # Errors
    /// What the kernel refused, for a person.
    pub(crate) fn trace_run_queue(&self) -> Result<RunQueueLinks, String> {
        // Threads are forgotten before they are seen: an address may be another thread's.
        let mut links = vec![self.tracepoint("sched_free", "sched_process_free")?];
        let switch = self.tracepoint("sched_switch", "sched_switch");
        let tells_involuntary = switch.is_ok();
        links.push(switch.or_else(|error| {
            debug!(error, "no thread states in sched_switch");
            self.tracepoint("sched_switch_old", "sched_switch")
        })?);
        links.push(self.tracepoint("sched_wakeup", "sched_wakeup")?);
        links.push(self.tracepoint("sched_wakeup", "sched_wakeup_new")?);
        Ok(RunQueueLinks { _links: links, tells_involuntary })
    }

    fn tracepoint(&self, name: &str, tracepoint: &str) -> Result<RawTracePointLink, String> {
        let attached = self.with_tracepoint(name, |program| {
            match program.load() {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
                Err(error) => return Err(error),
            }
            let id = program.attach(tracepoint)?;
            program.take_link(id)
        });
        match attached {
            Some(Ok(link)) => Ok(link),
            Some(Err(error)) => Err(format!("tracepoint {tracepoint}: {}", chain(&error))),
            None => Err(format!("program {name} is not in the object")),
        }
    }
}
