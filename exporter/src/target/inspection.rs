//! What an inspection of a Go binary says. Knows nothing of how that is found out.

use std::{collections::BTreeMap, fmt, fs::File, io, sync::Arc};

use exporter_ebpf::{facts::Facts, target::TargetConfig};
use gobinary::GoBinary;
use instruments::{Disabled, PlannedProbe, RouteSource, Unmeasured, part_names};
use serde::Serialize;

use super::{Feature, Features, Part};
use crate::{process::Code, runtime};

/// A module linked into the executable.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Module {
    /// Its path.
    path: String,
    /// Its version, or the replacement's.
    version: String,
    /// What replaces it, where it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
}

impl Module {
    pub(super) fn of(module: &gobinary::Module) -> Self {
        let used = module.replace.as_deref().unwrap_or(module);
        Self {
            path: module.path.clone(),
            version: used.version.clone(),
            replaced_by: module.replace.as_ref().map(|it| it.path.clone()),
        }
    }
}

/// Where an executable has what its processes have elsewhere, as position-independent ones do.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Read-only memory, in which string literals are: link-time address and length.
    literals: (u64, u64),
    /// Where code is that tells how far from its link-time address the program is loaded: address and offset in the file.
    anchor: Option<(u64, u64)>,
    pie: bool,
}

impl Placed {
    pub(super) fn of(binary: &GoBinary) -> Self {
        let function = binary.functions().first().map(|function| function.addr);
        let anchor = function.and_then(|addr| Some((addr, binary.file_offset(addr)?)));
        Self { literals: binary.constants, anchor, pie: binary.pie }
    }

    /// How far from its link-time addresses a process has all; none where that is not known.
    fn bias(&self, pid: u32) -> Option<u64> {
        match (self.pie, self.anchor) {
            (false, _) => Some(0),
            (true, Some(anchor)) => runtime::load_bias(pid, anchor).ok(),
            (true, None) => None,
        }
    }
}

/// What inspecting an executable gave.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Inspection {
    /// As Go writes it: "go1.22.10".
    pub(crate) go_version: String,
    /// Main module's path, or the main package's without modules.
    pub(crate) main_module: String,
    /// Its version.
    pub(crate) main_version: String,
    /// Where function addresses are from.
    pub(crate) functions_from: String,
    /// Where struct offsets are from.
    pub(crate) layouts_from: String,
    /// How the runtime's variables were found: a source and how many by it.
    pub(crate) variables_from: BTreeMap<&'static str, usize>,
    /// The runtime's variables: link-time addresses.
    pub(crate) variables: BTreeMap<&'static str, u64>,
    /// The build id, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
    /// What was odd, and why the recorded Go version cannot be true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    /// Bytes of the file that were read.
    pub(crate) bytes_read: u64,
    /// Modules linked in: path and version, the main module first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) modules: Vec<Module>,
    /// Build settings, as `go version -m` shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) settings: Vec<(String, String)>,
    /// Sites.
    #[serde(rename = "probe_sites")]
    pub(crate) probes: Vec<PlannedProbe>,
    /// What is off.
    pub(crate) disabled: Vec<Disabled>,
    /// What the program has no code for: nothing is off there.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "part_names")]
    pub(crate) not_used: Vec<Part>,
    /// Servers in it whose requests are not measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_measured: Vec<Unmeasured>,
    /// Routers in it, and where their routes come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes_from: Vec<RouteSource>,
    /// How long it took, seconds.
    pub(crate) seconds: f64,
    /// The code that probes are to be put into, as it was when it was inspected.
    #[serde(skip)]
    pub(crate) code: Code,
    /// Where its memory is.
    #[serde(skip)]
    pub(super) placed: Placed,
    /// What the kernel side is told; the target's id and limits are still to be set.
    #[serde(skip)]
    pub(crate) config: TargetConfig,
    /// The same for its instruments; addresses are those of the file.
    #[serde(skip)]
    pub(super) facts: Facts,
    /// How the runtime's own figures are read, or why they cannot be.
    #[serde(skip)]
    pub(crate) runtime: Result<Arc<runtime::Plan>, String>,
    /// Offset of `runtime.g.atomicstatus`.
    #[serde(skip)]
    pub(crate) g_status: u16,
    /// Offset of `runtime.g.trackingSeq`.
    #[serde(skip)]
    pub(crate) g_tracking_seq: u16,
    /// 22 of go1.22.10; 0 where the version is not known.
    #[serde(skip)]
    pub(crate) go_minor: u16,
    /// Whether it uses what a mux may be put behind that a request's own pattern does not tell of.
    #[serde(skip)]
    pub(crate) nests_muxes: bool,
}

impl Inspection {
    /// Whether any of what is asked for can be measured.
    pub(crate) fn measures_something(&self, features: Features) -> bool {
        let has = |part: Part| !self.not_used.contains(&part) && !self.disabled.iter().any(|off| off.part == part);
        // By itself the run queue, which has no part, is no reason to take a process.
        Part::ALL.iter().any(|&part| features.has(part.feature()) && part.is_enough() && has(part))
    }

    /// What the kernel side is told of a process: where its string literals are (address and length, of no length where that is not
    /// known), and what its instruments need.
    pub(crate) fn in_process(&self, pid: u32) -> ((u64, u64), Facts) {
        let (from, len) = self.placed.literals;
        let mut facts = match self.placed.bias(pid) {
            None => return ((from, 0), Facts::NONE),
            Some(bias) => self.facts.moved(bias),
        };
        facts.last_gc = self.runtime.as_ref().ok().and_then(|plan| plan.last_gc_in(pid)).unwrap_or(0);
        ((from.wrapping_add(self.placed.bias(pid).unwrap_or(0)), len), facts)
    }

    /// Remembers the code that probes would be put into.
    ///
    /// # Errors
    /// As reading the file gives them.
    pub(crate) fn remember_code(&mut self, file: &File) -> io::Result<()> {
        self.code = Code::read(file, self.probes.iter().map(PlannedProbe::span))?;
        Ok(())
    }

    /// Why nothing can.
    pub(crate) fn why_nothing(&self) -> String {
        // That it serves in a way that is not measured says more than that it has no server of net/http.
        if let Some(unmeasured) = self.not_measured.first() {
            return unmeasured.reason.into();
        }
        // What is off of what it uses says more than what it does not use.
        if let Some(off) = self.disabled.first() {
            return off.reason.clone();
        }
        if Part::ALL
            .iter()
            .filter(|it| it.feature() == Feature::Http && it.is_enough())
            .all(|it| self.not_used.contains(it))
        {
            return "it has no server of net/http".into();
        }
        "nothing that is asked for can be measured".into()
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Go version      {}", self.go_version)?;
        writeln!(out, "main module     {} {}", self.main_module, self.main_version)?;
        writeln!(out, "functions from  {}", self.functions_from)?;
        writeln!(out, "layouts from    {}", self.layouts_from)?;
        let variables: Vec<_> =
            self.variables_from.iter().map(|(from, count)| format!("{count} from {from}")).collect();
        writeln!(
            out,
            "variables       {}",
            if variables.is_empty() { "none".to_owned() } else { variables.join(", ") }
        )?;
        writeln!(out, "read            {} KiB in {:.0} ms", self.bytes_read / 1024, self.seconds * 1e3)?;
        for note in &self.notes {
            writeln!(out, "note            {note}")?;
        }
        writeln!(out, "probe sites")?;
        for it in &self.probes {
            let when = if it.on_demand { ", on demand" } else { "" };
            writeln!(
                out,
                "  {:<12} {}+{:#x}: {} ({}{when})",
                format!("{:?}", it.probe),
                it.function,
                it.function_offset,
                it.instruction,
                it.cost
            )?;
        }
        for off in &self.disabled {
            writeln!(out, "off  {:?}: {}", off.part, off.reason)?;
        }
        for part in &self.not_used {
            writeln!(out, "not used  {part:?}")?;
        }
        for it in &self.routes_from {
            writeln!(out, "router  {} {}: routes from {}", it.router, it.version, it.from)?;
        }
        for it in &self.not_measured {
            writeln!(out, "not measured  {}: {}", it.server, it.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Inspection {
    /// Of a program with one HTTP/1 probe, whose code differs from that of any other sum, for tests.
    pub(crate) fn sample(code: u64) -> Self {
        use exporter_ebpf::target::NONE;
        use instruments::Probe;

        let probe = PlannedProbe {
            probe: Probe::HttpStart,
            function: "net/http.serverHandler.ServeHTTP".into(),
            instruction: "push %rbp".into(),
            function_offset: 0,
            file_offset: 0x1000,
            cost: "trap".into(),
            on_demand: false,
        };
        Self {
            go_version: "go1.25.1".into(),
            main_module: "example.com/app".into(),
            main_version: "(devel)".into(),
            functions_from: "pclntab".into(),
            layouts_from: "table".into(),
            variables_from: BTreeMap::new(),
            variables: BTreeMap::new(),
            build_id: None,
            notes: Vec::new(),
            bytes_read: 0,
            modules: Vec::new(),
            settings: Vec::new(),
            probes: vec![probe],
            disabled: Vec::new(),
            not_used: Vec::new(),
            not_measured: Vec::new(),
            routes_from: Vec::new(),
            seconds: 0.0,
            code: Code::sample(code),
            placed: Placed { literals: (0, 0), anchor: None, pie: false },
            config: TargetConfig::NONE,
            facts: Facts::NONE,
            runtime: Err("not in a test".into()),
            g_status: NONE,
            g_tracking_seq: NONE,
            go_minor: 25,
            nests_muxes: false,
        }
    }
}
