//! Servers whose requests are not measured.

use crate::unmeasured::{Unmeasurable, Unmeasured};

/// Servers that are not measured. Names by the sources of net/http/cgi and net/http/fcgi (Go 1.17 to 1.27), fasthttp 1.16 to
/// 1.78, and quic-go, whose module was `github.com/lucas-clemente/quic-go` up to 0.31.
pub(super) const UNMEASURED: [Unmeasurable; 4] = [
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
