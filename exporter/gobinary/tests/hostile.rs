//! Hostile input: truncations and flipped bytes of a real program never make gobinary panic, hang or take much memory.
//! Builds that program with whatever `go` is installed, small and with its DWARF uncompressed so that flips reach it.

mod own;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gobinary::GoBinary;
use xtask::go::{self, Program, Toolchain};

use own::own_go;

const FUNCTIONS: [&str; 6] =
    ["runtime.casgstatus", "runtime.gopark", "runtime.mcall", "runtime.gcStart", "runtime.selectgo", "main.main"];
const LAYOUTS: &[(&str, &[&str])] = &[
    ("runtime.g", &["atomicstatus", "goid", "sched.sp", "waitreason", "m"]),
    ("runtime.schedt", &["timeToRun", "runq.size"]),
    ("golang.org/x/net/http2.responseWriterState", &["status"]),
];

/// The program's bytes, or None, with a line that says so, for a test on a machine without Go.
fn program(test: &str) -> Option<&'static Vec<u8>> {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    let go = own_go(test)?;
    Some(PROGRAM.get_or_init(|| std::fs::read(build(&go)).unwrap()))
}

fn build(go: &Toolchain) -> PathBuf {
    let program = Program {
        name: "hostile",
        variant: "pie",
        source: "package main\n\nfunc main() { println(1) }\n",
        arguments: &["-buildmode=pie", "-ldflags=-compressdwarf=false"],
        environment: &[("CGO_ENABLED", "0")],
    };
    go::build_program(go, &program).unwrap_or_else(|error| panic!("{error:#}"))
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Inspects and asks everything; the result does not matter.
fn exercise(bytes: &Vec<u8>) {
    let start = Instant::now();
    let _ = gobinary::is_go(bytes);
    match GoBinary::parse(bytes, &FUNCTIONS, LAYOUTS) {
        Ok(go) => {
            for function in go.functions() {
                let _ = (go.entry_site(function), go.return_sites(function), go.check_site(function));
            }
            let _ = go.layouts().all();
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
    // A hang; fuzzing holds it to a second.
    assert!(start.elapsed() < Duration::from_mins(1), "took {:?}", start.elapsed());
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn mutations_are_survived() {
    let Some(original) = program("mutations_are_survived") else { return };
    exercise(original);
    let whole = GoBinary::parse(original, &FUNCTIONS, LAYOUTS).unwrap();
    assert!(whole.function("main.main").is_some());
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut work = original.clone();
    let before = peak_kib();
    // Where a flip decides something: headers, tables, build information, the function table, DWARF.
    let at = |needle: &[u8]| original.windows(needle.len()).position(|w| w == needle).unwrap_or(0);
    let shoff = u64::from_le_bytes(original[40..48].try_into().unwrap()) as usize;
    let pclntab = original.windows(8).position(|w| w == [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]).unwrap_or(0);
    let spots = [(0, 64), (64, 600), (shoff, original.len() - shoff), (at(b"\xff Go buildinf:"), 400), (pclntab, 72)];
    for round in 0..500 {
        let flips = 1 + random.below(8);
        let mut undo = Vec::new();
        for _ in 0..flips {
            let (start, len) = if round % 3 == 0 { (0, original.len()) } else { spots[random.below(spots.len())] };
            let spot = (start + random.below(len)).min(original.len() - 1);
            undo.push((spot, work[spot]));
            work[spot] = match random.below(4) {
                0 => 0xff,
                1 => 0,
                _ => random.next() as u8,
            };
        }
        exercise(&work);
        for (spot, byte) in undo.into_iter().rev() {
            work[spot] = byte;
        }
    }
    assert_eq!(work, *original);
    for _ in 0..60 {
        let cut = random.below(original.len());
        exercise(&original[..cut].to_vec());
    }
    for cut in 0..200 {
        exercise(&original[..cut].to_vec());
    }
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "peak memory grew by {grown} KiB");
}

/// DWARF alone, flipped densely: its references go everywhere.
#[test]
fn mutated_dwarf_is_survived() {
    let Some(original) = program("mutated_dwarf_is_survived") else { return };
    let shoff = u64::from_le_bytes(original[40..48].try_into().unwrap()) as usize;
    let mut random = XorShift(42);
    // The sections of the tail, but for symbols: mostly .debug_*.
    let start = original.len() / 2;
    for _ in 0..40 {
        let mut work = original.clone();
        for _ in 0..2000 {
            let spot = start + random.below(shoff.saturating_sub(start));
            work[spot] = random.next() as u8;
        }
        exercise(&work);
    }
}

#[test]
fn things_that_are_no_go_program() {
    let error = |bytes: &[u8]| GoBinary::parse(bytes.to_vec(), &[], &[]).unwrap_err().to_string();
    assert!(error(b"").starts_with("not an ELF file"));
    assert!(error(b"#!/bin/sh\n").contains("23 21 2f 62"));
    assert!(error(b"\x7fELF\x01\x01").starts_with("a 32-bit"));
    assert!(error(b"\x7fELF\x02\x02").starts_with("a big-endian"));
    assert!(error(b"\x7fELF\x02\x01\x01").starts_with("truncated: the ELF header"));
    let own = std::fs::read("/proc/self/exe").unwrap();
    let error = GoBinary::parse(&own, &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("not a Go program"), "{error}");
    assert!(!gobinary::is_go(&own).unwrap());
    let missing = GoBinary::open("/nonexistent/file".as_ref(), &[], &[]).unwrap_err().to_string();
    assert!(missing.starts_with("cannot be read: No such file"), "{missing}");
    let directory = GoBinary::open("/".as_ref(), &[], &[]).unwrap_err().to_string();
    assert!(directory.starts_with("cannot be read"), "{directory}");
}

#[test]
fn a_program_that_was_cut_off_is_named() {
    let Some(program) = program("a_program_that_was_cut_off_is_named") else { return };
    assert!(gobinary::is_go(program).unwrap());
    let cut = program[..program.len() / 3].to_vec();
    assert!(GoBinary::parse(cut, &[], &[]).unwrap_err().to_string().starts_with("truncated: the program's"));
}

/// What UPX leaves: program headers, its magic behind them, no section headers.
#[test]
fn a_packed_program_is_named() {
    let mut file = vec![0u8; 8192];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in [(16, 2u16), (18, 62), (54, 56), (56, 1)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(32, 64u64), (64, 5 << 32 | 1), (80, 0x40_0000), (96, 8192), (104, 8192)] {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    file[0x7c..0x80].copy_from_slice(b"UPX!");
    let error = GoBinary::parse(&file, &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("packed with UPX: unpack it with upx -d"), "{error}");
    file[0x7c..0x80].fill(0);
    assert!(GoBinary::parse(&file, &[], &[]).unwrap_err().to_string().starts_with("not a Go program"));
}

#[test]
fn old_releases_are_refused() {
    let Some(mut bytes) = program("old_releases_are_refused").cloned() else { return };
    let marker = bytes.windows(14).position(|w| w == b"\xff Go buildinf:").unwrap();
    bytes[marker + 32..marker + 41].copy_from_slice(b"\x08go1.16.2");
    let error = GoBinary::parse(&bytes, &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("built with go1.16.2: needs Go 1.17 or newer"), "{error}");
}

/// The build information says another release than the one that built the program.
#[test]
fn a_lie_is_caught() {
    let Some(mut bytes) = program("a_lie_is_caught").cloned() else { return };
    let honest = GoBinary::parse(&bytes, &FUNCTIONS, LAYOUTS).unwrap();
    assert!(honest.contradictions.is_empty(), "{:?}", honest.contradictions);
    let version = honest.build_info.go_version.raw.clone();
    let marker = bytes.windows(14).position(|w| w == b"\xff Go buildinf:").unwrap();
    let there = marker + bytes[marker..].windows(version.len()).position(|w| w == version.as_bytes()).unwrap();
    let lie = if honest.build_info.go_version.minor == 22 { "go1.21." } else { "go1.22." };
    bytes[there..there + lie.len()].copy_from_slice(lie.as_bytes());
    // Without DWARF, so that only the table could give layouts.
    bytes[40..48].fill(0);
    let caught = GoBinary::parse(&bytes, &FUNCTIONS, LAYOUTS).unwrap();
    assert_eq!(caught.layouts().source(), gobinary::LayoutsFrom::None, "{:?}", caught.contradictions);
    assert!(!caught.contradictions.is_empty());
}
