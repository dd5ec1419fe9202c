//! Sets of wanted names, and NUL-separated string tables in which they are looked for. Knows nothing of where the tables
//! come from.

use std::collections::HashMap;

use crate::error::Error;
use crate::source::{CHUNK, Flow, Source, stream};

/// The longest name that is looked at; wanted names are far shorter.
const MAX_NAME: usize = 512;

/// What a wanted name begins with that is meant in any package: `*.name`.
const ANY_PACKAGE: &str = "*.";

/// A set of wanted names that is quick to say no.
pub(crate) struct Names<'n> {
    set: HashMap<&'n [u8], &'n str>,
    /// Those of any package, by what is behind the package.
    anywhere: HashMap<&'n [u8], &'n str>,
    lengths: Vec<bool>,
    /// One bit for each hash of a wanted name's last four bytes.
    tails: Vec<bool>,
}

impl<'n> Names<'n> {
    pub(crate) fn new(names: impl Iterator<Item = &'n str>) -> Self {
        let mut this = Self {
            set: HashMap::new(),
            anywhere: HashMap::new(),
            lengths: vec![false; MAX_NAME],
            tails: vec![false; 4096],
        };
        for name in names.filter(|n| (4..MAX_NAME).contains(&n.len())) {
            if let Some(last) = name.strip_prefix(ANY_PACKAGE) {
                if let Some(flag) = this.tails.get_mut(tail(last.as_bytes())) {
                    *flag = true;
                }
                this.anywhere.insert(last.as_bytes(), name);
                continue;
            }
            for (table, index) in [(&mut this.lengths, name.len()), (&mut this.tails, tail(name.as_bytes()))] {
                if let Some(flag) = table.get_mut(index) {
                    *flag = true;
                }
            }
            this.set.insert(name.as_bytes(), name);
        }
        this
    }

    /// The wanted name that these bytes are.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&'n str> {
        if !self.flag(&self.tails, tail(name)) {
            return None;
        }
        let exact = if self.flag(&self.lengths, name.len()) { self.set.get(name) } else { None };
        exact.or_else(|| self.anywhere.get(behind_package(name))).copied()
    }

    /// The wanted names that these bytes end with: C linkers let a name share the tail of a longer one.
    pub(crate) fn suffixes(&self, name: &[u8], mut found: impl FnMut(usize, &'n str)) {
        if !self.flag(&self.tails, tail(name)) {
            return;
        }
        for len in 4..=name.len().min(MAX_NAME - 1) {
            let start = name.len() - len;
            if self.flag(&self.lengths, len)
                && let Some(wanted) = name.get(start..).and_then(|suffix| self.set.get(suffix))
            {
                found(start, wanted);
            }
        }
    }

    #[expect(clippy::unused_self, reason = "reads as a question to the set")]
    fn flag(&self, table: &[bool], index: usize) -> bool {
        table.get(index).copied().unwrap_or(false)
    }
}

/// A package's path ends at the first dot behind its last slash.
fn behind_package(name: &[u8]) -> &[u8] {
    let path = memchr::memrchr(b'/', name).map_or(0, |slash| slash + 1);
    let last = name.get(path..).unwrap_or(name);
    memchr::memchr(b'.', last).and_then(|dot| last.get(dot + 1..)).unwrap_or(&[])
}

fn tail(name: &[u8]) -> usize {
    let word = name.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    (word.wrapping_mul(0x9e37_79b1) >> 20) as usize
}

/// Visits the strings of a table with their offsets in it. Strings longer than any wanted name may be left out.
pub(crate) fn strings<S: Source>(
    src: &S,
    offset: u64,
    len: u64,
    mut visit: impl FnMut(u64, &[u8]),
) -> Result<(), Error> {
    let len = len.min(src.len().saturating_sub(offset));
    let (mut next, mut inside_long) = (0u64, false);
    stream(src, offset, len, MAX_NAME, |base, chunk| {
        let last = base + chunk.len() as u64 >= len;
        let mut at = usize::try_from(next.saturating_sub(base)).unwrap_or(usize::MAX);
        // A string that starts in the overlap is whole in the next chunk.
        while last || at < CHUNK {
            let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let Some(end) = memchr::memchr(0, rest) else {
                inside_long = true;
                at = chunk.len();
                break;
            };
            if !inside_long {
                visit(base + at as u64, rest.get(..end).unwrap_or(&[]));
            }
            inside_long = false;
            at += end + 1;
        }
        next = base.saturating_add(at as u64);
        Flow::Continue
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_is_visited_once() {
        let mut table = Vec::new();
        let mut starts = Vec::new();
        let mut n = 0usize;
        while table.len() < 3 * CHUNK {
            starts.push((table.len() as u64, n % 400));
            table.extend(std::iter::repeat_n(b'x', n % 400));
            table.push(0);
            n += 1;
        }
        let mut seen = Vec::new();
        strings(&table, 0, table.len() as u64, |at, s| seen.push((at, s.len()))).unwrap();
        assert_eq!(seen, starts);
    }

    #[test]
    fn a_string_longer_than_a_chunk_is_passed_over() {
        let mut table = vec![b'y'; 2 * CHUNK + 77];
        table.extend(b"\0name\0");
        let mut seen = Vec::new();
        strings(&table, 0, table.len() as u64, |at, s| seen.push((at, s.to_vec()))).unwrap();
        assert_eq!(seen.last().unwrap(), &((2 * CHUNK + 78) as u64, b"name".to_vec()));
    }

    #[test]
    fn a_name_of_any_package_is_found_in_any() {
        let names = Names::new(["*.mprotectCrossPage", "main.foo"].into_iter());
        for found in
            ["bou.ke/monkey.mprotectCrossPage", "my.fork/of/monkey/v2.mprotectCrossPage", "x.mprotectCrossPage"]
        {
            assert_eq!(names.get(found.as_bytes()), Some("*.mprotectCrossPage"), "{found}");
        }
        for other in ["mprotectCrossPage", "x.(*T).mprotectCrossPage", "x.my_mprotectCrossPage", "x/mprotectCrossPage"]
        {
            assert_eq!(names.get(other.as_bytes()), None, "{other}");
        }
        assert_eq!(names.get(b"main.foo"), Some("main.foo"));
    }

    #[test]
    fn suffixes_are_found() {
        let names = Names::new(["main.foo", "in.foo"].into_iter());
        let mut found = Vec::new();
        names.suffixes(b"xmain.foo", |at, name| found.push((at, name)));
        assert_eq!(found, [(3, "in.foo"), (1, "main.foo")]);
        assert_eq!(names.get(b"main.foo"), Some("main.foo"));
        assert_eq!(names.get(b"main.fox"), None);
    }
}
