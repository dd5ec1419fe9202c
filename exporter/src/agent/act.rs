//! Carries out what the registry says is to be done.

use exporter_ebpf::wait::{WaitState, Window};
use tracing::{debug, info, warn};

use super::{
    Agent,
    follow::Message,
    links::detach_elsewhere,
    registry::{Configure, Effect, Effects, Log, PAUSE},
    turns::Who,
};
use crate::target::Features;

impl Agent {
    /// Carries effects out, in order. The lock must be free.
    pub(super) fn act(&self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Consider(process) => self.consider(*process),
                Effect::Look(pid) => self.look(pid),
                Effect::LookLater(pid) => self.later(PAUSE, Message::Look(pid)),
                Effect::CheckConfigured { id, pid, features } => self.check_configured(id, pid, features),
                Effect::Inspect { id, attempt, process, known } => self.inspect(id, attempt, *process, known),
                Effect::Configure(configure) => {
                    let result = self.configure(&configure);
                    let effects = self.state().configured(*configure, result);
                    self.act(effects);
                }
                Effect::Unconfigure { pid, id } => self.unconfigure(pid, id),
                Effect::Attach(attach) => self.attach(*attach),
                Effect::Detach(key, links) => detach_elsewhere(key, links),
                Effect::Verify { id, process, file_offset } => self.verify(id, *process, file_offset),
                Effect::Joined(key) => self.inner.drivers.wake(&key),
                Effect::MeasureBlocking(key) => self.measure_blocking(key),
                Effect::UpdateRunQueue => self.update_run_queue(),
                Effect::LoseInFlight(id) => self.lose_in_flight(id),
                Effect::Bury => self.bury_soon(),
                Effect::Log(log) => write(log),
            }
        }
    }

    /// An `execve` of the same file may look as if nothing had happened, but takes the process out of the kernel's maps.
    fn check_configured(&self, id: u32, pid: u32, features: Features) {
        let maps = self.inner.kernel.maps();
        let is_configured = features.in_kernel() == 0 || maps.targets.get(pid).is_some();
        if !is_configured {
            let now = self.moment();
            let effects = self.state().unconfigured(id, now);
            self.act(effects);
        }
    }

    /// Enters a target's process into the kernel's maps, unless nothing is measured of it there: parking goroutines are measured only
    /// once the budget says so.
    fn configure(&self, configure: &Configure) -> Result<(), String> {
        let Configure { id, config, facts, .. } = configure;
        if config.on == 0 {
            return Ok(());
        }
        let maps = self.inner.kernel.maps();
        // All that a probe finds is there before the process is.
        maps.windows
            .set(*id, &Window::CLOSED)
            .and_then(|()| maps.wait_states.set(*id, &WaitState::default()))
            .and_then(|()| maps.facts.set(*id, facts))
            .and_then(|()| maps.targets.insert(config))
            .map_err(|error| format!("the kernel's maps of targets: {error}"))
    }

    /// Removes a process from the kernel's maps, if it is still this target's there.
    fn unconfigure(&self, pid: u32, id: u32) {
        let targets = &self.inner.kernel.maps().targets;
        if targets.get(pid).is_some_and(|config| config.id == id) {
            targets.remove(pid);
        }
    }

    /// See [`Effect::Verify`].
    fn verify(&self, id: u32, process: crate::process::Process, file_offset: u64) {
        self.elsewhere(Who::of(&process), None, move |agent| {
            // Where it cannot be seen, nothing speaks against it.
            if !crate::process::is_probed(&process, file_offset).unwrap_or(true) {
                agent.send(Message::Regroup(id));
            }
        });
    }
}

fn write(log: Log) {
    match log {
        Log::Selected(pid, executable) => debug!(pid, executable = %executable.display(), "selected"),
        Log::NoRoom { pid, owner } => {
            warn!(pid, %owner, "not measured: as many targets as there can be, or as one pod or cgroup may have");
        }
        Log::Measured { pid, executable, go } => info!(pid, executable = %executable.display(), go, "measured"),
        Log::NotMeasured { pid, executable, reason } => {
            info!(pid, executable = %executable.display(), reason, "not measured");
        }
        Log::Failed { pid, executable, reason } => {
            warn!(pid, executable = %executable.display(), reason, "not measured: it is tried again");
        }
        Log::ByItself(pid) => info!(pid, "inspected by itself, for probes of its own"),
        Log::Swapped { pid, error } => warn!(pid, error, "inspected once more"),
        Log::SplitUp(reason) => warn!(reason, "probes on a file are in all of its processes: each has its own"),
        Log::CodeReplaced { pid, executable, back: true } => {
            info!(pid, executable = %executable.display(), "it dropped pages of its code, and the probes in them: they are there again");
        }
        Log::CodeReplaced { pid, executable, back: false } => {
            warn!(pid, executable = %executable.display(), "not measured any more: it runs code that is not its file's");
        }
        Log::Ended(pid, executable) => info!(pid, executable = %executable.display(), "ended"),
    }
}
