//! Functions that are to be probed and that the compiler has inlined where it matters, as profile-guided optimization does with
//! those that are called often: who calls them through a copy passes no probe. Seen by a caller in net/http or in the runtime that
//! has no call to them. Knows nothing of what is done about it.

use gobinary::GoBinary;

/// A function, and those of which one or another calls it, whatever is inlined into which: a function, and closures in it.
type Calls = (&'static str, &'static [&'static str]);

/// Calls that every build has, optimized or not (`-N -l`): Go's own source has them in every release from 1.17 to 1.27
/// (net/http/server.go, net/http/h2_bundle.go or net/http/internal/http2, golang.org/x/net/http2/server.go, runtime/proc.go,
/// runtime/chan.go, runtime/select.go, runtime/netpoll.go).
const CALLS: [Calls; 10] = [
    ("net/http.serverHandler.ServeHTTP", &["net/http.(*conn).serve"]),
    ("net/http.(*response).finishRequest", &["net/http.(*conn).serve"]),
    (
        "net/http.(*http2responseWriter).handlerDone",
        &["net/http.(*http2serverConn).runHandler", "net/http.(*http2serverConn).runHandler.func1"],
    ),
    (
        "net/http/internal/http2.(*responseWriter).handlerDone",
        &["net/http/internal/http2.(*serverConn).runHandler", "net/http/internal/http2.(*serverConn).runHandler.func1"],
    ),
    (
        "golang.org/x/net/http2.(*responseWriter).handlerDone",
        &["golang.org/x/net/http2.(*serverConn).runHandler", "golang.org/x/net/http2.(*serverConn).runHandler.func1"],
    ),
    ("runtime.execute", &["runtime.schedule"]),
    ("runtime.gopark", &["runtime.chanrecv"]),
    ("runtime.gopark", &["runtime.chansend"]),
    ("runtime.gopark", &["runtime.selectgo"]),
    ("runtime.gopark", &["runtime.netpollblock"]),
];

/// The callers, which [`GoBinary::parse`] has to be asked for.
pub(super) fn callers() -> impl Iterator<Item = &'static str> {
    CALLS.iter().flat_map(|(_, callers)| callers.iter().copied())
}

/// Functions that a caller has inlined, with that caller.
pub(super) fn inlined(binary: &GoBinary) -> Vec<(&'static str, &'static str)> {
    let calls = |caller: &str, callee: &str| binary.calls(binary.function(caller)?, binary.function(callee)?);
    missing(calls)
}

/// `calls` is none where the one or the other is not in the program, or it cannot be told.
fn missing(calls: impl Fn(&str, &str) -> Option<bool>) -> Vec<(&'static str, &'static str)> {
    let lacks = |(callee, callers): &Calls| {
        let known: Vec<bool> = callers.iter().filter_map(|caller| calls(caller, callee)).collect();
        !known.is_empty() && !known.contains(&true)
    };
    CALLS.iter().filter(|it| lacks(it)).map(|(callee, callers)| (*callee, callers[0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_caller_calls_is_inlined_and_what_has_none_is_not() {
        assert_eq!(missing(|_, _| None), []);
        assert_eq!(missing(|_, _| Some(true)), []);
        let serve = "net/http.(*conn).serve";
        let finish = "net/http.(*response).finishRequest";
        assert_eq!(missing(|caller, callee| (caller == serve).then_some(callee != finish)), [(finish, serve)]);
        // The call is in the deferred closure.
        let in_closure = |caller: &str, _: &str| caller.contains("runHandler").then(|| caller.ends_with(".func1"));
        assert_eq!(missing(in_closure), []);
        assert_eq!(missing(|caller, _| caller.contains("http2").then_some(false)).len(), 3);
    }
}
