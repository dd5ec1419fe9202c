//! Loading: the object for this architecture, by the attach method this kernel offers, with errors that say what is missing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{RawTracePoint, UProbe},
    sys::{UProbeMultiFeature, is_uprobe_multi_supported},
    util::KernelVersion,
};
use clap::ValueEnum;
use exporter_ebpf::{key::MAX_WAITS, probe::Probe};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::target::Features;

use super::{
    events::{Events, KernelLog},
    maps::Maps,
    refusal::{LoadError, chain, is_permission, known_cause, refused},
};

#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("GOPULSE_BPF_OBJECT_DIR"), "/gopulse-x86_64.o"));
#[cfg(target_arch = "aarch64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("GOPULSE_BPF_OBJECT_DIR"), "/gopulse-aarch64.o"));

/// How probes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    /// `uprobe_multi` where the kernel has it, otherwise perf events.
    #[default]
    Auto,
    /// `uprobe_multi` links: Linux 6.6 on, CAP_BPF and CAP_PERFMON, detaches in milliseconds.
    UprobeMulti,
    /// One perf event per site: every kernel, CAP_SYS_ADMIN on most, about 100 ms a site to detach.
    PerfEvent,
}

impl Method {
    /// The program of a probe that this attaches.
    pub(super) const fn program(self, probe: Probe) -> &'static str {
        match self {
            Self::PerfEvent => probe.program(),
            Self::Auto | Self::UprobeMulti => probe.program_multi(),
        }
    }
}

/// Sizes and choices for loading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How to attach.
    pub(crate) method: Method,
    /// Entries of the map of series.
    pub(crate) max_series: u32,
    /// Entries of the map of requests in flight.
    pub(crate) max_in_flight: u32,
    /// Entries of the map of blocked goroutines.
    pub(crate) max_parked: u32,
    /// Which programs are loaded at once: those of these. The others are when something is first attached by them.
    pub(crate) features: Features,
    /// All programs are loaded, and it is an error if the kernel refuses one: for tests of kernels, and for what counts instructions.
    pub(crate) load_all: bool,
}

/// The loaded programs and maps. Dropping it detaches and frees everything.
pub(crate) struct Kernel {
    ebpf: Mutex<Ebpf>,
    method: Method,
    lacks: Vec<&'static str>,
    maps: Maps,
    /// Probes whose programs are loaded, or which the kernel has refused, and why. Held for moments: an attach that the kernel keeps waiting
    /// has the other lock.
    known: Mutex<BTreeMap<Probe, Result<(), String>>>,
}

impl Kernel {
    /// Loads the maps and what is wanted of the programs, and starts the process tracepoints. A program that the kernel refuses costs
    /// what needs it: see [`Self::loaded`].
    pub(crate) fn load(options: &Options) -> Result<(Self, Events, KernelLog), LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let method = choose(options.method)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SERIES", options.max_series.saturating_add(MAX_WAITS))
            .map_max_entries("INFLIGHT", options.max_in_flight)
            .map_max_entries("PARKED", options.max_parked)
            .load(OBJECT)
            .map_err(|error| known_cause(&error).unwrap_or_else(|| LoadError::Object(chain(&error))))?;
        let missing = |what: String| LoadError::Object(what);
        let log = KernelLog::take(&mut ebpf).map_err(missing)?;
        let mut lacks = lacks(method);
        // Whatever keeps this one from being loaded keeps all.
        let verified = load(&mut ebpf, method.program(Probe::Nothing))?;
        if verified.is_none() {
            lacks.push(NO_COUNTS);
        }
        let mut known = BTreeMap::from([(Probe::Nothing, Ok(()))]);
        for &probe in Probe::ALL {
            let wanted = options.features.has(probe.feature()) && probe.is_usual();
            if !options.load_all && !wanted {
                continue;
            }
            let loaded = match load(&mut ebpf, method.program(probe)) {
                Ok(_) => Ok(()),
                Err(error) if options.load_all || !error.is_of_one_program() => return Err(error),
                Err(error) => Err(told(&error)),
            };
            known.insert(probe, loaded);
        }
        for (name, tracepoint) in [("process_exec", "sched_process_exec"), ("process_exit", "sched_process_exit")] {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            program.load().map_err(|error| refused(name, &error))?;
            program.attach(tracepoint).map_err(|error| refused(name, &error))?;
        }
        let events = Events::take(&mut ebpf).map_err(missing)?;
        let maps = Maps::take(&mut ebpf).map_err(missing)?;
        let known = Mutex::new(known);
        Ok((Self { ebpf: Mutex::new(ebpf), method, lacks, maps, known }, events, log))
    }

    /// The method in use: never [`Method::Auto`].
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// What this kernel is without that gopulse has a use for, and what it does instead, for people.
    pub(crate) fn lacks(&self) -> &[&'static str] {
        &self.lacks
    }

    /// The maps.
    pub(crate) fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Loads a probe's program unless it is loaded; why not, if it cannot be.
    pub(super) fn loaded(&self, probe: Probe) -> Result<(), String> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = known().get(&probe) {
            return loaded.clone();
        }
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match load(&mut ebpf, self.method.program(probe)) {
            Ok(_) => Ok(()),
            // There may be memory again.
            Err(error) if !error.is_of_one_program() => return Err(error.to_string()),
            Err(error) => Err(told(&error)),
        };
        known().insert(probe, loaded.clone());
        loaded
    }

    /// Why the kernel refuses a probe's program for good, if it does. Loads it.
    pub(crate) fn refusal(&self, probe: Probe) -> Option<String> {
        let loaded = self.loaded(probe);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.err().filter(|_| known.contains_key(&probe))
    }

    /// Access to a tracepoint's program.
    pub(super) fn with_tracepoint<T>(&self, name: &str, act: impl FnOnce(&mut RawTracePoint) -> T) -> Option<T> {
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let program: &mut RawTracePoint = ebpf.program_mut(name)?.try_into().ok()?;
        Some(act(program))
    }

    /// Access to the programs, one user at a time.
    pub(super) fn with_program<T>(&self, name: &str, act: impl FnOnce(&mut UProbe) -> T) -> Option<T> {
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let program: &mut UProbe = ebpf.program_mut(name)?.try_into().ok()?;
        Some(act(program))
    }
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut P, LoadError>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| LoadError::Object(format!("program {name} is not in the object")))
}

/// Loads a program unless it is loaded: instructions that the verifier walked through, where the kernel counts them.
fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<Option<u32>, LoadError> {
    let program = program::<UProbe>(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|error| refused(name, &error))?;
        let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
        debug!(program = name, verified_instructions = verified, "loaded");
    }
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// Tells of a refusal, in the log and for `/targets`.
fn told(error: &LoadError) -> String {
    let reason = error.to_string();
    warn!(reason, "an eBPF program cannot be loaded: what needs it is off");
    reason
}

/// Links limited to one process need the fix that makes the filter mean the process and not one thread (6.10, and backports:
/// Linux commit 46ba0e49b); a kernel without it is served by perf events.
fn choose(wanted: Method) -> Result<Method, LoadError> {
    match wanted {
        Method::PerfEvent => Ok(Method::PerfEvent),
        Method::Auto | Method::UprobeMulti => {
            match is_uprobe_multi_supported(UProbeMultiFeature::ProcessScopedPidFilter) {
                Ok(true) => Ok(Method::UprobeMulti),
                Ok(false) if wanted == Method::Auto => Ok(Method::PerfEvent),
                Ok(false) => Err(LoadError::NoUprobeMulti),
                Err(error) if is_permission(&error) => Err(LoadError::Permission(error)),
                Err(_) if wanted == Method::Auto => Ok(Method::PerfEvent),
                Err(error) => Err(LoadError::Unknown(error)),
            }
        }
    }
}

const NO_COUNTS: &str = "the verifier's instruction counts (Linux 5.16): not shown";

/// What this kernel is without, as far as that is known before anything is loaded.
fn lacks(method: Method) -> Vec<&'static str> {
    let mut lacks = Vec::new();
    let multi = || matches!(is_uprobe_multi_supported(UProbeMultiFeature::ProcessScopedPidFilter), Ok(true));
    if method == Method::PerfEvent && !multi() {
        lacks.push("uprobe_multi links (Linux 6.10): perf events instead, which need CAP_SYS_ADMIN and detach slowly");
    }
    if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 18, 0)) {
        lacks.push(
            "thread states in sched_switch (Linux 5.18): run queue latency is seen after wake-ups alone, and involuntary \
             switches are not counted",
        );
    }
    if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0)) {
        lacks.push(
            "memory accounting of maps (Linux 5.11): the locked-memory limit instead, which needs CAP_SYS_RESOURCE",
        );
    }
    lacks
}
