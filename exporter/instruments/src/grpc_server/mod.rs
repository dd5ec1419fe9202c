//! gRPC server calls: of google.golang.org/grpc, unary and streams, by either of its transports.

use exporter_ebpf::{
    feature::{Feature, Part},
    grpc::method_kind,
    grpc_server::{EARLY, GrpcServer},
    key::{Family, SeriesKey, TEXT, TextKey},
    probe::Probe,
    span::Lane,
    target::NONE,
};

use crate::{
    Desc, Described, Fed, Instrument, Kind, Known, LabelSet, OVERFLOW, Open, Shown, Stability, Texts, Value,
    family::REQUEST_BOUNDS,
    grpc::{self, MESSAGE, METHOD, OTHER, SINCE_1_78, STATUS, STATUS_ERR, SYSTEM, Version},
    planner::Planner,
    unmeasured::{Unmeasurable, Unmeasured},
};

const HANDLE_STREAM: &str = "google.golang.org/grpc.(*Server).handleStream";
/// Of HTTP/2 by grpc's own transport, and of requests of net/http by `(*Server).ServeHTTP`: up to 1.68, and later.
const WRITE_STATUS: [[&str; 2]; 2] = [
    [
        "google.golang.org/grpc/internal/transport.(*http2Server).WriteStatus",
        "google.golang.org/grpc/internal/transport.(*http2Server).writeStatus",
    ],
    [
        "google.golang.org/grpc/internal/transport.(*serverHandlerTransport).WriteStatus",
        "google.golang.org/grpc/internal/transport.(*serverHandlerTransport).writeStatus",
    ],
];
/// What writes a status when a message fails: another follows at the handler's return (stream.go).
const MESSAGES: [&str; EARLY] = [
    "google.golang.org/grpc.(*serverStream).SendMsg",
    "google.golang.org/grpc.(*serverStream).SendMsg.func1",
    "google.golang.org/grpc.(*serverStream).RecvMsg",
    "google.golang.org/grpc.(*serverStream).RecvMsg.func1",
];
const STREAM: &str = "google.golang.org/grpc/internal/transport.Stream";
const SERVER_STREAM: &str = "google.golang.org/grpc/internal/transport.ServerStream";
/// There where a `ServerStream` has its stream in itself, and no pointer to it.
const EMBEDDED: &str = "Stream.method";
/// Its offset from 1.77 on.
const METHOD_SINCE_1_77: u16 = 16;

const DURATION: &str = "rpc_server_call_duration_seconds";
const SUM: &str = "rpc_server_call_duration_seconds_sum";
const ACTIVE: &str = "rpc_server_active_calls";

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::GrpcServer,
    functions: &[
        HANDLE_STREAM,
        WRITE_STATUS[0][0],
        WRITE_STATUS[0][1],
        WRITE_STATUS[1][0],
        WRITE_STATUS[1][1],
        MESSAGES[0],
        MESSAGES[1],
        MESSAGES[2],
        MESSAGES[3],
        STATUS_ERR,
        SINCE_1_78[0],
        SINCE_1_78[1],
    ],
    layouts: &[(STREAM, &["method"]), (SERVER_STREAM, &["Stream", EMBEDDED]), (MESSAGE, &["Code"])],
    calls: &[],
    unmeasured: &UNMEASURED,
    plan,
    families: &[Described {
        family: Family::GrpcServer,
        desc: Desc {
            name: DURATION,
            kind: Kind::Histogram,
            help: "Duration of gRPC server calls, unary and streams, from when the server has the call's headers until it writes the \
                   status.",
            of_target: true,
            labels: &[SYSTEM, METHOD, STATUS],
            stability: Stability::Development,
            source: "probes on google.golang.org/grpc (OpenTelemetry semantic conventions: rpc.server.call.duration)",
        },
        sum: Some(SUM),
        bounds: &REQUEST_BOUNDS,
        labels,
        text: shown,
    }],
    open: &[Open {
        desc: Desc {
            name: ACTIVE,
            kind: Kind::Gauge,
            help: "gRPC calls being served now, streams that are open among them; those in flight before the probes were attached are \
                   not seen.",
            of_target: true,
            labels: &[],
            stability: Stability::Development,
            source: "probes on google.golang.org/grpc",
        },
        lanes: &[Lane::GrpcServer],
    }],
    fed: &[
        Fed { name: DURATION, kind: Kind::Histogram, witness: Some(ACTIVE) },
        Fed { name: ACTIVE, kind: Kind::Gauge, witness: None },
        Fed { name: SUM, kind: Kind::Counter, witness: Some(ACTIVE) },
    ],
};

/// The other end, by its function of every version from 1.30 on (stream.go).
const UNMEASURED: [Unmeasurable; 1] = [Unmeasurable {
    what: Unmeasured {
        server: "grpc_client",
        reason: "gRPC calls that the program makes of others are not measured yet",
    },
    functions: &["google.golang.org/grpc.(*clientStream).newAttemptLocked"],
}];

fn labels(key: &SeriesKey, known: &Known) -> LabelSet {
    // The text and its kind are in what is known.
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb: _, spare: _ } = *key;
    let mut labels = vec![(SYSTEM, Value::Word("grpc"))];
    if let Some(method) = &known.text {
        labels.push((METHOD, Value::Text(method.clone())));
    }
    if key.is_overflow() {
        labels.push((STATUS, Value::Word(OVERFLOW)));
    } else if let Some(code) = grpc::code_label(code) {
        labels.push((STATUS, code));
    }
    labels
}

/// See [`Described::text`].
fn shown(key: &TextKey, texts: Texts<'_>) -> Option<Shown> {
    let text = if key.kind == method_kind::OTHER {
        OTHER.to_owned()
    } else {
        let text = texts(key)?;
        let read = (text.read as usize).min(TEXT);
        let mut method = String::from_utf8_lossy(text.text.get(..read).filter(|it| !it.is_empty())?).into_owned();
        if text.len as usize > read {
            method.push('…');
        }
        method
    };
    Some(Shown { text, second: None, is_path: false })
}

fn plan(planner: &mut Planner<'_>) {
    if !planner.uses(Part::GrpcServer, &[HANDLE_STREAM]) {
        return;
    }
    planner.part(Part::GrpcServer, |planner| {
        planner.known_runtime()?;
        let version = Version::of(planner);
        let code = grpc::code_offset(planner)?;
        let (method, points) = stream(planner, &version)?;
        let mut facts =
            GrpcServer { unknown: version.unknown_codes(), method, points: points.into(), code, ..GrpcServer::NONE };
        for (index, name) in MESSAGES.iter().enumerate() {
            if let Ok(function) = planner.function(name) {
                facts.early[index] = function.addr;
                facts.early_len[index] = u32::try_from(function.size).unwrap_or(0);
            }
        }
        let mut ends = 0;
        for name in WRITE_STATUS.concat() {
            if let Ok(function) = planner.function(name) {
                // Both have one program, which is told of the one kind of place.
                if planner.binary.check_site(function).is_none() {
                    return Err(format!("{name} does not begin with a stack check"));
                }
                planner.probe(Probe::GrpcServerEnd, name)?;
                ends += 1;
            }
        }
        if ends == 0 {
            return Err(format!("neither {} nor {} is in the binary", WRITE_STATUS[0][0], WRITE_STATUS[0][1]));
        }
        planner.probe(Probe::GrpcServerStart, HANDLE_STREAM)?;
        planner.facts.grpc_server = facts;
        Ok(())
    });
}

/// Where a stream has its method, and whether the probes are given what points to the stream.
fn stream(planner: &Planner<'_>, version: &Version) -> Result<(u16, bool), String> {
    let layouts = planner.binary.layouts();
    if version.are_known(planner) && layouts.has(STREAM) {
        let of_stream = planner.offset(STREAM, "method");
        let embedded = planner.offset(SERVER_STREAM, EMBEDDED);
        return choose_stream(of_stream, layouts.has(SERVER_STREAM), embedded).ok_or_else(|| version.no_layouts());
    }
    match version {
        Version::Unknown(_) if SINCE_1_78.iter().any(|name| planner.binary.uses(name)) => {
            Ok((METHOD_SINCE_1_77, false))
        }
        _ => Err(version.no_layouts()),
    }
}

/// Up to 1.68 the probes are given a `Stream`; then a `ServerStream`, which begins with a pointer to one, and from 1.77 on with one.
fn choose_stream(of_stream: u16, has_server_stream: bool, embedded: u16) -> Option<(u16, bool)> {
    match (of_stream, embedded) {
        (NONE, NONE) => None,
        (of_stream, NONE) => Some((of_stream, has_server_stream)),
        (_, embedded) => Some((embedded, false)),
    }
}

#[cfg(test)]
mod tests {
    use exporter_ebpf::{grpc::UNREADABLE_CODE, key::Text};

    use super::*;

    fn text(of: &str) -> Text {
        let mut text =
            Text { len: of.len() as u32, read: of.len() as u32, parent: 0, slashes: 0, below: 0, text: [0; TEXT] };
        text.text[..of.len()].copy_from_slice(of.as_bytes());
        text
    }

    #[test]
    fn the_three_layouts_of_a_stream() {
        assert_eq!(choose_stream(88, false, NONE), Some((88, false)), "up to 1.68");
        assert_eq!(choose_stream(24, true, NONE), Some((24, true)), "1.69 to 1.76");
        assert_eq!(choose_stream(16, true, 16), Some((16, false)), "from 1.77 on");
        assert_eq!(choose_stream(NONE, false, NONE), None);
        assert_eq!(choose_stream(NONE, true, NONE), None, "between two versions that differ");
    }

    #[test]
    fn methods_that_no_server_has_are_one() {
        let key = |kind| TextKey { text: 1, target: 1, family: 0, kind, spare: 0 };
        let texts = |_: &TextKey| Some(text("a.B/C"));
        assert_eq!(shown(&key(method_kind::METHOD), &texts).unwrap().text, "a.B/C");
        assert_eq!(shown(&key(method_kind::OTHER), &|_| None).unwrap().text, OTHER);
        assert_eq!(shown(&key(method_kind::METHOD), &|_| Some(text(""))), None);
        let long = |_: &TextKey| Some(Text { len: 300, ..text("a.B/C") });
        assert_eq!(shown(&key(method_kind::METHOD), &long).unwrap().text, "a.B/C…");
    }

    #[test]
    fn a_status_that_was_not_read_has_no_label() {
        let names = |code| {
            let known = Known { text: Some("a.B/C".into()), second: None, go_minor: 26 };
            let labels = labels(&SeriesKey::of(Family::GrpcServer, 1, code), &known);
            labels.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(0), [SYSTEM, METHOD, STATUS]);
        assert_eq!(names(UNREADABLE_CODE), [SYSTEM, METHOD]);
    }
}
