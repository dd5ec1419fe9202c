//! `runtime.buildVersion`: the Go version as the program itself says it, found by what runtime.schedinit refers to. A
//! program whose build information was taken away still has it.

use std::collections::BTreeSet;

use super::Program;
use crate::error::Error;
use crate::source::{Le, Source};
use crate::version::GoVersion;

const SCHEDINIT: &str = "runtime.schedinit";
/// As long as any toolchain's, `devel go1.23-abcdef Tue Jan 2 00:00:00 2024 +0000 X:...` with every experiment that there is.
const MAX_LEN: u64 = 1024;
/// Go's own refers to about 60.
const MAX_TARGETS: usize = 256;

/// The version, if there is exactly one string that reads like one.
pub(crate) fn recorded_in_runtime<S: Source>(program: &Program<'_, S>) -> Result<Option<GoVersion>, Error> {
    Ok(variable(program)?.map(|(_, version)| version))
}

/// The variable's address and value. schedinit replaces an empty one by "unknown" (runtime/proc.go, 1.17 to 1.27), so
/// it refers to both words of the string.
pub(super) fn variable<S: Source>(program: &Program<'_, S>) -> Result<Option<(u64, GoVersion)>, Error> {
    let Some(references) = program.references(SCHEDINIT)? else { return Ok(None) };
    let targets: BTreeSet<u64> = references.iter().map(|r| r.target).collect();
    let mut found = None;
    for &target in targets.iter().take(MAX_TARGETS) {
        let both = target.checked_add(8).is_some_and(|len| targets.contains(&len));
        let Some(text) = (if both { string_at(program, target)? } else { None }) else { continue };
        let version = GoVersion::parse(&text);
        if !version.is_known() {
            continue;
        }
        if found.is_some() {
            return Ok(None);
        }
        found = Some((target, version));
    }
    Ok(found)
}

fn string_at<S: Source>(program: &Program<'_, S>, at: u64) -> Result<Option<String>, Error> {
    let elf = program.elf;
    if !elf.in_variables(at) {
        return Ok(None);
    }
    let len = elf.read(at.saturating_add(8), 8)?.and_then(|bytes| bytes.u64_at(0)).unwrap_or(0);
    if !(1..=MAX_LEN).contains(&len) {
        return Ok(None);
    }
    let Some(data) = elf.pointer(at)? else { return Ok(None) };
    let text = elf.read(data, usize::try_from(len).unwrap_or(0))?.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(text.filter(|text| text.starts_with("go") || text.starts_with("devel")))
}
