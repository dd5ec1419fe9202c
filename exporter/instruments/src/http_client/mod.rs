//! HTTP client requests: those that `http.Client` gives to its transport, redirects one by one.

mod text;

use exporter_ebpf::{
    feature::{Feature, Part},
    http_client::{HttpClient, LANES},
    key::{Family, SeriesKey},
    method,
    probe::Probe,
    target::NONE,
};

use crate::{
    Desc, Described, Fed, Instrument, Kind, Known, LabelSet, OVERFLOW, Open, Stability, Value,
    family::REQUEST_BOUNDS,
    planner::Planner,
    unmeasured::{Unmeasurable, Unmeasured},
};

const SEND: &str = "net/http.send";
/// Called by `send` before the transport is, in every release from Go 1.17 to 1.27 (net/http/client.go).
const SET_CANCEL: &str = "net/http.setRequestCancel";
/// What a profile can make the compiler call from `send` without looking at the `RoundTripper`'s type (PGO).
const TRANSPORTS: [&str; 2] = ["net/http.(*Transport).RoundTrip", "net/http.(*Transport).roundTrip"];
const ACTIVE: &str = "http_client_active_requests";
/// `error_type` of an error whose type has no name (OpenTelemetry's fallback).
const OTHER: &str = "_OTHER";

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::HttpClient,
    functions: &[SEND, SET_CANCEL, TRANSPORTS[0], TRANSPORTS[1]],
    layouts: &[
        ("net/http.Request", &["Method", "URL"]),
        ("net/url.URL", &["Scheme", "Host"]),
        ("net/http.Response", &["StatusCode"]),
        ("runtime.g", &["goid"]),
    ],
    calls: &[(SET_CANCEL, &[SEND]), (SEND, &["net/http.(*Client).send"])],
    unmeasured: &UNMEASURED,
    plan,
    families: &[Described {
        family: Family::HttpClient,
        desc: Desc {
            name: "http_client_request_duration_seconds",
            kind: Kind::Histogram,
            help: "Duration of HTTP client requests, from when http.Client gives one to its transport until the answer's headers are \
                   there or it has failed; each redirect by itself.",
            of_target: true,
            labels: &[
                "http_request_method",
                "http_response_status_code",
                "server_address",
                "server_port",
                "error_type",
            ],
            stability: Stability::Development,
            source: "probes on net/http (OpenTelemetry semantic conventions: http.client.request.duration)",
        },
        sum: Some("http_client_request_duration_seconds_sum"),
        bounds: &REQUEST_BOUNDS,
        labels,
        text: text::shown,
    }],
    open: &[Open {
        desc: Desc {
            name: ACTIVE,
            kind: Kind::Gauge,
            help: "HTTP client requests whose answer's headers are waited for now; those in flight before the probes were attached \
                   are not seen.",
            of_target: true,
            labels: &[],
            stability: Stability::Development,
            source: "probes on net/http (OpenTelemetry semantic conventions: http.client.active_requests)",
        },
        lanes: &LANES,
    }],
    fed: &[
        Fed { name: "http_client_request_duration_seconds", kind: Kind::Histogram, witness: Some(ACTIVE) },
        Fed { name: ACTIVE, kind: Kind::Gauge, witness: None },
        Fed { name: "http_client_request_duration_seconds_sum", kind: Kind::Counter, witness: Some(ACTIVE) },
    ],
};

/// Clients that are not measured. Names by the sources of net/http/httputil (Go 1.17 to 1.27), fasthttp 1.16 to 1.78, and quic-go, whose
/// module was `github.com/lucas-clemente/quic-go` up to 0.31.
const UNMEASURED: [Unmeasurable; 2] = [
    Unmeasurable {
        what: Unmeasured {
            server: "reverse_proxy",
            reason: "net/http/httputil.ReverseProxy calls its transport itself: what it asks of others is not measured, what it is \
                     asked is",
        },
        functions: &["net/http/httputil.(*ReverseProxy).ServeHTTP"],
    },
    Unmeasurable {
        what: Unmeasured {
            server: "fasthttp_client",
            reason: "github.com/valyala/fasthttp's client is not net/http's: its requests are not measured",
        },
        functions: &["github.com/valyala/fasthttp.(*HostClient).do"],
    },
];

fn labels(key: &SeriesKey, known: &Known) -> LabelSet {
    // The text and its kind are in what is known.
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb, spare: _ } = *key;
    let mut labels = Vec::with_capacity(5);
    labels.push(("http_request_method", Value::Word(method::label(verb))));
    if code != 0 {
        labels.push(("http_response_status_code", Value::Number(code)));
    }
    if let Some(text) = &known.text {
        let (address, port) = text::address_and_port(text);
        labels.push(("server_address", Value::Text(address.into())));
        if let Some(port) = port {
            labels.push(("server_port", Value::Text(port.into())));
        }
    }
    match (code, &known.second) {
        // OpenTelemetry's: the status where that is what failed.
        (400.., _) => labels.push(("error_type", Value::Number(code))),
        (0, _) if key.is_overflow() => labels.push(("error_type", Value::Text(OVERFLOW.into()))),
        (0, Some(error)) => labels.push(("error_type", Value::Text(error.clone()))),
        (0, None) => labels.push(("error_type", Value::Word(OTHER))),
        _ => {}
    }
    labels
}

fn plan(planner: &mut Planner<'_>) {
    if !planner.uses(Part::HttpClient, &[SEND]) {
        return;
    }
    planner.part(Part::HttpClient, |planner| {
        planner.known_runtime()?;
        let facts = HttpClient {
            url_scheme: planner.offset("net/url.URL", "Scheme"),
            url_host: planner.offset("net/url.URL", "Host"),
            response_status_code: planner.offset("net/http.Response", "StatusCode"),
            ..HttpClient::NONE
        };
        let config = &planner.config;
        let needed = [config.request_method, config.request_url, facts.url_scheme, facts.url_host];
        if needed.contains(&NONE) || facts.response_status_code == NONE {
            return Err(format!("no struct layouts of net/http for {}", planner.binary.build_info.go_version));
        }
        let send = planner.function(SEND)?;
        if planner.binary.check_site(planner.function(SET_CANCEL)?).is_none() {
            // Elsewhere in it the stack pointer says nothing of the caller's frame.
            return Err(format!("{SET_CANCEL} does not begin with a stack check"));
        }
        for transport in TRANSPORTS {
            let called = planner.binary.function(transport).and_then(|it| planner.binary.calls(send, it));
            if called == Some(true) {
                return Err(format!(
                    "the compiler calls {transport} from {SEND} by itself, as with a profile (PGO): there are two ways back"
                ));
            }
        }
        planner.probe(Probe::HttpClientEnd, SEND)?;
        planner.probe(Probe::HttpClientStart, SET_CANCEL)?;
        // Without them errors have no names.
        let (types, etypes) = planner.binary.types.map_or((0, 0), |(from, len)| (from, from.wrapping_add(len)));
        planner.facts.http_client = HttpClient { types, etypes, ..facts };
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: u16, text: Option<&str>, second: Option<&str>) -> String {
        let key = SeriesKey { verb: method::GET, ..SeriesKey::of(Family::HttpClient, 1, code) };
        let known = Known { text: text.map(Into::into), second: second.map(Into::into), go_minor: 27 };
        let shown = |(name, value): (&str, Value)| match value {
            Value::Word(word) => format!("{name}={word}"),
            Value::Number(number) => format!("{name}={number}"),
            Value::Text(text) => format!("{name}={text}"),
        };
        labels(&key, &known).into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_failed_says_how() {
        let get = "http_request_method=GET";
        let host = "server_address=a.example server_port=80";
        for (code, second, expect) in [
            (200, None, format!("{get} http_response_status_code=200 {host}")),
            (404, None, format!("{get} http_response_status_code=404 {host} error_type=404")),
            (0, Some("*net.OpError"), format!("{get} {host} error_type=*net.OpError")),
            (0, None, format!("{get} {host} error_type=_OTHER")),
        ] {
            assert_eq!(shown(code, Some("a.example:80"), second), expect);
        }
        assert_eq!(shown(0, None, None), format!("{get} error_type=_OTHER"));
        assert_eq!(
            shown(200, Some(OVERFLOW), None),
            format!("{get} http_response_status_code=200 server_address=_overflow")
        );
    }
}
