//! HTTP server requests: those of net/http over HTTP/1 and HTTP/2, and of golang.org/x/net/http2.

mod others;
mod plan;
mod routers;
mod text;

use self::plan::{
    BEFORE_MUXES, FINISH_REQUEST, H2C_UPGRADE, HANDLER_DONE, HIJACK, MUX, PANICS, SERVE_HTTP, XNET_HANDLER_DONE,
    XNET_RUN_HANDLER,
};
use crate::{Desc, Described, Fed, Instrument, Kind, Known, LabelSet, Open, Stability, Value, family::REQUEST_BOUNDS};
use exporter_ebpf::{
    feature::Feature,
    key::{Family, SeriesKey},
    method,
    span::Lane,
};

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::Http,
    functions: &FUNCTIONS,
    layouts: &LAYOUTS,
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
    unmeasured: &others::UNMEASURED,
    plan: plan::plan,
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

const OWN_FUNCTIONS: [&str; 13] = [
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
static FUNCTIONS: [&str; OWN_FUNCTIONS.len() + routers::FUNCTIONS.len()] = both(OWN_FUNCTIONS, routers::FUNCTIONS);

const OWN_LAYOUTS: [(&str, &[&str]); 13] = [
    ("runtime.g", &["goid", "atomicstatus"]),
    ("net/http.response", &["req", "status"]),
    ("net/http.Request", &["Method", "URL", "Proto", "Header", "RequestURI", "ctx", "Pattern", "pat"]),
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
static LAYOUTS: [(&str, &[&str]); OWN_LAYOUTS.len() + routers::LAYOUTS.len()] = both(OWN_LAYOUTS, routers::LAYOUTS);

/// One list behind another.
const fn both<T: Copy, const A: usize, const B: usize, const N: usize>(first: [T; A], second: [T; B]) -> [T; N] {
    let mut all = [first[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < A { first[i] } else { second[i - A] };
        i += 1;
    }
    all
}

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
