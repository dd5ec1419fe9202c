//! What can be measured in a Go binary: which functions are probed where, and which offsets that needs.
//! This table is where a new probe is added.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use clap::ValueEnum;
use exporter_ebpf::{
    probe::{At, Role},
    target::{Http2Offsets, NONE, TargetConfig, request_words},
};
use gobinary::{Cost, Function, Global, GoBinary, Instruction, Site, SiteError, Source};

use super::{
    Feature, Part, inlined,
    inspection::{Disabled, Inspection, Literals, Module, PlannedProbe},
    patched::{Change, leave_out},
    patchers, unmeasured,
};
use crate::{kernel::Probe, process::Code, runtime};

/// Where probes go in a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sites {
    /// At the cheapest site that means the same.
    #[default]
    Chosen,
    /// A request's probes as tracers commonly place them, for comparison: at the first byte of the function that calls the
    /// handler, and at each of its RETs, where the end's program finds no response writer and counts nothing.
    EntryRet,
    /// Programs that do nothing where an HTTP/1 request's go, for comparison: nothing is counted.
    Empty,
}

const SERVE_HTTP: &str = "net/http.serverHandler.ServeHTTP";
const FINISH_REQUEST: &str = "net/http.(*response).finishRequest";
const HIJACK: &str = "net/http.(*response).Hijack";
const MUX: &str = "net/http.(*ServeMux).ServeHTTP";
/// What puts a mux behind another mux where a request's own pattern does not tell the route.
const BEFORE_MUXES: [&str; 2] = ["net/http.StripPrefix", "net/http.(*timeoutHandler).ServeHTTP"];
/// Go 1.17 to 1.26, then 1.27.
const HANDLER_DONE: [&str; 2] =
    ["net/http.(*http2responseWriter).handlerDone", "net/http/internal/http2.(*responseWriter).handlerDone"];
const XNET_RUN_HANDLER: &str = "golang.org/x/net/http2.(*serverConn).runHandler";
const XNET_HANDLER_DONE: &str = "golang.org/x/net/http2.(*responseWriter).handlerDone";
const H2C_UPGRADE: &str = "golang.org/x/net/http2/h2c.h2cUpgrade";
const PANICS: [&str; 2] = ["runtime.gopanic", "runtime.Goexit"];

const PARK: &str = "runtime.gopark";
const EXECUTE: &str = "runtime.execute";
const STOP: &str = "runtime.stopTheWorldWithSema";
const START: &str = "runtime.startTheWorldWithSema";

const FUNCTIONS: [&str; 17] = [
    PARK,
    EXECUTE,
    STOP,
    START,
    SERVE_HTTP,
    FINISH_REQUEST,
    HIJACK,
    MUX,
    BEFORE_MUXES[0],
    BEFORE_MUXES[1],
    HANDLER_DONE[0],
    HANDLER_DONE[1],
    XNET_RUN_HANDLER,
    XNET_HANDLER_DONE,
    H2C_UPGRADE,
    PANICS[0],
    PANICS[1],
];

const LAYOUTS: [(&str, &[&str]); 13] = [
    ("runtime.g", &["goid", "atomicstatus", "trackingSeq"]),
    ("net/http.response", &["req", "status"]),
    ("net/http.Request", &["Method", "URL", "Proto", "Header", "RequestURI", "Pattern", "pat"]),
    ("net/http.pattern", &["str"]),
    ("net/url.URL", &["Path"]),
    ("net/http.http2responseWriter", &["rws"]),
    ("net/http.http2responseWriterState", &["status", "req"]),
    ("net/http/internal/http2.responseWriter", &["rws"]),
    ("net/http/internal/http2.responseWriterState", &["status", "req"]),
    ("net/http/internal/http2.ServerRequest", &["Method", "URL", "Header"]),
    ("golang.org/x/net/http2.responseWriter", &["rws"]),
    ("golang.org/x/net/http2.responseWriterState", &["status", "req"]),
    ("golang.org/x/net/http2.ServerRequest", &["Method", "URL", "Header"]),
];

/// The structs whose layouts are wanted, for probes and for reading the runtime.
fn all_layouts() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (ty, fields) in LAYOUTS.iter().chain(&runtime::LAYOUTS) {
        let known = all.entry(ty).or_default();
        known.extend(fields.iter().filter(|field| !known.contains(field)).collect::<Vec<_>>());
    }
    all
}

/// Inspects an executable.
pub(crate) fn inspect<S: Source>(source: S, sites: Sites) -> Result<Inspection, gobinary::Error> {
    let started = Instant::now();
    let layouts = all_layouts();
    let layouts: Vec<(&str, &[&str])> = layouts.iter().map(|(ty, fields)| (*ty, fields.as_slice())).collect();
    let functions: Vec<&str> = FUNCTIONS
        .into_iter()
        .chain(unmeasured::functions())
        .chain(inlined::callers())
        .chain(patchers::FUNCTIONS)
        .collect();
    let binary = GoBinary::parse(source, &functions, &layouts)?;
    let mut plan =
        Plan { binary: &binary, sites, probes: Vec::new(), at_check: 0, disabled: Vec::new(), not_used: Vec::new() };
    let mut config = plan.http();
    config.at_check = plan.at_check;
    plan.blocking();
    plan.stw();
    let g_status = plan.offset("runtime.g", "atomicstatus");
    let g_tracking_seq = plan.offset("runtime.g", "trackingSeq");
    plan.leave_out_inlined();
    if let Some(reason) = patchers::reason(&binary.build_info, |name| binary.function(name).is_some()) {
        plan.nothing(&reason);
    }
    let Plan { probes, mut disabled, not_used, .. } = plan;
    let runtime = runtime::Plan::of(&binary).map(Arc::new);
    if let Err(reason) = &runtime {
        disabled.push(Disabled { part: Part::Runtime, reason: reason.clone() });
    }
    let (mut variables, mut variables_from) = (BTreeMap::new(), BTreeMap::new());
    for &global in Global::ALL {
        if let Some(found) = binary.global(global) {
            variables.insert(global.name(), found.address);
            *variables_from.entry(found.from.as_str()).or_default() += 1;
        }
    }
    let info = &binary.build_info;
    let (main_module, main_version) =
        info.main.as_ref().map_or((info.path.clone(), String::new()), |main| (main.path.clone(), main.version.clone()));
    Ok(Inspection {
        go_version: info.go_version.to_string(),
        main_module,
        main_version,
        functions_from: binary.functions_from.as_str().to_owned(),
        layouts_from: binary.layouts().source().as_str().to_owned(),
        variables_from,
        variables,
        build_id: binary.build_id.clone(),
        notes: binary.notes.iter().chain(&binary.contradictions).cloned().collect(),
        bytes_read: binary.bytes_read,
        modules: info.main.iter().chain(&info.deps).map(Module::of).collect(),
        settings: info.settings.clone(),
        probes,
        disabled,
        not_used,
        not_measured: unmeasured::unmeasured(|name| binary.function(name).is_some()),
        code: Code::default(),
        literals: Literals::of(&binary),
        seconds: started.elapsed().as_secs_f64(),
        config,
        runtime,
        g_status,
        g_tracking_seq,
        go_minor: info.go_version.minor,
        nests_muxes: BEFORE_MUXES.iter().any(|name| binary.uses(name)),
    })
}

/// The first byte of the function that a site is in. Go's stack check begins with a `cmp`, which kernels single-step.
fn first_byte(site: &Site) -> Site {
    Site {
        vaddr: site.vaddr - u64::from(site.function_offset),
        file_offset: site.file_offset - u64::from(site.function_offset),
        function_offset: 0,
        instruction: "the first byte".to_owned(),
        cost: Cost::SingleStepped,
        kind: Instruction::Other,
    }
}

struct Plan<'b> {
    binary: &'b GoBinary,
    sites: Sites,
    probes: Vec<PlannedProbe>,
    /// Bits of the probes that go to the branch of a stack check.
    at_check: u64,
    disabled: Vec<Disabled>,
    not_used: Vec<Part>,
}

impl Plan<'_> {
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

    /// Whether the program has a part's code, of which any of these functions tells: the linker leaves out what is never called.
    /// Where it has some of it, something is wrong with the rest, and that is said where it is planned.
    fn uses(&mut self, part: Part, functions: &[&str]) -> bool {
        let uses = functions.iter().any(|function| self.binary.function(function).is_some());
        if !uses {
            self.not_used.push(part);
        }
        uses
    }

    fn offset(&self, ty: &str, field: &str) -> u16 {
        self.binary.layouts().offset(ty, field).and_then(|offset| u16::try_from(offset).ok()).unwrap_or(NONE)
    }

    fn off(&mut self, part: Part, reason: impl Into<String>) {
        self.disabled.push(Disabled { part, reason: reason.into() });
    }

    /// Plans a probe at a function's start; why not, if it cannot be.
    fn probe(&mut self, probe: Probe, function: &str) -> Result<(), String> {
        let found = self.binary.function(function).ok_or_else(|| format!("{function} is not in the binary"))?;
        let sites = self.sites_of(probe, found).map_err(|error| format!("{function}: {error}"))?;
        self.probes.extend(sites.into_iter().map(|site| PlannedProbe {
            probe,
            function: function.to_owned(),
            instruction: site.instruction,
            function_offset: site.function_offset,
            file_offset: site.file_offset,
            cost: site.cost.as_str().to_owned(),
            on_demand: probe.role() == Role::OnDemand,
        }));
        Ok(())
    }

    fn sites_of(&mut self, probe: Probe, function: &Function) -> Result<Vec<Site>, SiteError> {
        let entry = self.binary.entry_site(function);
        match (self.sites, probe) {
            (Sites::EntryRet, Probe::HttpStart) => return entry.map(|site| vec![first_byte(&site)]),
            (Sites::EntryRet, Probe::Http1End) => return self.binary.return_sites(function),
            _ => {}
        }
        match probe.at() {
            At::Returns => self.binary.return_sites(function),
            At::Check => match self.binary.check_site(function) {
                Some(check) => {
                    self.at_check |= probe.check_bit();
                    Ok(vec![check])
                }
                None => entry.map(|site| vec![site]),
            },
            At::Entry => entry.map(|site| vec![site]),
        }
    }

    fn http(&mut self) -> TargetConfig {
        let mut config = TargetConfig {
            g_goid: self.offset("runtime.g", "goid"),
            response_req: self.offset("net/http.response", "req"),
            response_status: self.offset("net/http.response", "status"),
            request_method: self.offset("net/http.Request", "Method"),
            request_url: self.offset("net/http.Request", "URL"),
            request_pattern: self.offset("net/http.Request", "Pattern"),
            request_pat: self.offset("net/http.Request", "pat"),
            pattern_str: self.offset("net/http.pattern", "str"),
            url_path: self.offset("net/url.URL", "Path"),
            request_header: self.offset("net/http.Request", "Header"),
            ..TargetConfig::NONE
        };
        let http1 = self.uses(Part::Http1Server, &[SERVE_HTTP, FINISH_REQUEST]);
        let http2 = self.uses(Part::Http2Server, &HANDLER_DONE);
        let xnet = self.uses(Part::XnetHttp2Server, &[XNET_RUN_HANDLER, XNET_HANDLER_DONE]);
        let used = [(Part::Http1Server, http1), (Part::Http2Server, http2), (Part::XnetHttp2Server, xnet)];
        let used = used.into_iter().filter(|(_, used)| *used).map(|(feature, _)| feature);
        let needed = [config.request_method, config.request_url, config.request_header, config.url_path];
        let request_is_known = !needed.contains(&NONE);
        if !request_is_known || config.response_status == NONE || config.response_req == NONE {
            let reason = format!("no struct layouts of net/http for {}", self.binary.build_info.go_version);
            for part in used {
                self.off(part, reason.clone());
            }
            return config;
        }

        if self.sites == Sites::Empty {
            let both = [SERVE_HTTP, FINISH_REQUEST].map(|function| self.probe(Probe::Nothing, function));
            if let Some(reason) = both.into_iter().find_map(Result::err) {
                self.off(Part::Http1Server, reason);
            }
            return config;
        }
        let start = if http1 || http2 { self.probe(Probe::HttpStart, SERVE_HTTP) } else { Ok(()) };
        let end = if self.sites == Sites::EntryRet { SERVE_HTTP } else { FINISH_REQUEST };
        if http1 && let Err(reason) = start.clone().and_then(|()| self.probe(Probe::Http1End, end)) {
            self.off(Part::Http1Server, reason);
        }
        if http2 && let Err(reason) = start.and_then(|()| self.http2(&mut config)) {
            self.off(Part::Http2Server, reason);
        }
        if xnet && let Err(reason) = self.xnet(&mut config) {
            self.off(Part::XnetHttp2Server, reason);
        }
        if self.probes.is_empty() {
            return config;
        }
        if self.uses(Part::Hijack, &[HIJACK])
            && let Err(reason) = self.probe(Probe::HttpHijack, HIJACK)
        {
            self.off(Part::Hijack, reason);
        }
        if config.g_goid == NONE || self.offset("runtime.g", "atomicstatus") == NONE {
            self.off(Part::Panic, self.unknown_g());
        } else {
            // Goexit is there only where something calls it.
            let [gopanic, goexit] = PANICS;
            if let Err(reason) = self.probe(Probe::HttpPanic, gopanic) {
                self.off(Part::Panic, reason);
            }
            let _ = self.probe(Probe::HttpPanic, goexit);
        }
        if config.request_pat == NONE || config.pattern_str == NONE {
            config.request_pat = NONE;
            let version = &self.binary.build_info.go_version;
            self.off(
                Part::RoutePattern,
                format!("{version} keeps no pattern in the request: routes are folded from paths"),
            );
        } else if self.uses_old_mux() {
            self.off(
                Part::RoutePattern,
                "built with GODEBUG httpmuxgo121=1 (go.mod says go 1.21 or lower): routes are folded from paths",
            );
        } else {
            let _ = self.probe(Probe::HttpMux, MUX);
        }
        config.request_words = self.request_words(&config);
        config
    }

    /// How much of a request can be read at one time.
    fn request_words(&self, config: &TargetConfig) -> u16 {
        let is = |offset: u16, word: usize| usize::from(offset) == word * size_of::<u64>();
        let head = is(config.request_method, request_words::METHOD)
            && is(config.request_url, request_words::URL)
            && is(self.offset("net/http.Request", "Proto"), request_words::PROTO)
            && is(self.offset("net/http.Request", "RequestURI"), request_words::URI);
        let all = is(config.request_pattern, request_words::PATTERN) && is(config.request_pat, request_words::PAT);
        match (head, all) {
            (true, true) => request_words::ALL as u16,
            (true, false) => request_words::HEAD as u16,
            (false, _) => 0,
        }
    }

    /// Why the offsets of `runtime.g` are not known.
    fn unknown_g(&self) -> String {
        let why = self.binary.layouts().withheld().map_or(String::new(), |why| format!(": {why}"));
        format!("the offsets of runtime.g are not known{why}")
    }

    /// The runtime's own words and registers are known for these. A wait that outlasts its window is followed in `runtime.g`.
    fn known_runtime(&self) -> Result<u16, String> {
        if self.binary.layouts().withheld().is_some() && !self.binary.layouts().has("runtime.g") {
            return Err(self.unknown_g());
        }
        let version = &self.binary.build_info.go_version;
        match version.minor {
            minor @ 17..=27 => Ok(minor),
            _ => Err(format!("the runtime of {version} is not known")),
        }
    }

    fn blocking(&mut self) {
        let planned = self.known_runtime().and_then(|_| {
            self.probe(Probe::GoRun, EXECUTE)?;
            self.probe(Probe::GoPark, PARK)
        });
        if let Err(reason) = planned {
            self.probes.retain(|it| it.feature() != Feature::Blocking);
            self.off(Part::Blocking, reason);
        }
    }

    fn stw(&mut self) {
        let planned = self.known_runtime().and_then(|minor| {
            match minor {
                22.. => self.probe(Probe::StwStart, START)?,
                21 => self.probe(Probe::StwStop, STOP)?,
                _ => self.probe(Probe::StwStopBare, STOP)?,
            }
            // A few hits a cycle: what the site costs does not matter, and what is returned does.
            self.probe(Probe::StwEnd, START)
        });
        if let Err(reason) = planned {
            self.probes.retain(|it| it.feature() != Feature::Stw);
            self.off(Part::Stw, reason);
        }
    }

    fn http2(&mut self, config: &mut TargetConfig) -> Result<(), String> {
        let [until_1_26, from_1_27] = HANDLER_DONE;
        let (function, package, prefix) = if self.binary.function(from_1_27).is_some() {
            (from_1_27, "net/http/internal/http2.", "")
        } else {
            (until_1_26, "net/http.", "http2")
        };
        let offsets = self.http2_offsets(&format!("{package}{prefix}"));
        if self.binary.function(function).is_some() && offsets.rws_status == NONE {
            return Err("no struct layouts of the HTTP/2 server".into());
        }
        self.probe(Probe::Http2End, function)?;
        config.h2 = offsets;
        Ok(())
    }

    fn xnet(&mut self, config: &mut TargetConfig) -> Result<(), String> {
        let offsets = self.http2_offsets("golang.org/x/net/http2.");
        self.probe(Probe::XnetStart, XNET_RUN_HANDLER)?;
        self.probe(Probe::XnetEnd, XNET_HANDLER_DONE)?;
        if offsets.writer_rws == NONE || offsets.rws_status == NONE {
            // The start in serverHandler.ServeHTTP sees these requests too: without an end they would be in flight for ever.
            return Err(
                "no struct layouts for this version of golang.org/x/net/http2: its requests are not counted, and \
                        told as lost by the reason layout_unknown"
                    .into(),
            );
        }
        config.xnet = offsets;
        // Few programs have it.
        let _ = self.probe(Probe::H2cUpgrade, H2C_UPGRADE);
        Ok(())
    }

    fn http2_offsets(&self, prefix: &str) -> Http2Offsets {
        // Go 1.17 to 1.26 bundle it into net/http, whose state holds the `*http.Request`.
        let server_request = |field| match prefix {
            "net/http.http2" => NONE,
            _ => self.offset(&format!("{prefix}ServerRequest"), field),
        };
        Http2Offsets {
            writer_rws: self.offset(&format!("{prefix}responseWriter"), "rws"),
            rws_status: self.offset(&format!("{prefix}responseWriterState"), "status"),
            rws_req: self.offset(&format!("{prefix}responseWriterState"), "req"),
            server_request_method: server_request("Method"),
            server_request_url: server_request("URL"),
            server_request_header: server_request("Header"),
        }
    }

    /// Go sets the option itself when the main module asks for Go 1.21 or older (go.dev/doc/godebug).
    fn uses_old_mux(&self) -> bool {
        self.binary
            .build_info
            .settings
            .iter()
            .any(|(key, value)| key == "DefaultGODEBUG" && value.split(',').any(|one| one == "httpmuxgo121=1"))
    }
}
