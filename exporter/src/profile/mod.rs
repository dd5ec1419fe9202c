//! Profiles of blocking: from stacks with their weights to pprof's format and to folded text. Knows nothing of how stacks are
//! taken or made readable.

mod pprof;

pub(crate) use self::pprof::pprof;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use gobinary::Frame;

/// The calls of a stack at one place: the innermost first, more than one where the compiler has inlined.
pub(crate) type Place = Vec<Frame>;

/// Goroutines that blocked at one place for one reason.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// The runtime's word for why.
    pub(crate) reason: &'static str,
    /// How often.
    pub(crate) count: f64,
    /// For how long in all.
    pub(crate) seconds: f64,
    /// Addresses with their calls, the innermost first.
    pub(crate) places: Vec<(u64, Place)>,
}

/// A profile of one program.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// The executable.
    pub(crate) executable: String,
    /// When it was begun, nanoseconds since 1970.
    pub(crate) began_ns: i64,
    /// How long it took.
    pub(crate) took: Duration,
    /// What was seen.
    pub(crate) stacks: Vec<Stack>,
}

impl Stack {
    /// Takes away the calls by which the runtime and package sync block: what is left begins with who asked for it.
    pub(crate) fn without_mechanism(mut self) -> Self {
        let mechanism = |frame: &Frame| {
            ["runtime.", "internal/runtime/", "sync.", "internal/sync.", "time.Sleep"]
                .iter()
                .any(|prefix| frame.function.starts_with(prefix))
        };
        loop {
            let last = self.places.len() == 1;
            let Some((_, place)) = self.places.first_mut() else { break };
            let kept = place.iter().position(|frame| !mechanism(frame));
            match kept {
                Some(at) => {
                    place.drain(..at);
                    break;
                }
                // The runtime's own goroutines are left with their outermost call.
                None if last => {
                    place.drain(..place.len().saturating_sub(1));
                    break;
                }
                None => {
                    self.places.remove(0);
                }
            }
        }
        self
    }

    /// The function that blocks.
    pub(crate) fn function(&self) -> Option<&str> {
        self.places.first()?.1.first().map(|frame| frame.function.as_str())
    }
}

/// Folded text, as flame graph tools read it: calls from the outermost to the innermost, a space, and microseconds.
pub(crate) fn folded(profile: &Profile) -> String {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for stack in &profile.stacks {
        let calls = stack.places.iter().rev().flat_map(|(_, place)| place.iter().rev());
        let mut line = calls.map(|frame| frame.function.replace(';', ":")).collect::<Vec<_>>().join(";");
        let _ = write!(line, ";[{}]", stack.reason);
        *sums.entry(line).or_default() += stack.seconds;
    }
    let mut text = String::new();
    for (line, seconds) in sums {
        let _ = writeln!(text, "{line} {:.0}", seconds * 1e6);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn frame(function: &str, line: u32) -> Frame {
        Frame { function: function.into(), file: "/src/main.go".into(), line }
    }

    pub(super) fn stack() -> Stack {
        let places = vec![
            (0x10, vec![frame("runtime.gopark", 1)]),
            (0x20, vec![frame("sync.(*Mutex).lockSlow", 2), frame("sync.(*Mutex).Lock", 3), frame("main.hot", 7)]),
            (0x30, vec![frame("main.main", 9)]),
        ];
        Stack { reason: "sync.Mutex.Lock", count: 2.0, seconds: 1.5, places }
    }

    #[test]
    fn what_blocks_comes_first_and_the_runtimes_own_remain() {
        let trimmed = stack().without_mechanism();
        assert_eq!(trimmed.function(), Some("main.hot"));
        assert_eq!(trimmed.places.len(), 2);
        let own = Stack {
            places: vec![(1, vec![frame("runtime.gopark", 1)]), (2, vec![frame("runtime.bgsweep", 2)])],
            ..stack()
        };
        assert_eq!(own.without_mechanism().function(), Some("runtime.bgsweep"));
        assert_eq!(Stack { places: Vec::new(), ..stack() }.without_mechanism().function(), None);
    }

    #[test]
    fn folded_text_is_outermost_first_and_summed() {
        let profile = Profile {
            executable: "x".into(),
            began_ns: 0,
            took: Duration::ZERO,
            stacks: vec![stack().without_mechanism(), stack().without_mechanism()],
        };
        assert_eq!(folded(&profile), "main.main;main.hot;[sync.Mutex.Lock] 3000000\n");
    }
}
