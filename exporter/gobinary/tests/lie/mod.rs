//! A stripped server, and how it is made to name another Go release than the one that built it.

use std::fs;

use xtask::go::{self, Program, Toolchain};

pub(crate) const FUNCTIONS: [&str; 2] = ["net/http.serverHandler.ServeHTTP", "net/http.(*response).finishRequest"];
/// Those of `exporter/instruments`.
pub(crate) const LAYOUTS: [(&str, &[&str]); 8] = [
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

/// The server, stripped.
pub(crate) fn program(toolchain: &Toolchain) -> Vec<u8> {
    let program =
        Program { name: "lying", variant: "strip", source: PROGRAM, arguments: &["-ldflags=-s -w"], environment: &[] };
    fs::read(go::build_program(toolchain, &program).unwrap_or_else(|error| panic!("{error:#}"))).unwrap()
}

/// The file with its recorded version replaced by one that is as long or shorter.
pub(crate) fn lie(honest: &[u8], truth: &str, lie: &str) -> Vec<u8> {
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
