//! `bench limits`: probe hits a request and verified instructions a program, against `xtask/limits.json`. Counts, not times: the
//! same on every machine with the same kernel, so that CI can hold them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use exporter_ebpf::{feature::Feature, probe::Probe};
use serde::{Deserialize, Serialize};

use super::fixture::Tools;
use super::programs::{self, Protocol, Row};
use crate::util;

const FILE: &str = "xtask/limits.json";

/// Options of `bench limits`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Write what was measured as the new limits, instructions with a tenth to spare
    #[arg(long)]
    write: bool,
    /// An agent that was built before, to be measured instead of this checkout's
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
}

/// The limits.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Limits {
    /// Hits a request of all programs together.
    hits_per_request: BTreeMap<String, f64>,
    /// Instructions that the verifier walks through, by program.
    verified_instructions: BTreeMap<String, u32>,
}

/// Measures, and fails where a limit is passed.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<()> {
    let mut measured = Limits::default();
    for (name, protocol) in [("http1", Protocol::Http1), ("http2", Protocol::Http2)] {
        let rows = programs::account(tools, "hello", &[], protocol)?;
        let table = programs::table(name, &rows);
        for row in [vec![table.columns.iter().map(ToString::to_string).collect()], table.rows].concat() {
            println!(
                "{name:<6} {}",
                row.iter().map(|cell| format!("{cell:<16}")).collect::<Vec<_>>().join(" ").trim_end()
            );
        }
        measured.hits_per_request.insert(name.to_owned(), hits(&rows));
        measured.verified_instructions.extend(rows.into_iter().map(|row| (row.name, row.verified)));
    }
    let file = util::root().join(FILE);
    if options.write {
        for verified in measured.verified_instructions.values_mut() {
            *verified += *verified / 10 + 10;
        }
        return util::write_if_changed(&file, (serde_json::to_string_pretty(&measured)? + "\n").as_bytes());
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {FILE}"))?;
    let limits: Limits = serde_json::from_str(&text).with_context(|| format!("{FILE} is not as expected"))?;
    let passed = passed(&measured, &limits);
    if !passed.is_empty() {
        bail!("{} (a wanted change is taken over by `cargo xtask bench limits --write`)", passed.join("; "));
    }
    println!("within {FILE}");
    Ok(())
}

/// Hits of the probes on requests, rounded to hundredths: connections' beginnings and ends fall between measurements. The
/// tracepoints are left out, which fire for whatever else the machine does meanwhile, and the probes on the runtime, which are
/// hit as its scheduler and its garbage collector happen to work, and have a budget.
fn hits(rows: &[Row]) -> f64 {
    let of_requests = |row: &&Row| Probe::of_kernel_name(&row.name).is_some_and(|it| it.feature() == Feature::Http);
    (rows.iter().filter(of_requests).map(|row| row.hits).sum::<f64>() * 100.0).round() / 100.0
}

fn passed(measured: &Limits, limits: &Limits) -> Vec<String> {
    let hits = measured.hits_per_request.iter().filter_map(|(name, hits)| match limits.hits_per_request.get(name) {
        Some(limit) if hits <= limit => None,
        limit => Some(format!("{name}: {hits} hits a request, {}", allowed(limit))),
    });
    let verified = measured.verified_instructions.iter();
    let verified = verified.filter_map(|(name, count)| match limits.verified_instructions.get(name) {
        Some(limit) if count <= limit => None,
        limit => Some(format!("{name}: {count} verified instructions, {}", allowed(limit))),
    });
    hits.chain(verified).collect()
}

fn allowed(limit: Option<&impl std::fmt::Display>) -> String {
    limit.map_or_else(|| "and no limit is set".to_owned(), |limit| format!("{limit} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(hits: f64, verified: u32) -> Limits {
        Limits {
            hits_per_request: [("http1".to_owned(), hits)].into(),
            verified_instructions: [("http_start".to_owned(), verified)].into(),
        }
    }

    #[test]
    fn more_than_allowed_and_unknown_ones_fail() {
        assert!(passed(&limits(2.0, 100), &limits(2.0, 100)).is_empty());
        assert_eq!(passed(&limits(2.01, 100), &limits(2.0, 100)), ["http1: 2.01 hits a request, 2 are allowed"]);
        assert_eq!(passed(&limits(2.0, 101), &limits(2.0, 100)).len(), 1);
        assert_eq!(passed(&limits(2.0, 100), &Limits::default()).len(), 2);
    }
}
