//! HTTP server requests: those of net/http over HTTP/1 and HTTP/2, and of golang.org/x/net/http2.

mod text;

use exporter_ebpf::{
    feature::{Feature, Part},
    key::{Family, SeriesKey},
    method,
    probe::Probe,
    span::Lane,
    target::{Http2Offsets, NONE, TargetConfig, request_words},
};
use gobinary::{Cost, Instruction, Site};

use crate::{
    Desc, Described, Fed, Instrument, Kind, Known, LabelSet, Open, Stability, Value,
    family::REQUEST_BOUNDS,
    planner::{Planner, Sites},
    unmeasured::{Unmeasurable, Unmeasured},
};

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

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::Http,
    functions: &[
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
    ],
    layouts: &[
        ("runtime.g", &["goid", "atomicstatus"]),
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
    ],
    calls: &[
        // net/http/server.go, net/http/h2_bundle.go or net/http/internal/http2, golang.org/x/net/http2/server.go.
        (SERVE_HTTP, &["net/http.(*conn).serve"]),
        (FINISH_REQUEST, &["net/http.(*conn).serve"]),
        (HANDLER_DONE[0], &["net/http.(*http2serverConn).runHandler", "net/http.(*http2serverConn).runHandler.func1"]),
        (
            HANDLER_DONE[1],
            &[
                "net/http/internal/http2.(*serverConn).runHandler",
                "net/http/internal/http2.(*serverConn).runHandler.func1",
            ],
        ),
        (XNET_HANDLER_DONE, &[XNET_RUN_HANDLER, "golang.org/x/net/http2.(*serverConn).runHandler.func1"]),
    ],
    unmeasured: &UNMEASURED,
    plan,
    families: &[Described {
        family: Family::HttpServer,
        desc: Desc {
            name: "http_server_request_duration_seconds",
            kind: Kind::Histogram,
            help: "Duration of HTTP server requests, from the call of the handler to its end.",
            of_target: true,
            labels: &["http_request_method", "http_response_status_code", "http_route"],
            stability: Stability::Stable,
            source: "probes on net/http (OpenTelemetry semantic conventions: http.server.request.duration)",
        },
        sum: Some("http_server_request_duration_seconds_sum"),
        bounds: &REQUEST_BOUNDS,
        labels,
        text: text::shown,
    }],
    open: &[Open {
        desc: Desc {
            name: ACTIVE,
            kind: Kind::Gauge,
            help: "HTTP server requests whose handler runs now; those in flight before the probes were attached are not seen.",
            of_target: true,
            labels: &[],
            stability: Stability::Development,
            source: "probes on net/http (OpenTelemetry semantic conventions: http.server.active_requests)",
        },
        lanes: &[Lane::HttpServer],
    }],
    fed: &[
        Fed { name: "http_server_request_duration_seconds", kind: Kind::Histogram, witness: Some(ACTIVE) },
        Fed { name: ACTIVE, kind: Kind::Gauge, witness: None },
        Fed { name: "http_server_request_duration_seconds_sum", kind: Kind::Counter, witness: Some(ACTIVE) },
    ],
};

const ACTIVE: &str = "http_server_active_requests";

fn labels(key: &SeriesKey, known: &Known) -> LabelSet {
    // The text and its kind are in what is known.
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb, spare: _ } = *key;
    let mut labels = Vec::with_capacity(3);
    labels.push(("http_request_method", Value::Word(method::label(verb))));
    if code != 0 {
        labels.push(("http_response_status_code", Value::Number(code)));
    }
    // An empty label is none (Prometheus' data model).
    if let Some(route) = known.text.as_ref().filter(|route| !route.is_empty()) {
        labels.push(("http_route", Value::Text(route.clone())));
    }
    labels
}

fn plan(planner: &mut Planner<'_>) {
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
    let start = if http1 || http2 { plan_start(planner) } else { Ok(()) };
    if http1 {
        planner.part(Part::Http1Server, |planner| start.clone().and_then(|()| plan_http1_end(planner)));
    }
    if http2 {
        planner.part(Part::Http2Server, |planner| start.and_then(|()| plan_http2(planner)));
    }
    if xnet && let Err(reason) = plan_xnet(planner) {
        planner.off(Part::XnetHttp2Server, reason);
    }
    if planner.has_probes(Feature::Http) {
        plan_besides(planner);
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

fn plan_http1_end(planner: &mut Planner<'_>) -> Result<(), String> {
    if planner.sites != Sites::EntryRet {
        return planner.probe(Probe::Http1End, FINISH_REQUEST);
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

fn plan_http2(planner: &mut Planner<'_>) -> Result<(), String> {
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
    planner.probe(Probe::Http2End, function)?;
    planner.config.h2 = offsets;
    Ok(())
}

fn plan_xnet(planner: &mut Planner<'_>) -> Result<(), String> {
    let offsets = http2_offsets(planner, "golang.org/x/net/http2.");
    planner.probe(Probe::XnetStart, XNET_RUN_HANDLER)?;
    planner.probe(Probe::XnetEnd, XNET_HANDLER_DONE)?;
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

/// Servers that are not measured. Names by the sources of net/http/cgi and net/http/fcgi (Go 1.17 to 1.27), grpc-go 1.0 to 1.84, fasthttp 1.16 to
/// 1.78, and quic-go, whose module was `github.com/lucas-clemente/quic-go` up to 0.31.
const UNMEASURED: [Unmeasurable; 5] = [
    Unmeasurable {
        what: Unmeasured {
            server: "grpc",
            reason: "google.golang.org/grpc serves gRPC by a transport of its own, which is not measured yet. Where it is a \
                     handler of net/http (ServeHTTP), its calls are counted as requests",
        },
        functions: &["google.golang.org/grpc.(*Server).handleStream"],
    },
    Unmeasurable {
        what: Unmeasured {
            server: "http3",
            reason: "HTTP/3 by quic-go calls the handler itself: its requests are not measured",
        },
        functions: &[
            "github.com/quic-go/quic-go/http3.(*Server).handleRequest",
            "github.com/quic-go/quic-go/http3.(*Server).handleConn",
            "github.com/quic-go/quic-go/http3.(*Server).ServeQUICConn",
            "github.com/quic-go/quic-go/http3.(*Server).serveListener",
            "github.com/quic-go/quic-go/http3.(*Server).Serve",
            "github.com/lucas-clemente/quic-go/http3.(*Server).handleRequest",
            "github.com/lucas-clemente/quic-go/http3.(*Server).handleConn",
        ],
    },
    Unmeasurable {
        what: Unmeasured {
            server: "fasthttp",
            reason: "github.com/valyala/fasthttp, on which fiber is built, is not net/http's server: its requests are not measured",
        },
        functions: &["github.com/valyala/fasthttp.(*Server).serveConn"],
    },
    Unmeasurable {
        what: Unmeasured {
            server: "fcgi",
            reason: "net/http/fcgi calls the handler itself: its requests are not measured",
        },
        functions: &["net/http/fcgi.(*child).serveRequest"],
    },
    Unmeasurable {
        what: Unmeasured {
            server: "cgi",
            reason: "net/http/cgi calls the handler itself: its request is not measured",
        },
        functions: &["net/http/cgi.Serve"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_requests_have_the_same_labels_but_by_what_is_shown_alike() {
        let mut seen = BTreeSet::new();
        for verb in 0..=u8::MAX {
            for text in [None, Some(""), Some("/a")] {
                let key = SeriesKey { verb, ..SeriesKey::of(Family::HttpServer, 1, 200) };
                seen.insert(labels(&key, &Known { text: text.map(Into::into), second: None, go_minor: 27 }));
            }
        }
        assert_eq!(seen.len(), 2 * method::NAMES.len());
    }
}
