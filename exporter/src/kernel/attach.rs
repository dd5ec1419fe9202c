//! Attaching programs to executables, and letting go.

use std::{fs::File, io, num::NonZeroU32, os::fd::AsRawFd as _, path::Path};

use aya::programs::{
    ProgramError,
    uprobe::{UProbeLink, UProbeScope},
};
use exporter_ebpf::probe::Probe;
use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;

use super::{load::Kernel, refusal::chain, underway::Underway};

/// Which processes a probe fires for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every process that maps the file: one breakpoint handler, whatever their number.
    File,
    /// One process.
    Process(u32),
}

/// Why a probe could not be attached.
#[derive(Debug, Error)]
pub(crate) enum AttachError {
    #[error(
        "no permission to attach {probe:?}: CAP_BPF and CAP_PERFMON are needed, and CAP_SYS_ADMIN where probes are perf events"
    )]
    Permission { probe: Probe },
    #[error("the process ended before {probe:?} was attached")]
    Gone { probe: Probe },
    #[error("nothing is attached: {0}")]
    Swapped(std::io::Error),
    #[error("nothing is attached: {0}")]
    Patched(String),
    #[error("cannot attach {probe:?}: {reason}")]
    Refused { probe: Probe, reason: String },
}

/// An attached probe. Dropping it detaches, which blocks: 20 ms for a `uprobe_multi` link, 100 ms a site for perf events.
pub(crate) struct Link {
    // Dropped for its effect; there until then.
    link: Option<UProbeLink>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let link = self.link.take();
        match Underway::begin() {
            Some(_underway) => drop(link),
            // The kernel detaches it when the process has ended.
            None => std::mem::forget(link),
        }
    }
}

impl Kernel {
    /// Attaches a program at file offsets of an executable.
    pub(crate) fn attach(&self, probe: Probe, exe: &Path, offsets: &[u64], scope: Scope) -> Result<Link, AttachError> {
        let scope = match scope {
            Scope::File => UProbeScope::AllProcesses,
            Scope::Process(pid) => UProbeScope::OneProcess(NonZeroU32::new(pid).ok_or(AttachError::Gone { probe })?),
        };
        if let Some(limit) = descriptors_run_out() {
            let reason = format!(
                "{limit} files may be open (RLIMIT_NOFILE), and the last of them are for scrapes: raise the limit"
            );
            return Err(AttachError::Refused { probe, reason });
        }
        self.loaded(probe).map_err(|reason| AttachError::Refused { probe, reason })?;
        let Some(_underway) = Underway::begin() else {
            return Err(AttachError::Refused { probe, reason: "gopulse is about to end".into() });
        };
        let attached = self.with_program(self.method().program(probe), |program| {
            let id = program.attach(offsets, exe, scope)?;
            program.take_link(id)
        });
        match attached {
            Some(Ok(link)) => Ok(Link { link: Some(link) }),
            Some(Err(error)) => Err(why(probe, &error)),
            None => Err(AttachError::Refused { probe, reason: "its program is not loaded".into() }),
        }
    }
}

/// Descriptors that links leave to scrapes, connections and looks at processes.
const DESCRIPTORS_KEPT: u64 = 64;

/// The limit of open files, if a link would take one of the last. The lowest free descriptor tells: it is the one that is given next.
fn descriptors_run_out() -> Option<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let next = File::open("/dev/null").map_or(limit, |file| u64::from(file.as_raw_fd().unsigned_abs()));
    (next + DESCRIPTORS_KEPT >= limit).then_some(limit)
}

fn why(probe: Probe, error: &ProgramError) -> AttachError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => return AttachError::Permission { probe },
                Some(libc::ESRCH | libc::ENOENT) => return AttachError::Gone { probe },
                _ => {}
            }
        }
        next = cause.source();
    }
    AttachError::Refused { probe, reason: chain(error) }
}
