//! Attaching programs to executables, and letting go.

use std::{fs::File, io, num::NonZeroU32, os::fd::AsRawFd as _, path::Path};

use aya::programs::{
    ProgramError,
    uprobe::{UProbeLink, UProbeScope},
};
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use thiserror::Error;

use super::{
    load::{Kernel, Method, chain},
    underway::Underway,
};

/// What a probe is for. Each is one eBPF program in two flavours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Probe {
    /// A handler is called.
    HttpStart,
    /// A handler of golang.org/x/net/http2 is called.
    XnetStart,
    /// An HTTP/1 request ends.
    Http1End,
    /// An HTTP/2 request of net/http ends.
    Http2End,
    /// An HTTP/2 request of golang.org/x/net/http2 ends.
    XnetEnd,
    /// A connection is taken over.
    HttpHijack,
    /// A connection is about to be taken over, and its request goes on over HTTP/2.
    H2cUpgrade,
    /// A goroutine panics or exits early.
    HttpPanic,
    /// A ServeMux is called with a copy of the request.
    HttpMux,
    /// A goroutine parks.
    GoPark,
    /// A goroutine gets a thread to run on.
    GoRun,
    /// The world is about to be stopped, for a reason (Go 1.21).
    StwStop,
    /// The world is about to be stopped (Go 1.17 to 1.20).
    StwStopBare,
    /// The world is about to be started, with the record of its stop (Go 1.22 on).
    StwStart,
    /// The world was started.
    StwEnd,
    /// Nothing is to be done, for comparison.
    Nothing,
}

impl Probe {
    /// All of them.
    pub(crate) const ALL: [Self; 16] = [
        Self::HttpStart,
        Self::XnetStart,
        Self::Http1End,
        Self::Http2End,
        Self::XnetEnd,
        Self::HttpHijack,
        Self::H2cUpgrade,
        Self::HttpPanic,
        Self::HttpMux,
        Self::GoPark,
        Self::GoRun,
        Self::StwStop,
        Self::StwStopBare,
        Self::StwStart,
        Self::StwEnd,
        Self::Nothing,
    ];

    /// The program's name in the object.
    pub(crate) fn program(self, method: Method) -> &'static str {
        let (single, multi) = match self {
            Self::HttpStart => ("http_start", "http_start_multi"),
            Self::XnetStart => ("xnet_start", "xnet_start_multi"),
            Self::Http1End => ("http1_end", "http1_end_multi"),
            Self::Http2End => ("http2_end", "http2_end_multi"),
            Self::XnetEnd => ("xnet_end", "xnet_end_multi"),
            Self::HttpHijack => ("http_hijack", "http_hijack_multi"),
            Self::H2cUpgrade => ("h2c_upgrade", "h2c_upgrade_multi"),
            Self::HttpPanic => ("http_panic", "http_panic_multi"),
            Self::HttpMux => ("http_mux", "http_mux_multi"),
            Self::GoPark => ("go_park", "go_park_multi"),
            Self::GoRun => ("go_run", "go_run_multi"),
            Self::StwStop => ("stw_stop", "stw_stop_multi"),
            Self::StwStopBare => ("stw_stop_bare", "stw_stop_bare_multi"),
            Self::StwStart => ("stw_start", "stw_start_multi"),
            Self::StwEnd => ("stw_end", "stw_end_multi"),
            Self::Nothing => ("nothing", "nothing_multi"),
        };
        if method == Method::PerfEvent { single } else { multi }
    }
}

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
        let Some(_underway) = Underway::begin() else {
            return Err(AttachError::Refused { probe, reason: "gopulse is about to end".into() });
        };
        let attached = self.with_program(probe.program(self.method()), |program| {
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
