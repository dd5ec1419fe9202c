//! Which functions of net/http and golang.org/x/net/http2 are probed, and what of their structs is needed.

use exporter_ebpf::{
    feature::{Feature, Part},
    probe::Probe,
    target::{Http2Offsets, NONE, TargetConfig, request_words},
};
use gobinary::{Cost, Instruction, Site};

use super::routers;
use crate::planner::{Planner, Sites};

pub(super) const SERVE_HTTP: &str = "net/http.serverHandler.ServeHTTP";
pub(super) const FINISH_REQUEST: &str = "net/http.(*response).finishRequest";
pub(super) const HIJACK: &str = "net/http.(*response).Hijack";
pub(super) const MUX: &str = "net/http.(*ServeMux).ServeHTTP";
/// What puts a mux behind another mux where a request's own pattern does not tell the route.
pub(super) const BEFORE_MUXES: [&str; 2] = ["net/http.StripPrefix", "net/http.(*timeoutHandler).ServeHTTP"];
/// Go 1.17 to 1.26, then 1.27.
pub(super) const HANDLER_DONE: [&str; 2] =
    ["net/http.(*http2responseWriter).handlerDone", "net/http/internal/http2.(*responseWriter).handlerDone"];
pub(super) const XNET_RUN_HANDLER: &str = "golang.org/x/net/http2.(*serverConn).runHandler";
pub(super) const XNET_HANDLER_DONE: &str = "golang.org/x/net/http2.(*responseWriter).handlerDone";
pub(super) const H2C_UPGRADE: &str = "golang.org/x/net/http2/h2c.h2cUpgrade";
pub(super) const PANICS: [&str; 2] = ["runtime.gopanic", "runtime.Goexit"];

pub(super) fn plan(planner: &mut Planner<'_>) {
    let offset = |ty, field| planner.offset(ty, field);
    planner.config = TargetConfig {
        g_goid: offset("runtime.g", "goid"),
        response_req: offset("net/http.response", "req"),
        response_status: offset("net/http.response", "status"),
        request_method: offset("net/http.Request", "Method"),
        request_url: offset("net/http.Request", "URL"),
        request_pattern: offset("net/http.Request", "Pattern"),
        request_pat: offset("net/http.Request", "pat"),
        pattern_str: offset("net/http.pattern", "str"),
        url_path: offset("net/url.URL", "Path"),
        request_header: offset("net/http.Request", "Header"),
        ..planner.config
    };
    planner.nests_muxes = BEFORE_MUXES.iter().any(|name| planner.binary.uses(name));
    let http1 = planner.uses(Part::Http1Server, &[SERVE_HTTP, FINISH_REQUEST]);
    let http2 = planner.uses(Part::Http2Server, &HANDLER_DONE);
    let xnet = planner.uses(Part::XnetHttp2Server, &[XNET_RUN_HANDLER, XNET_HANDLER_DONE]);
    let config = &planner.config;
    let needed = [config.request_method, config.request_url, config.request_header, config.url_path];
    if needed.contains(&NONE) || config.response_status == NONE || config.response_req == NONE {
        let reason = format!("no struct layouts of net/http for {}", planner.binary.build_info.go_version);
        let used = [(Part::Http1Server, http1), (Part::Http2Server, http2), (Part::XnetHttp2Server, xnet)];
        for (part, _) in used.into_iter().filter(|(_, used)| *used) {
            planner.off(part, reason.clone());
        }
        return;
    }
    if planner.sites == Sites::Empty {
        let nothing = |planner: &mut Planner<'_>| {
            planner.probe(Probe::Nothing, SERVE_HTTP)?;
            planner.probe(Probe::Nothing, FINISH_REQUEST)
        };
        return planner.part(Part::Http1Server, nothing);
    }
    let routers = routers::find(planner);
    let has_routers = !routers.is_empty();
    let start = if http1 || http2 { plan_start(planner) } else { Ok(()) };
    if http1 {
        planner.part(Part::Http1Server, |planner| start.clone().and_then(|()| plan_http1_end(planner, has_routers)));
    }
    if http2 {
        planner.part(Part::Http2Server, |planner| start.and_then(|()| plan_http2(planner, has_routers)));
    }
    if xnet && let Err(reason) = plan_xnet(planner, has_routers) {
        planner.off(Part::XnetHttp2Server, reason);
    }
    if planner.has_probes(Feature::Http) {
        plan_besides(planner);
        routers::plan(planner, routers);
    }
}

/// A request's start: for HTTP/1 and HTTP/2.
fn plan_start(planner: &mut Planner<'_>) -> Result<(), String> {
    if planner.sites != Sites::EntryRet {
        return planner.probe(Probe::HttpStart, SERVE_HTTP);
    }
    let site = planner.binary.entry_site(planner.function(SERVE_HTTP)?).map_err(|error| error.to_string())?;
    planner.probe_at(Probe::HttpStart, SERVE_HTTP, vec![first_byte(&site)]);
    Ok(())
}

fn plan_http1_end(planner: &mut Planner<'_>, has_routers: bool) -> Result<(), String> {
    if planner.sites != Sites::EntryRet {
        let end = if has_routers { Probe::Http1EndRouted } else { Probe::Http1End };
        return planner.probe(end, FINISH_REQUEST);
    }
    let sites = planner.binary.return_sites(planner.function(SERVE_HTTP)?).map_err(|error| error.to_string())?;
    planner.probe_at(Probe::Http1End, SERVE_HTTP, sites);
    Ok(())
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

/// What adds to the requests of the servers.
fn plan_besides(planner: &mut Planner<'_>) {
    if planner.uses(Part::Hijack, &[HIJACK]) {
        planner.part(Part::Hijack, |planner| planner.probe(Probe::HttpHijack, HIJACK));
    }
    planner.part(Part::Panic, |planner| {
        if planner.config.g_goid == NONE || planner.offset("runtime.g", "atomicstatus") == NONE {
            return Err(planner.unknown_g());
        }
        let [gopanic, goexit] = PANICS;
        planner.probe(Probe::HttpPanic, gopanic)?;
        // Goexit is there only where something calls it.
        let _ = planner.probe(Probe::HttpPanic, goexit);
        Ok(())
    });
    if planner.config.request_pat == NONE || planner.config.pattern_str == NONE {
        planner.config.request_pat = NONE;
        let version = &planner.binary.build_info.go_version;
        let reason = format!("{version} keeps no pattern in the request: routes are folded from paths");
        planner.off(Part::RoutePattern, reason);
    } else if uses_old_mux(planner) {
        planner.off(
            Part::RoutePattern,
            "built with GODEBUG httpmuxgo121=1 (go.mod says go 1.21 or lower): routes are folded from paths",
        );
    } else {
        let _ = planner.probe(Probe::HttpMux, MUX);
    }
    planner.config.request_words = words_of_request(planner);
}

/// How much of a request can be read at one time.
fn words_of_request(planner: &Planner<'_>) -> u16 {
    let config = &planner.config;
    let is = |offset: u16, word: usize| usize::from(offset) == word * size_of::<u64>();
    let head = is(config.request_method, request_words::METHOD)
        && is(config.request_url, request_words::URL)
        && is(planner.offset("net/http.Request", "Proto"), request_words::PROTO)
        && is(planner.offset("net/http.Request", "RequestURI"), request_words::URI);
    let all = is(config.request_pattern, request_words::PATTERN) && is(config.request_pat, request_words::PAT);
    match (head, all) {
        (true, true) => request_words::ALL as u16,
        (true, false) => request_words::HEAD as u16,
        (false, _) => 0,
    }
}

fn plan_http2(planner: &mut Planner<'_>, has_routers: bool) -> Result<(), String> {
    let [until_1_26, from_1_27] = HANDLER_DONE;
    let (function, package, prefix) = if planner.binary.function(from_1_27).is_some() {
        (from_1_27, "net/http/internal/http2.", "")
    } else {
        (until_1_26, "net/http.", "http2")
    };
    let offsets = http2_offsets(planner, &format!("{package}{prefix}"));
    if planner.binary.function(function).is_some() && offsets.rws_status == NONE {
        return Err("no struct layouts of the HTTP/2 server".into());
    }
    planner.probe(if has_routers { Probe::Http2EndRouted } else { Probe::Http2End }, function)?;
    planner.config.h2 = offsets;
    Ok(())
}

fn plan_xnet(planner: &mut Planner<'_>, has_routers: bool) -> Result<(), String> {
    let offsets = http2_offsets(planner, "golang.org/x/net/http2.");
    planner.probe(Probe::XnetStart, XNET_RUN_HANDLER)?;
    planner.probe(if has_routers { Probe::XnetEndRouted } else { Probe::XnetEnd }, XNET_HANDLER_DONE)?;
    if offsets.writer_rws == NONE || offsets.rws_status == NONE {
        // The start in serverHandler.ServeHTTP sees these requests too: without an end they would be in flight for ever.
        return Err(
            "no struct layouts for this version of golang.org/x/net/http2: its requests are not counted, and told as lost by \
             the reason layout_unknown"
                .into(),
        );
    }
    planner.config.xnet = offsets;
    // Few programs have it.
    let _ = planner.probe(Probe::H2cUpgrade, H2C_UPGRADE);
    Ok(())
}

fn http2_offsets(planner: &Planner<'_>, prefix: &str) -> Http2Offsets {
    // Go 1.17 to 1.26 bundle it into net/http, whose state holds the `*http.Request`.
    let server_request = |field| match prefix {
        "net/http.http2" => NONE,
        _ => planner.offset(&format!("{prefix}ServerRequest"), field),
    };
    Http2Offsets {
        writer_rws: planner.offset(&format!("{prefix}responseWriter"), "rws"),
        rws_status: planner.offset(&format!("{prefix}responseWriterState"), "status"),
        rws_req: planner.offset(&format!("{prefix}responseWriterState"), "req"),
        server_request_method: server_request("Method"),
        server_request_url: server_request("URL"),
        server_request_header: server_request("Header"),
    }
}

/// Go sets the option itself when the main module asks for Go 1.21 or older (go.dev/doc/godebug).
fn uses_old_mux(planner: &Planner<'_>) -> bool {
    let is_set = |value: &str| value.split(',').any(|one| one == "httpmuxgo121=1");
    planner.binary.build_info.settings.iter().any(|(key, value)| key == "DefaultGODEBUG" && is_set(value))
}
