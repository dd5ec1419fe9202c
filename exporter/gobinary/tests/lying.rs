//! A stripped program whose build information says another Go release than the one that built it: caught, and left
//! without any layout, so that nothing that needs an offset can be planned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gobinary::{GoBinary, LayoutsFrom};

const FUNCTIONS: [&str; 2] = ["net/http.serverHandler.ServeHTTP", "net/http.(*response).finishRequest"];
/// Those of `exporter/src/target/plan.rs`.
const LAYOUTS: [(&str, &[&str]); 8] = [
    ("runtime.g", &["goid", "atomicstatus"]),
    ("net/http.response", &["req", "status"]),
    ("net/http.Request", &["Method", "URL", "Pattern", "pat"]),
    ("net/http.pattern", &["str"]),
    ("net/url.URL", &["Path"]),
    ("net/http.http2responseWriterState", &["status", "req"]),
    ("net/http/internal/http2.responseWriterState", &["status", "req"]),
    ("golang.org/x/net/http2.responseWriterState", &["status", "req"]),
];
const PROGRAM: &str =
    "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\"127.0.0.1:0\", nil) }\n";

/// Builds with the installed Go.
fn program() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let dir = target.join("gobin-lying-1.26.11");
    let out = dir.join("program");
    if !out.is_file() {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("main.go"), PROGRAM).unwrap();
        fs::write(dir.join("go.mod"), "module lying\n\ngo 1.17\n").unwrap();
        let output = Command::new("go")
            // The release whose patches move what is read.
            .env("GOTOOLCHAIN", "go1.26.11")
            .current_dir(&dir)
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", target.join("go/cache"))
            .args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o", "program", "."])
            .output()
            .unwrap_or_else(|e| panic!("this test needs the go command on PATH, and it cannot be run: {e}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    out
}

/// The file with its recorded version replaced by one that is as long or shorter.
fn lie(honest: &[u8], truth: &str, lie: &str) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    let find = |from: usize, needle: &[u8]| {
        from + honest[from..].windows(needle.len()).position(|w| w == needle).expect("it is there")
    };
    let marker = find(0, b"\xff Go buildinf:\x08");
    let at = if honest[marker + 15] & 2 == 2 { find(marker, truth.as_bytes()) } else { find(0, truth.as_bytes()) };
    let padded = format!("{lie:<width$}", width = truth.len());
    bytes[at..at + truth.len()].copy_from_slice(padded.as_bytes());
    bytes
}

#[test]
fn another_release_is_caught_and_nothing_is_planned() {
    let honest = fs::read(program()).unwrap();
    let truth = GoBinary::parse(&honest, &FUNCTIONS, &LAYOUTS).unwrap();
    let version = &truth.build_info.go_version;
    assert!(truth.contradictions.is_empty(), "{:?}", truth.contradictions);
    assert_eq!(truth.layouts().source(), LayoutsFrom::Table, "{:?}", truth.layouts_reason());
    assert!(truth.layouts().offset("net/http.response", "status").is_some());
    let older = (17..version.minor).rev();
    let newer = version.minor + 1..28;
    let mut told = 0;
    for minor in older.chain(newer) {
        let said = format!("go1.{minor}.1");
        if said.len() > version.raw.len() {
            continue;
        }
        let caught = GoBinary::parse(lie(&honest, &version.raw, &said), &FUNCTIONS, &LAYOUTS).unwrap();
        told += 1;
        assert_eq!(caught.build_info.go_version.minor, minor);
        assert!(!caught.contradictions.is_empty(), "{version} passed for {said}");
        assert_eq!(caught.layouts().source(), LayoutsFrom::None, "{said}");
        let reason = caught.layouts_reason().unwrap();
        assert!(reason.contains("is not to be trusted: it says go1."), "{reason}");
        for (ty, fields) in LAYOUTS {
            assert!(!caught.layouts().has(ty), "{said}: {ty}");
            assert!(fields.iter().all(|field| caught.layouts().offset(ty, field).is_none()), "{said}: {ty}");
        }
        if minor + 1 == version.minor || minor == version.minor + 1 {
            println!("{version} says it is {said}: {reason}");
        }
    }
    assert!(told >= 9, "{told} lies about {version}");
}

/// Within a minor release no function need come or go; Go 1.26.11 moved fields of `net/http.response` all the same. What
/// says in one place alone to be another patch release is given away by the other place; what says it everywhere, by the
/// code that uses what moved.
#[test]
fn another_patch_release_is_caught_where_it_matters() {
    let honest = fs::read(program()).unwrap();
    let truth = GoBinary::parse(&honest, &FUNCTIONS, &LAYOUTS).unwrap();
    let version = truth.build_info.go_version.raw.as_str();
    assert_eq!(version, "go1.26.11");
    let said = "go1.26.8 ";
    let caught = GoBinary::parse(lie(&honest, version, said), &FUNCTIONS, &LAYOUTS).unwrap();
    assert_eq!(caught.contradictions, ["it says go1.26.8 , but its runtime.buildVersion is go1.26.11"]);
    assert_eq!(caught.layouts().source(), LayoutsFrom::None);

    let mut everywhere = honest.clone();
    let places: Vec<_> = memchr::memmem::find_iter(&honest, version).collect();
    for at in &places {
        everywhere[*at..at + said.len()].copy_from_slice(said.as_bytes());
    }
    assert!(places.len() >= 2, "{places:?}");
    let caught = GoBinary::parse(everywhere, &FUNCTIONS, &LAYOUTS).unwrap();
    assert_eq!(caught.build_info.go_version.raw, said);
    assert!(caught.contradictions.is_empty(), "{:?}", caught.contradictions);
    assert_eq!(caught.layouts().source(), LayoutsFrom::None);
    let reason = caught.layouts_reason().unwrap();
    assert!(reason.starts_with("net/http.response.status is at"), "{reason}");
    println!("{version} says it is {said}: {reason}");
}
