//! Servers that a program has and whose requests are not measured: what tells them, and what is said of them. Without a line, a program
//! that is measured and shows no requests reads as one that has none. Knows nothing of what is measured.

use serde::Serialize;

/// A server whose requests are not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unmeasured {
    /// What it is, as a name.
    pub(crate) server: &'static str,
    /// What that means, for a person.
    pub(crate) reason: &'static str,
}

struct Known {
    server: Unmeasured,
    /// Functions of which each serves a request or a connection: any of them tells. The linker leaves out what is never called.
    functions: &'static [&'static str],
}

/// All that are known. Names by the sources of net/http/cgi and net/http/fcgi (Go 1.17 to 1.27), grpc-go 1.0 to 1.84, fasthttp 1.16 to
/// 1.78, and quic-go, whose module was `github.com/lucas-clemente/quic-go` up to 0.31.
const KNOWN: [Known; 5] = [
    Known {
        server: Unmeasured {
            server: "grpc",
            reason: "google.golang.org/grpc serves gRPC by a transport of its own, which is not measured yet. Where it is a \
                     handler of net/http (ServeHTTP), its calls are counted as requests",
        },
        functions: &["google.golang.org/grpc.(*Server).handleStream"],
    },
    Known {
        server: Unmeasured {
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
    Known {
        server: Unmeasured {
            server: "fasthttp",
            reason: "github.com/valyala/fasthttp, on which fiber is built, is not net/http's server: its requests are not measured",
        },
        functions: &["github.com/valyala/fasthttp.(*Server).serveConn"],
    },
    Known {
        server: Unmeasured {
            server: "fcgi",
            reason: "net/http/fcgi calls the handler itself: its requests are not measured",
        },
        functions: &["net/http/fcgi.(*child).serveRequest"],
    },
    Known {
        server: Unmeasured {
            server: "cgi",
            reason: "net/http/cgi calls the handler itself: its request is not measured",
        },
        functions: &["net/http/cgi.Serve"],
    },
];

/// The functions that tell.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().flat_map(|it| it.functions.iter().copied())
}

/// What a program has that is not measured, by which functions are in it.
pub(super) fn unmeasured(has: impl Fn(&str) -> bool) -> Vec<Unmeasured> {
    KNOWN.iter().filter(|it| it.functions.iter().any(|name| has(name))).map(|it| it.server).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn any_function_of_a_server_tells_of_it_once() {
        let servers =
            |names: &[&str]| unmeasured(|name| names.contains(&name)).iter().map(|it| it.server).collect::<Vec<_>>();
        assert!(servers(&["net/http.(*conn).serve"]).is_empty());
        for known in &KNOWN {
            for name in known.functions {
                assert_eq!(servers(&[name]), [known.server.server], "{name}");
            }
            assert_eq!(servers(known.functions), [known.server.server]);
            assert!(known.server.reason.contains("not measured"), "{}", known.server.reason);
        }
        let all: Vec<&str> = functions().collect();
        assert_eq!(servers(&all).len(), KNOWN.len());
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each tells of one");
    }
}
