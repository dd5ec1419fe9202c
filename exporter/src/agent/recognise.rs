//! Which programs are Go: a few kilobytes of an executable tell, and are read once a file, away from the event loop, since its file
//! system may never answer. Knows nothing of who is wanted.

use std::{collections::hash_map::Entry, io};

use super::{
    Agent, Message,
    passed::Waiting,
    state::{Kind, State},
    turns::Who,
};
use crate::process::Process;

/// What a look at an executable gave.
pub(super) struct Recognised {
    process: Process,
    /// Where it could not be read: why, if it never can be.
    kind: Result<Kind, Option<String>>,
}

impl Agent {
    /// Whether the executable is Go; none where that is being looked at, and then the process is looked at once more.
    pub(super) fn is_go(&self, process: &Process) -> Option<bool> {
        let mut state = self.state();
        if let Some(go) = state.is_go(process) {
            return Some(go);
        }
        match state.recognising.entry((process.file, process.device)) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().of.insert(process.id.pid, process.clone());
                return None;
            }
            Entry::Vacant(slot) => slot.insert(Waiting::of(process)),
        };
        drop(state);
        let process = process.clone();
        self.elsewhere(Who::of(&process), None, move |agent| {
            let kind = kind_of(&process);
            agent.send(Message::Recognised(Box::new(Recognised { process, kind })));
        });
        None
    }

    /// Looks once more at who waited for it.
    pub(super) fn recognised(&self, outcome: Recognised) {
        let Recognised { process, kind } = outcome;
        let waiting = {
            let mut state = self.state();
            let waiting = state.recognising.remove(&(process.file, process.device));
            let mut waiting = waiting.map(|waiting| waiting.of).unwrap_or_default();
            match kind {
                Ok(kind) => state.remember_kind(&process, kind),
                // That it could not be read of one process, as of one that ended, says nothing of the file.
                Err(never) => {
                    waiting.remove(&process.id.pid);
                    state.unwanted.insert(process.id.pid, Some(process.id));
                    if let Some(reason) = never {
                        state.passed.note(&process, format!("cannot read the executable: {reason}"));
                    }
                }
            }
            waiting
        };
        for pid in waiting.into_keys() {
            self.look(pid);
        }
    }
}

impl State {
    fn is_go(&self, process: &Process) -> Option<bool> {
        if self.inspections.contains_key(&process.file) {
            return Some(true);
        }
        self.kinds.get(&(process.file, process.device)).map(|kind| matches!(kind, Kind::Go))
    }
}

fn kind_of(process: &Process) -> Result<Kind, Option<String>> {
    let never = |error: io::Error| (error.kind() == io::ErrorKind::Unsupported).then(|| error.to_string());
    match gobinary::is_go(process.open().map_err(never)?) {
        Ok(true) => Ok(Kind::Go),
        Err(gobinary::Error::Unreadable(_)) => Err(None),
        Ok(false) | Err(_) => Ok(Kind::Other("not a Go program".into())),
    }
}
