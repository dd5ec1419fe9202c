//! The wall around instruments: outside of its own files and the lists that have a line of it, nothing names one. Whatever does would have
//! to be found and changed for the next.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::util;

/// Instruments that the rest knows: budget, stops of the world and the run queue have state of their own, and a request can be settled in
/// user space (docs/src/how/instruments.md).
const KNOWN: [&str; 4] = ["http_server", "blocking", "stw", "run_queue"];
/// Files with a line for each instrument.
const LISTS: [&str; 10] = [
    "exporter-ebpf/src/facts.rs",
    "exporter-ebpf/src/feature.rs",
    "exporter-ebpf/src/key.rs",
    "exporter-ebpf/src/lib.rs",
    "exporter-ebpf/src/probe.rs",
    "exporter-ebpf/src/span.rs",
    "exporter-ebpf/src/kernel/maps.rs",
    "exporter-ebpf/src/kernel/mod.rs",
    "exporter-ebpf/src/kernel/series.rs",
    "exporter/instruments/src/lib.rs",
];

/// Fails where an instrument is named outside of its places.
pub fn check() -> Result<()> {
    util::section("walls around instruments");
    let root = util::root();
    let folder = root.join("exporter/instruments/src");
    let mut sources = Vec::new();
    for directory in ["exporter/src", "exporter/instruments/src", "exporter-ebpf/src"] {
        collect(&root.join(directory), &mut sources)?;
    }
    let mut instruments = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !KNOWN.contains(&name.as_str()) {
            instruments.push(name);
        }
    }
    let mut found = Vec::new();
    for file in &sources {
        let path = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        found.extend(
            instruments
                .iter()
                .filter(|name| !is_place(&path, name) && names(&text, name))
                .map(|name| format!("{path} names {name}")),
        );
    }
    if !found.is_empty() {
        bail!("an instrument is named outside of its places: {}", found.join("; "));
    }
    println!("{} files name none of {}", sources.len(), instruments.join(", "));
    Ok(())
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn is_place(path: &str, name: &str) -> bool {
    let own = [
        format!("exporter-ebpf/src/{name}.rs"),
        format!("exporter-ebpf/src/kernel/{name}.rs"),
        format!("exporter/instruments/src/{name}/"),
    ];
    LISTS.contains(&path) || own.iter().any(|own| path.starts_with(own.as_str()))
}

/// Whether a text has the name, in any of the ways in which Rust spells one.
fn names(text: &str, name: &str) -> bool {
    let mut camel = String::new();
    for word in name.split('_') {
        camel.push_str(&word[..1].to_uppercase());
        camel.push_str(&word[1..]);
    }
    text.contains(name) || text.contains(&camel) || text.contains(&name.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instrument_is_named_in_its_places_alone() {
        assert!(names("let it = Feature::HttpClient;", "http_client") && names("HTTP_CLIENT", "http_client"));
        assert!(!names("http_server", "http_client"));
        assert!(is_place("exporter/instruments/src/http_client/text.rs", "http_client"));
        assert!(is_place("exporter-ebpf/src/kernel/http_client.rs", "http_client"));
        assert!(!is_place("exporter/src/agent/collect.rs", "http_client"));
        assert!(!is_place("exporter/instruments/src/http_server/mod.rs", "http_client"));
    }
}
