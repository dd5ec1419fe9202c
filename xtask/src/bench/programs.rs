//! Hits, time and size of the agent's eBPF programs, by the kernel's own accounting. Counting costs time at each hit, so it
//! is on only in runs whose time is not measured.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use exporter_ebpf::probe::Probe;

use super::fixture::{Agent, Copied, Tools};
use super::report::{Table, number};
use super::{proc, program_info};

/// Turns `bpf_stats` on (Documentation/admin-guide/sysctl/kernel.rst).
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Its name in the source, without the flavour.
    pub(super) name: String,
    /// Runs while the accounting was on.
    pub(super) hits: u64,
    /// Nanoseconds in them.
    pub(super) ns: u64,
    /// Instructions that the verifier walked through, all ways.
    pub(super) verified: u32,
}

/// A program under load.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The program.
    pub(super) name: String,
    /// Hits a request.
    pub(super) hits: f64,
    /// Nanoseconds a hit, the accounting's own cost included.
    pub(super) ns: f64,
    /// As in [`Program`].
    pub(super) verified: u32,
}

/// The programs that a process has open.
pub(super) fn of(pid: u32) -> Result<Vec<Program>> {
    let mut programs = BTreeMap::new();
    for text in proc::program_fdinfo(pid)? {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        // More than one descriptor may be of one program.
        let id = field("prog_id") as u32;
        let name = plain(&program_info::name(id)?);
        let (hits, ns, verified) = (field("run_cnt"), field("run_time_ns"), field("verified_insns") as u32);
        programs.insert(name.clone(), Program { name, hits, ns, verified });
    }
    Ok(programs.into_values().collect())
}

/// A program's name in the source, without the flavour, by what the kernel keeps of it.
fn plain(name: &str) -> String {
    Probe::of_kernel_name(name).map_or_else(|| name.to_owned(), |it| it.program().to_owned())
}

/// Turns accounting on until it is dropped.
pub(super) struct Accounting {
    before: String,
}

impl Accounting {
    /// Turns it on.
    pub(super) fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.before.trim());
    }
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
}

/// Serves requests with accounting on, and says what each program did.
pub(super) fn account(tools: &Tools, kind: &str, mix: &[&str], protocol: Protocol) -> Result<Vec<Row>> {
    const REQUESTS: u64 = 20_000;
    let copied: Copied = tools.copy(&tools.bench, "accounting")?;
    let service = crate::service::Running::start(copied.path(), &["-kind", kind, "-https", "-", "-admin", "-"])?;
    let agent = Agent::measuring(tools, &["--executable", &copied.name(), "--load-all"], 1)?;
    let (mode, address) = match protocol {
        Protocol::Http1 => ("h1", service.address("http")?),
        Protocol::Http2 => ("h2c", service.address("h2c")?),
    };
    let requests = REQUESTS.to_string();
    let arguments = [&["-mode", mode, "-n", &requests, "-c", "16"][..], mix].concat();
    let _accounting = Accounting::on()?;
    let before: BTreeMap<String, Program> = agent.programs()?.into_iter().map(|it| (it.name.clone(), it)).collect();
    tools.load(address, &arguments)?;
    let rows = agent.programs()?.into_iter().map(|after| {
        let (hits, ns) = before.get(&after.name).map_or((0, 0), |it| (it.hits, it.ns));
        let (hits, ns) = (after.hits - hits, after.ns - ns);
        Row {
            name: after.name,
            hits: hits as f64 / REQUESTS as f64,
            ns: if hits == 0 { 0.0 } else { ns as f64 / hits as f64 },
            verified: after.verified,
        }
    });
    Ok(rows.collect())
}

/// Rows as a table.
pub(super) fn table(title: impl Into<String>, rows: &[Row]) -> Table {
    let row = |it: &Row| {
        let ns = if it.hits > 0.0 { number(it.ns) } else { String::new() };
        vec![it.name.clone(), format!("{:.3}", it.hits), ns, it.verified.to_string()]
    };
    Table {
        title: title.into(),
        columns: ["program", "hits/request", "ns/hit", "verified instructions"].map(Into::into).to_vec(),
        rows: rows.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn names_without_what_is_left_of_the_flavour() {
        assert_eq!(
            ["http_mux_multi", "http_hijack_mul", "stw_stop_bare_m", "http_mux", "sched_switch"].map(plain),
            ["http_mux", "http_hijack", "stw_stop_bare", "http_mux", "sched_switch"]
        );
    }
}
