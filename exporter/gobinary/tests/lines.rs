//! Lines and functions of a stripped program, by the program's own word for them.

use std::process::Command;

use gobinary::{GoBinary, frames_at};

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
    let directory = std::env::temp_dir().join(format!("gobinary-lines-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("main.go"), PROGRAM).unwrap();
    std::fs::write(directory.join("go.mod"), "module lines\n\ngo 1.20\n").unwrap();
    let mut go = Command::new("go");
    go.args(["build", "-ldflags=-s -w", "-o", "lines", "."]).env("GOTOOLCHAIN", "local").current_dir(&directory);
    assert!(go.status().expect("the tests need Go").success());
    let file = directory.join("lines");
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
    std::fs::remove_dir_all(&directory).unwrap();
}
