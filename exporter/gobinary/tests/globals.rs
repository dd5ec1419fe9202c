//! Programs that lie about the runtime's variables, or whose code is not what it was: what is found is true or nothing.

mod own;

use std::fs;

use gobinary::{Global, GlobalSource, GoBinary};
use object::{Object, ObjectSection, ObjectSymbol};
use xtask::go::{self, Program, Toolchain};

use own::own_go;

const PROGRAM: &str =
    "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\"127.0.0.1:0\", nil) }\n";
type File<'f> = object::read::elf::ElfFile64<'f, object::LittleEndian>;

/// Builds for an architecture, with symbols.
fn program(go: &Toolchain, arch: &str) -> Vec<u8> {
    let program =
        Program { name: "globals", variant: arch, source: PROGRAM, arguments: &[], environment: &[("GOARCH", arch)] };
    fs::read(go::build_program(go, &program).unwrap_or_else(|error| panic!("{error:#}"))).unwrap()
}

/// Without section headers, and so without symbols.
fn strip(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    bytes
}

fn inspect(bytes: &[u8]) -> GoBinary {
    GoBinary::parse(bytes, &[], &[]).unwrap()
}

/// Numbers without a pattern, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

#[test]
fn garbled_code_gives_the_truth_or_nothing() {
    let Some(go) = own_go("garbled_code_gives_the_truth_or_nothing") else { return };
    for arch in ["amd64", "arm64"] {
        let whole = program(&go, arch);
        let truth = inspect(&whole);
        let stripped = strip(&whole);
        let file = File::parse(whole.as_slice()).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let (start, _) = text.file_range().unwrap();
        // The functions that tell where variables are, and where they are in the file.
        let names: Vec<_> = gobinary::variable_uses(&whole).unwrap().iter().map(|(name, _, _)| *name).collect();
        let code: Vec<(usize, usize)> = file
            .symbols()
            .filter(|s| s.name().is_ok_and(|name| names.contains(&name)))
            .map(|s| ((s.address() - text.address() + start) as usize, s.size() as usize))
            .collect();
        assert!(code.len() > 30, "{arch}: {} functions", code.len());
        let (mut random, mut lost) = (Random(0x9e37_79b9_7f4a_7c15), 0);
        for round in 0..150 {
            let mut bytes = stripped.clone();
            // From a flipped byte in each function to functions that are noise or those of their neighbours.
            for &(at, len) in &code {
                match round % 3 {
                    0 => bytes[at + random.below(len)] ^= 1 << random.below(8),
                    1 => (0..len / 16).for_each(|_| bytes[at + random.below(len)] = random.below(256) as u8),
                    _ => {
                        let (from, other) = code[random.below(code.len())];
                        bytes.copy_within(from..from + other.min(len), at);
                    }
                }
            }
            let found = inspect(&bytes);
            for &global in Global::ALL {
                match (found.global(global), truth.global(global)) {
                    (None, _) => lost += 1,
                    (Some(here), known) => {
                        assert_eq!(Some(here.address), known.map(|k| k.address), "{arch} {global}, round {round}");
                    }
                }
            }
        }
        assert!(lost > 100, "{arch}: {lost} refused, so nothing was garbled");
    }
}

#[test]
fn a_symbol_table_that_the_code_contradicts_is_not_believed() {
    let Some(go) = own_go("a_symbol_table_that_the_code_contradicts_is_not_believed") else { return };
    let whole = program(&go, "amd64");
    let truth = inspect(&whole);
    assert_eq!(truth.global(Global::Sched).unwrap().from, GlobalSource::Symtab);
    let file = File::parse(whole.as_slice()).unwrap();
    let (table, _) = file.section_by_name(".symtab").unwrap().file_range().unwrap();
    let index = file.symbols().find(|s| s.name() == Ok("runtime.sched")).unwrap().index().0;
    let mut bytes = whole.clone();
    let value = table as usize + index * 24 + 8;
    let moved = truth.global(Global::Sched).unwrap().address + 64;
    bytes[value..value + 8].copy_from_slice(&moved.to_le_bytes());
    let caught = inspect(&bytes);
    assert_eq!(caught.global(Global::Sched), None);
    let why = caught.global_missing(Global::Sched).unwrap();
    assert!(why.contains("by the symbol table, but at"), "{why}");
    assert_eq!(caught.global(Global::Allm), truth.global(Global::Allm));
}

#[test]
fn the_version_is_the_runtimes_own_where_build_information_is_gone_and_must_agree_where_it_is_not() {
    let Some(go) =
        own_go("the_version_is_the_runtimes_own_where_build_information_is_gone_and_must_agree_where_it_is_not")
    else {
        return;
    };
    let version = format!("go{}", go.version);
    let (start, patch) = version.split_at(version.len() - 1);
    let other = format!("{start}{}", if patch == "7" { "6" } else { "7" });
    for arch in ["amd64", "arm64"] {
        let mut bytes = strip(&program(&go, arch));
        let marker = bytes.windows(15).position(|w| w == b"\xff Go buildinf:\x08").unwrap();
        let honest = inspect(&bytes);
        let at = marker + memchr::memmem::find(&bytes[marker..], version.as_bytes()).unwrap();
        bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
        let lying = inspect(&bytes);
        assert_eq!(lying.contradictions, [format!("it says {other}, but its runtime.buildVersion is {version}")]);
        assert_eq!(lying.global(Global::Sched), None);
        assert!(lying.global_missing(Global::Sched).unwrap().contains("runtime.buildVersion"));
        bytes[marker..marker + 200].fill(0);
        let without = inspect(&bytes);
        assert_eq!(without.build_info.go_version.raw, version);
        assert!(without.notes.iter().any(|note| note.contains("runtime.buildVersion")), "{:?}", without.notes);
        for &global in Global::ALL {
            assert_eq!(without.global(global), honest.global(global), "{arch} {global}");
        }
    }
}
