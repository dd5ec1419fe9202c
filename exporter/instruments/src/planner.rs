//! Plans the probes of a Go binary: what all instruments do to find a site or an offset, and what becomes of a part that lacks one.
//! Knows no instrument by name.

use std::collections::{BTreeMap, BTreeSet};

use exporter_ebpf::{
    facts::Facts,
    feature::Part,
    probe::{At, Probe, Role},
    target::{NONE, TargetConfig},
};
use gobinary::{Function, GoBinary, Site, SiteError};

use crate::{
    ALL, Disabled, Planned, PlannedProbe, inlined, patchers,
    planned::{Change, RouteSource, leave_out},
    unmeasured,
};

/// Where probes go in a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sites {
    /// At the cheapest site that means the same.
    #[default]
    Chosen,
    /// A request's probes as tracers commonly place them, for comparison: at the first byte of the function that calls the
    /// handler, and at each of its RETs, where the end's program finds no response writer and counts nothing.
    EntryRet,
    /// Programs that do nothing where an HTTP/1 request's go, for comparison: nothing is counted.
    Empty,
}

/// Functions that a binary has to be asked for.
pub fn functions() -> Vec<&'static str> {
    let own = ALL.iter().flat_map(|it| it.functions.iter().copied());
    let all = own.chain(unmeasured::functions()).chain(inlined::callers()).chain(patchers::FUNCTIONS);
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Structs whose layouts it has to be asked for, with their fields: those of the instruments, and `more`.
pub fn layouts(more: &[(&'static str, &'static [&'static str])]) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (ty, fields) in ALL.iter().flat_map(|it| it.layouts).chain(more) {
        let known = all.entry(ty).or_default();
        for field in *fields {
            if !known.contains(field) {
                known.push(field);
            }
        }
    }
    all
}

/// Plans what can be measured of a binary that was parsed with [`functions`] and [`layouts`].
pub fn plan(binary: &GoBinary, sites: Sites) -> Planned {
    let mut planner = Planner {
        binary,
        sites,
        config: TargetConfig::NONE,
        facts: Facts::NONE,
        probes: Vec::new(),
        disabled: Vec::new(),
        not_used: Vec::new(),
        nests_muxes: false,
        routes_from: Vec::new(),
    };
    for instrument in ALL {
        (instrument.plan)(&mut planner);
    }
    planner.leave_out_inlined();
    if let Some(reason) = patchers::reason(&binary.build_info, |name| binary.function(name).is_some()) {
        planner.nothing(&reason);
    }
    let Planner { config, facts, probes, disabled, not_used, nests_muxes, routes_from, .. } = planner;
    Planned { probes, disabled, not_used, config, facts, nests_muxes, routes_from }
}

/// What an instrument plans with.
pub(crate) struct Planner<'b> {
    pub(crate) binary: &'b GoBinary,
    pub(crate) sites: Sites,
    /// What the kernel side will be told.
    pub(crate) config: TargetConfig,
    /// The same for instruments of their own.
    pub(crate) facts: Facts,
    probes: Vec<PlannedProbe>,
    disabled: Vec<Disabled>,
    not_used: Vec<Part>,
    pub(crate) nests_muxes: bool,
    pub(crate) routes_from: Vec<RouteSource>,
}

impl<'b> Planner<'b> {
    /// Plans a part: all of its probes, or none, and then it is off for the reason given.
    pub(crate) fn part(&mut self, part: Part, plan: impl FnOnce(&mut Self) -> Result<(), String>) {
        let before = self.probes.len();
        if let Err(reason) = plan(self) {
            self.probes.truncate(before);
            self.off(part, reason);
        }
    }

    /// Whether the program has a part's code, of which any of these functions tells: the linker leaves out what is never called.
    /// Where it has some of it, something is wrong with the rest, and that is said where it is planned.
    pub(crate) fn uses(&mut self, part: Part, functions: &[&str]) -> bool {
        let uses = functions.iter().any(|function| self.binary.function(function).is_some());
        if !uses {
            self.not_used.push(part);
        }
        uses
    }

    /// Turns a part off.
    pub(crate) fn off(&mut self, part: Part, reason: impl Into<String>) {
        self.disabled.push(Disabled { part, reason: reason.into() });
    }

    /// Whether any probe is planned of a feature's.
    pub(crate) fn has_probes(&self, feature: exporter_ebpf::feature::Feature) -> bool {
        self.probes.iter().any(|it| it.feature() == feature)
    }

    /// The offset of a field; [`NONE`] where it is not known or there is none.
    pub(crate) fn offset(&self, ty: &str, field: &str) -> u16 {
        self.binary.layouts().offset(ty, field).and_then(|offset| u16::try_from(offset).ok()).unwrap_or(NONE)
    }

    /// Plans a probe in a function, where the probe's line in the list says; why not, if it cannot be.
    pub(crate) fn probe(&mut self, probe: Probe, function: &str) -> Result<(), String> {
        let found = self.function(function)?;
        let sites = self.sites_of(probe, found).map_err(|error| format!("{function}: {error}"))?;
        self.probe_at(probe, function, sites);
        Ok(())
    }

    /// Plans a probe at these sites of a function.
    pub(crate) fn probe_at(&mut self, probe: Probe, function: &str, sites: Vec<Site>) {
        self.probes.extend(sites.into_iter().map(|site| PlannedProbe {
            probe,
            function: function.to_owned(),
            instruction: site.instruction,
            function_offset: site.function_offset,
            file_offset: site.file_offset,
            cost: site.cost.as_str().to_owned(),
            on_demand: probe.role() == Role::OnDemand,
        }));
    }

    /// A function of the program; why not, if it is not there.
    pub(crate) fn function(&self, function: &str) -> Result<&'b Function, String> {
        self.binary.function(function).ok_or_else(|| format!("{function} is not in the binary"))
    }

    fn sites_of(&mut self, probe: Probe, function: &Function) -> Result<Vec<Site>, SiteError> {
        let entry = || self.binary.entry_site(function).map(|site| vec![site]);
        match probe.at() {
            At::Returns => self.binary.return_sites(function),
            At::Branch => self.binary.after_call_site(function).map(|site| vec![site]),
            At::Check => match self.binary.check_site(function) {
                Some(check) => {
                    self.config.at_check |= probe.check_bit();
                    Ok(vec![check])
                }
                None => entry(),
            },
            At::Entry => entry(),
        }
    }

    /// Leaves out what the compiler has inlined: a request whose end no probe sees would be in flight for ever.
    fn leave_out_inlined(&mut self) {
        let mut changes = BTreeSet::new();
        for (function, caller) in inlined::inlined(self.binary) {
            let reason = format!(
                "the compiler has inlined {function} into {caller}, as with a profile (PGO): no probe on it is passed there"
            );
            changes.extend(self.probes.iter().filter(|it| it.function == function).map(|it| Change::new(it, &reason)));
        }
        leave_out(&mut self.probes, &mut self.disabled, &self.not_used, &changes);
    }

    /// Nothing is to be attached.
    fn nothing(&mut self, reason: &str) {
        self.probes.clear();
        let is_probed = |part: &Part| Probe::ALL.iter().any(|it| it.part() == *part);
        let used = Part::ALL.iter().copied().filter(|part| is_probed(part) && !self.not_used.contains(part));
        self.disabled = used.map(|part| Disabled { part, reason: reason.to_owned() }).collect();
    }

    /// Why the offsets of `runtime.g` are not known.
    pub(crate) fn unknown_g(&self) -> String {
        let why = self.binary.layouts().withheld().map_or(String::new(), |why| format!(": {why}"));
        format!("the offsets of runtime.g are not known{why}")
    }

    /// The program's minor version of Go, whose runtime's own words and registers are known; why not, if they are not.
    pub(crate) fn known_runtime(&self) -> Result<u16, String> {
        if self.binary.layouts().withheld().is_some() && !self.binary.layouts().has("runtime.g") {
            return Err(self.unknown_g());
        }
        let version = &self.binary.build_info.go_version;
        match version.minor {
            minor @ 17..=27 => Ok(minor),
            _ => Err(format!("the runtime of {version} is not known")),
        }
    }
}
