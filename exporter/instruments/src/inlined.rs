//! Functions that are to be probed and that the compiler has inlined where it matters, as profile-guided optimization does with
//! those that are called often: who calls them through a copy passes no probe. Seen by a caller in net/http or in the runtime that
//! has no call to them. Knows nothing of what is done about it.

use gobinary::GoBinary;

use crate::ALL;

/// A function, and those of which one or another calls it, whatever is inlined into which: a function, and closures in it. Every build
/// has the call, optimized or not (`-N -l`): Go's own source has it in every release from 1.17 to 1.27.
pub(crate) type Calls = (&'static str, &'static [&'static str]);

fn calls() -> impl Iterator<Item = &'static Calls> {
    ALL.iter().flat_map(|it| it.calls)
}

/// The callers, which [`GoBinary::parse`] has to be asked for.
pub(crate) fn callers() -> impl Iterator<Item = &'static str> {
    calls().flat_map(|(_, callers)| callers.iter().copied())
}

/// Functions that a caller has inlined, with that caller.
pub(crate) fn inlined(binary: &GoBinary) -> Vec<(&'static str, &'static str)> {
    missing(|caller, callee| binary.calls(binary.function(caller)?, binary.function(callee)?))
}

/// `calls` is none where the one or the other is not in the program, or it cannot be told.
fn missing(has_call: impl Fn(&str, &str) -> Option<bool>) -> Vec<(&'static str, &'static str)> {
    let lacks = |(callee, callers): &Calls| {
        let known: Vec<bool> = callers.iter().filter_map(|caller| has_call(caller, callee)).collect();
        !known.is_empty() && !known.contains(&true)
    };
    calls().filter(|it| lacks(it)).map(|(callee, callers)| (*callee, callers[0])).collect()
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
