//! Which programs are Go: a few kilobytes of an executable tell, and are read once a file, away from what drives the life cycle of
//! targets, since its file system may never answer. Knows nothing of who is wanted.

use std::{io, time::Instant};

use super::{
    Agent,
    follow::Message,
    registry::{Kind, Recognition},
    turns::Who,
};
use crate::process::Process;

/// What a look at an executable gave.
pub(super) struct Recognised {
    pub(super) process: Process,
    /// Where it could not be read: why, if it never can be.
    pub(super) kind: Result<Kind, Option<String>>,
}

impl Agent {
    /// Whether the executable is Go; none where that is being looked at, and then the process is looked at once more.
    pub(super) fn is_go(&self, process: &Process) -> Option<bool> {
        let now = Instant::now();
        let recognition = self.state().files.recognise(process, now);
        match recognition {
            Recognition::Go => return Some(true),
            Recognition::Other => return Some(false),
            Recognition::Unknown { ask: false } => return None,
            Recognition::Unknown { ask: true } => {}
        }
        let process = process.clone();
        self.elsewhere(Who::of(&process), None, move |agent| {
            let kind = kind_of(&process);
            agent.send(Message::Recognised(Box::new(Recognised { process, kind })));
        });
        None
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
