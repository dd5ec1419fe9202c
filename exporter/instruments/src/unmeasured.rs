//! What a program has that is like what is measured, and is not: servers whose requests are not counted, what tells them, and what is said of them. Without a line, a program
//! that is measured and shows no requests reads as one that has none. Knows nothing of what is measured.

use serde::Serialize;

use crate::ALL;

/// A server whose requests are not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unmeasured {
    /// What it is, as a name.
    pub server: &'static str,
    /// What that means, for a person.
    pub reason: &'static str,
}

/// What tells of it.
#[derive(Debug)]
pub(crate) struct Unmeasurable {
    /// What it is.
    pub(crate) what: Unmeasured,
    /// Functions of which each serves a request or a connection, or makes one: any of them tells. The linker leaves out what is never
    /// called.
    pub(crate) functions: &'static [&'static str],
}

fn known() -> impl Iterator<Item = &'static Unmeasurable> {
    ALL.iter().flat_map(|it| it.unmeasured)
}

/// The functions that tell.
pub(crate) fn functions() -> impl Iterator<Item = &'static str> {
    known().flat_map(|it| it.functions.iter().copied())
}

/// What a program has that is not measured, by which functions are in it.
pub fn unmeasured(has: impl Fn(&str) -> bool) -> Vec<Unmeasured> {
    known().filter(|it| it.functions.iter().any(|name| has(name))).map(|it| it.what).collect()
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
        for known in known() {
            for name in known.functions {
                assert_eq!(servers(&[name]), [known.what.server], "{name}");
            }
            assert_eq!(servers(known.functions), [known.what.server]);
            assert!(known.what.reason.contains("not measured"), "{}", known.what.reason);
        }
        let all: Vec<&str> = functions().collect();
        assert_eq!(servers(&all).len(), known().count());
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each tells of one");
    }
}
