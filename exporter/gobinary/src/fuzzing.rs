//! One function for each fuzz target of `fuzz/`: bytes in, everything asked of one part, the answers dropped. Each holds
//! what the part promises of any input: no panic, no long run, little memory, and sites inside their function.

use crate::binary::{GoBinary, is_go};
use crate::elf::{Arch, Elf};
use crate::layouts::dwarf;
use crate::names::Names;
use crate::sites;
use crate::source::Le;
use crate::{buildinfo, pclntab};

const FUNCTIONS: [&str; 8] = [
    "runtime.casgstatus",
    "runtime.gopark",
    "runtime.mcall",
    "runtime.gcStart",
    "runtime.selectgo",
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*response).finishRequest",
    "main.main",
];
const LAYOUTS: [(&str, &[&str]); 4] = [
    ("runtime.g", &["atomicstatus", "goid", "sched.sp", "waitreason", "m"]),
    ("runtime.m", &["curg", "mLockProfile.waitTime", "p"]),
    ("runtime.schedt", &["timeToRun", "runq.size", "gFree.stack.size"]),
    ("net/http.response", &["status", "req"]),
];

/// A whole file.
pub fn elf(bytes: &[u8]) {
    let _ = is_go(bytes);
    let Ok(go) = GoBinary::parse(bytes, &FUNCTIONS, &LAYOUTS) else { return };
    for function in go.functions() {
        let _ = (go.entry_site(function), go.return_sites(function), go.check_site(function));
    }
    let _ = go.layouts().all();
}

/// A function table, and the data behind it that names text.
pub fn pclntab(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let file = program(kind, bytes);
    let Ok(elf) = Elf::parse(file.as_slice()) else { return };
    let Ok(Some(table)) = pclntab::locate(&elf) else { return };
    let Ok(Some(text)) = pclntab::text_start(&elf, &table) else { return };
    let names = Names::new(FUNCTIONS.into_iter());
    let _ = pclntab::wanted(&elf, &table, text, &names);
    let _ = pclntab::matching(&elf, &table, text, |name| Some(String::from_utf8_lossy(name).into_owned()));
}

/// Build information and what it points to.
pub fn buildinfo(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let file = program(kind, bytes);
    let Ok(elf) = Elf::parse(file.as_slice()) else { return };
    let _ = buildinfo::quick(&elf);
    if let Ok(Some(info)) = buildinfo::read(&elf) {
        let _ = (info.go_version.to_string(), info.module("golang.org/x/net"), info.godebug("httpmuxgo121", "1"));
    }
}

/// The lengths of `.debug_abbrev` and `.debug_str`, then both, then `.debug_info`.
pub fn dwarf(bytes: &[u8]) {
    let (Some(abbrev), Some(strings)) = (bytes.u32_at(0), bytes.u32_at(4)) else { return };
    let Some((abbrev, rest)) = bytes.get(8..).and_then(|rest| rest.split_at_checked(abbrev as usize)) else { return };
    let Some((strings, info)) = rest.split_at_checked(strings as usize) else { return };
    let _ = dwarf::from_sections(info, abbrev, strings, &LAYOUTS);
}

/// A function's code.
pub fn sites(bytes: &[u8]) {
    let Some((&kind, code)) = bytes.split_first() else { return };
    let arch = if kind & 1 == 0 { Arch::Amd64 } else { Arch::Arm64 };
    let inside = |found: &sites::Found| assert!((found.offset as usize) < code.len(), "{found:?}");
    let _ = sites::entry(arch, code).map(|found| inside(&found));
    let _ = sites::returns(arch, code).map(|all| all.iter().for_each(inside));
    if let Some(found) = sites::check(arch, code) {
        inside(&found);
        // A check is followed by the start.
        assert!(sites::entry(arch, code).is_ok_and(|start| start.offset > found.offset), "{found:?}");
    }
    let _ = crate::globals::operands::references(arch, code, u64::MAX - 64);
}

/// An executable of one segment that holds everything, its header among it, at [`BASE`].
fn program(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let (arm, pie) = (kind & 1 == 1, kind & 2 == 2);
    let len = (HEADERS + bytes.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([if pie { 3 } else { 2 }, 0, if arm { 183 } else { 62 }, 0]);
    file.resize(32, 0);
    file.extend(64u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56, 0, 1, 0]);
    file.resize(64, 0);
    // PT_LOAD; readable, writable, executable.
    file.extend((7u64 << 32 | 1).to_le_bytes());
    for word in [0, BASE, BASE, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(HEADERS, 0);
    file.extend(bytes);
    file
}

const BASE: u64 = 0x40_0000;
const HEADERS: usize = 128;
