//! Lines and functions of a stripped program, by the program's own word for them.

mod own;

use gobinary::{GoBinary, frames_at};
use xtask::go::{self, Program};

use own::own_go;

/// A program that calls a function which the compiler inlines.
const PROGRAM: &str = "package main

import \"os\"

//go:noinline
func outer(n int) int {
\treturn inner(n) + 1
}

func inner(n int) int {
\tfor i := 0; i < n; i++ {
\t\tn ^= i * 7
\t}
\treturn n
}

func main() {
\tos.Exit(outer(len(os.Args)))
}
";

#[test]
fn functions_files_and_lines_of_a_stripped_program() {
    let Some(go) = own_go("functions_files_and_lines_of_a_stripped_program") else { return };
    let program =
        Program { name: "lines", variant: "strip", source: PROGRAM, arguments: &["-ldflags=-s -w"], environment: &[] };
    let file = go::build_program(&go, &program).unwrap_or_else(|error| panic!("{error:#}"));
    let binary = GoBinary::open(&file, &["main.outer"], &[]).unwrap();
    let outer = binary.function("main.outer").unwrap();
    let offsets: Vec<u64> = (0..outer.size).filter_map(|at| binary.file_offset(outer.addr + at)).collect();
    let frames = frames_at(std::fs::File::open(&file).unwrap(), &offsets).unwrap();
    let start = frames.first().and_then(|frames| frames.first()).expect("its first instruction is known");
    // A leaf has no prologue, whose line would be that of `func`.
    assert!(start.function == "main.outer" && (6..=7).contains(&start.line), "{start:?}");
    assert!(start.file.ends_with("/main.go"), "{}", start.file);
    let inlined = frames.iter().find(|frames| frames.len() == 2).expect("inner is inlined");
    assert_eq!((inlined[0].function.as_str(), inlined[1].function.as_str()), ("main.inner", "main.outer"));
    assert!((10..=14).contains(&inlined[0].line) && inlined[1].line == 7, "{inlined:?}");
    let nowhere = frames_at(std::fs::File::open(&file).unwrap(), &[0, u64::MAX]).unwrap();
    assert!(nowhere.iter().all(Vec::is_empty));
}
