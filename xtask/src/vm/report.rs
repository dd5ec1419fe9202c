//! What the machines answered, held against what is expected, and the table of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Arch;
use super::boot::Booted;
use super::kernel::Kernel;

/// What `xtask/go/guest` prints.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answer {
    kernel: String,
    preempts: String,
    #[serde(default)]
    error: String,
    trials: Vec<Trial>,
    /// Programs that make requests by `http.Client`, over HTTP/1.1 and over HTTP/2.
    #[serde(default)]
    clients: Vec<Calls>,
    /// The run with two services on one CPU, if the command line asked for it.
    crowded: Option<Trial>,
}

/// What came of a program that makes requests, see `xtask/go/guest/client.go`.
#[derive(Debug, Clone, Deserialize)]
struct Calls {
    #[serde(default)]
    error: String,
    made: u64,
    counted: u64,
    wrong: Vec<String>,
}

/// One run of the agent.
#[derive(Debug, Clone, Deserialize)]
struct Trial {
    capabilities: Vec<String>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    log: Vec<String>,
    #[serde(default)]
    attach_method: String,
    verified_instructions: BTreeMap<String, u64>,
    attached_probes: u64,
    disabled: Vec<String>,
    kernel_lacks: Vec<String>,
    sent: u64,
    counted: u64,
    off: u64,
    lost: u64,
    private_stacks: Option<PrivateStacks>,
    ready_seconds: f64,
    detach_seconds: f64,
}

/// What the machine code of the agent's programs says, see `xtask/go/guest/stacks.go`.
#[derive(Debug, Clone, Deserialize)]
struct PrivateStacks {
    given: bool,
    looked: u64,
}

/// One line of the table.
pub(super) struct Row {
    cells: Vec<String>,
    /// Facts that have no room in the table.
    notes: Vec<String>,
    /// What is not as it should be.
    pub(super) wrong: Vec<String>,
}

/// What a command line has that asks for the run with two services on one CPU.
const CROWDED: &str = "gopulse.crowded=";

const HEADS: [&str; 11] = [
    "kernel",
    "release",
    "preempts",
    "boots",
    "attach",
    "probes",
    "sent",
    "counted",
    "detach",
    "capabilities that were enough",
    "absent",
];

impl Row {
    /// A kernel that gave no answer.
    pub(super) fn broken(kernel: &Kernel, arch: Arch, why: &str) -> Self {
        let mut cells = vec![title(kernel, arch)];
        cells.resize(HEADS.len(), "-".to_owned());
        Self { cells, notes: Vec::new(), wrong: vec![why.to_owned()] }
    }

    /// A kernel's answer.
    pub(super) fn new(kernel: &Kernel, arch: Arch, booted: &Booted) -> Self {
        let answer = &booted.answer;
        let Some(last) = answer.trials.last() else {
            return Self::broken(kernel, arch, &format!("the agent did not run: {}", answer.error));
        };
        let mut wrong = Vec::new();
        let mut notes = vec![format!(
            "{:.0} s in all; measured {:.1} s after the agent's start; {}",
            booted.took.as_secs_f64(),
            last.ready_seconds,
            verified(&last.verified_instructions)
        )];
        let refused = answer.trials.iter().filter(|trial| !trial.error.is_empty());
        notes.extend(refused.map(|trial| format!("with {}: {}", trial.capabilities.join(", "), trial.error)));
        notes.extend(last.disabled.iter().map(|off| format!("off at /targets: {off}")));
        wrong.extend(booted.complaints.iter().map(|line| format!("the kernel said: {line}")));
        if !answer.error.is_empty() {
            wrong.push(answer.error.clone());
        }
        if last.error.is_empty() && last.capabilities != kernel.capabilities {
            wrong.push(format!("{} should have been enough", kernel.capabilities.join(", ")));
        }
        wrong.extend(last.failure());
        let preempts = kernel.preempts(arch);
        if !preempts.is_empty() && answer.preempts != preempts {
            wrong.push(format!("it preempts in the mode `{}`, not {preempts}", answer.preempts));
        }
        for (protocol, calls) in ["HTTP/1.1", "HTTP/2"].iter().zip(&answer.clients) {
            notes.push(format!(
                "requests made over {protocol}: {} by the program, {} counted",
                calls.made, calls.counted
            ));
            wrong.extend(calls.failure().map(|why| format!("requests made over {protocol}: {why}")));
        }
        if last.error.is_empty() && answer.clients.len() != 2 {
            wrong.push("the runs of programs that make requests are missing".to_owned());
        }
        if let Some(crowded) = &answer.crowded {
            notes.push(crowded.crowd());
            wrong.extend(crowded.failure());
        } else if kernel.command_line.contains(CROWDED) {
            wrong.push("the run with two services on one CPU is missing".to_owned());
        }
        if last.attach_method != kernel.method {
            wrong.push(format!("probes are attached by `{}`, not by {}", last.attach_method, kernel.method));
        }
        let absent: Vec<&str> = last.kernel_lacks.iter().filter_map(|lack| lack.split(" (").next()).collect();
        notes.extend(last.kernel_lacks.iter().map(|lack| format!("absent at /targets: {lack}")));
        if absent.len() != kernel.absent {
            wrong.push(format!("/targets says that {} things are absent, not {}", absent.len(), kernel.absent));
        }
        let enough = if last.error.is_empty() { last.capabilities.join(", ") } else { "none".to_owned() };
        let cells = vec![
            title(kernel, arch),
            answer.kernel.clone(),
            if answer.preempts.is_empty() { "not told".to_owned() } else { answer.preempts.clone() },
            booted.tries.to_string(),
            last.attach_method.clone(),
            last.attached_probes.to_string(),
            last.sent.to_string(),
            last.counted.to_string(),
            format!("{:.2} s", last.detach_seconds),
            enough,
            if absent.is_empty() { "nothing".to_owned() } else { absent.join(", ") },
        ];
        Self { cells, notes, wrong }
    }
}

impl Calls {
    /// What went wrong with them.
    fn failure(&self) -> impl Iterator<Item = String> {
        let none = (self.error.is_empty() && self.made == 0).then(|| "none were made".to_owned());
        let error = (!self.error.is_empty()).then(|| self.error.clone());
        error.into_iter().chain(none).chain(self.wrong.clone())
    }
}

impl Trial {
    /// What went wrong in it, with the end of the agent's log.
    fn failure(&self) -> Vec<String> {
        if self.error.is_empty() {
            return Vec::new();
        }
        let log = self.log.iter().map(|line| format!("  {line}"));
        std::iter::once(self.error.clone()).chain(log).collect()
    }

    /// What it says, where two services shared a CPU.
    fn crowd(&self) -> String {
        let stacks = self.private_stacks.as_ref().map_or_else(String::new, |it| {
            let gives = if it.given { "gives" } else { "does not give" };
            format!("; the kernel {gives} programs private stacks, {} of the agent's were looked at", it.looked)
        });
        format!(
            "two services on one CPU: {} requests sent, {} counted, off by {}, {} lost{stacks}",
            self.sent, self.counted, self.off, self.lost
        )
    }
}

fn title(kernel: &Kernel, arch: Arch) -> String {
    format!("{} {}", kernel.name, arch.name())
}

fn verified(instructions: &BTreeMap<String, u64>) -> String {
    if instructions.is_empty() {
        return "this kernel does not tell how many instructions it verified".to_owned();
    }
    let each = instructions.iter().map(|(program, count)| format!("{program} {count}"));
    format!("instructions verified: {}", each.collect::<Vec<_>>().join(", "))
}

/// Prints the table, and below it what has no room there.
pub(super) fn print(rows: &[Row]) {
    let heads = HEADS.map(str::to_owned).to_vec();
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(rows.iter().map(|row| &row.cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    println!();
    for (number, cells) in lines.iter().enumerate() {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", padded.join(" | "));
        if number == 0 {
            println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        }
    }
    for row in rows {
        println!("\n{}:", row.cells[0]);
        row.notes.iter().for_each(|note| println!("  {note}"));
        row.wrong.iter().for_each(|wrong| println!("  WRONG: {wrong}"));
    }
}
