//! Processes that execute one program after another: probes would be attached to each, at some milliseconds of CPU time, and
//! the next `execve` would take them away. Knows when to wait for such a process, and nothing of what is attached.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::process::ProcessId;

/// So many programs within [`WITHIN`] are one after another.
const MANY: usize = 3;
const WITHIN: Duration = Duration::from_secs(1);
/// How long such a process must have kept its program.
pub(in crate::agent) const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done with a process that is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Consider it now.
    Over,
    /// Look at it again after [`PAUSE`].
    Look,
    /// Nothing: it will be looked at again.
    Wait,
}

/// When processes that have been targets executed their last programs. A scan forgets those that are gone, so that there are never
/// more than there are processes, and an `execve` costs one look-up however many there are.
#[derive(Default)]
pub(super) struct Restless(HashMap<u32, Run>);

struct Run {
    id: ProcessId,
    /// The newest first.
    times: [Option<Instant>; MANY],
    /// When it was last asked to be looked at again.
    asked: Option<Instant>,
}

impl Restless {
    /// A target's process has executed this program.
    pub(super) fn executed(&mut self, id: ProcessId, now: Instant) -> Patience {
        let run = self.0.entry(id.pid).or_insert(Run { id, times: [None; MANY], asked: None });
        run.execute(id, now);
        run.patience(now)
    }

    /// A process that is no target runs this program.
    pub(super) fn runs(&mut self, id: ProcessId, now: Instant) -> Patience {
        let Some(run) = self.0.get_mut(&id.pid) else { return Patience::Over };
        if run.id != id {
            run.execute(id, now);
        }
        run.patience(now)
    }

    /// Forgets processes that are gone.
    pub(super) fn retain(&mut self, present: &HashSet<u32>) {
        self.0.retain(|pid, _| present.contains(pid));
    }
}

impl Run {
    fn execute(&mut self, id: ProcessId, now: Instant) {
        self.id = id;
        self.times.rotate_right(1);
        self.times[0] = Some(now);
    }

    fn patience(&mut self, now: Instant) -> Patience {
        let since = |time: Option<Instant>| time.map(|time| now.saturating_duration_since(time));
        let one_after_another = since(self.times[MANY - 1]).is_some_and(|first| first < WITHIN);
        if !one_after_another || since(self.times[0]).is_none_or(|last| last >= PAUSE) {
            return Patience::Over;
        }
        if since(self.asked).is_some_and(|asked| asked < PAUSE) {
            return Patience::Wait;
        }
        self.asked = Some(now);
        Patience::Look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    fn program(pid: u32, number: u64) -> ProcessId {
        Process::sample(pid, number, 1).id
    }

    #[test]
    fn who_executes_one_program_after_another_is_waited_for() {
        let (mut restless, start) = (Restless::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        // A shell that becomes a program by way of others was never a target.
        assert_eq!(restless.runs(program(1, 1), at(0)), Patience::Over);
        assert_eq!(restless.executed(program(1, 2), at(100)), Patience::Over);
        assert_eq!(restless.executed(program(1, 3), at(200)), Patience::Over);
        assert_eq!(restless.executed(program(1, 4), at(300)), Patience::Look);
        // It is no target any more, and goes on: one look is enough.
        assert_eq!(restless.runs(program(1, 5), at(400)), Patience::Wait);
        assert_eq!(restless.runs(program(1, 5), at(500)), Patience::Look, "the look came too early");
        assert_eq!(restless.runs(program(1, 5), at(700)), Patience::Over);
        // Two a second are attached each.
        assert_eq!(restless.executed(program(1, 6), at(2000)), Patience::Over);
        assert_eq!(restless.executed(program(1, 7), at(2500)), Patience::Over);
        assert_eq!(restless.executed(program(1, 8), at(3000)), Patience::Over);
        assert_eq!(restless.runs(program(2, 1), at(3000)), Patience::Over, "another process");
    }

    #[test]
    fn a_program_that_executes_itself_counts_each_time() {
        let (mut restless, now) = (Restless::default(), Instant::now());
        let same = program(1, 1);
        assert_eq!(restless.executed(same, now), Patience::Over);
        assert_eq!(restless.executed(same, now), Patience::Over);
        assert_eq!(restless.executed(same, now), Patience::Look);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let (mut restless, now) = (Restless::default(), Instant::now());
        for pid in 1..=3 {
            restless.executed(program(pid, 1), now);
        }
        restless.retain(&HashSet::from([2, 7]));
        assert_eq!(restless.0.keys().collect::<Vec<_>>(), [&2]);
    }
}
