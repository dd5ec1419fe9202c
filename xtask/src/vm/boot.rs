//! Runs a virtual machine and listens to its serial line.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Arch;
use super::report::Answer;
use crate::util;

/// What `xtask/go/guest` prints when it is up, and before its result.
const BOOTED: &str = "GOPULSE-VM-BOOTED ";
const RESULT: &str = "GOPULSE-VM-RESULT ";
/// Boots that may die before they get to the marker.
const TRIES: u32 = 5;
const TO_MARKER: Duration = Duration::from_mins(2);
/// From the marker to the result: up to four runs of the agent on an emulated processor.
const TO_RESULT: Duration = Duration::from_mins(10);

/// A machine that came up and gave its answer.
pub(super) struct Booted {
    /// How many boots it took.
    pub(super) tries: u32,
    /// From the start of the machine that came up to its answer.
    pub(super) took: Duration,
    /// What it said.
    pub(super) answer: Answer,
}

/// How one boot ended.
enum Outcome {
    Answer(Box<Answer>),
    /// It died, or hung, before the marker.
    NoMarker(String),
}

/// Boots until the marker is seen, and waits for the answer.
pub(super) fn run(name: &str, arch: Arch, kernel: &Path, initramfs: &Path, console: &Path) -> Result<Booted> {
    let mut last = String::new();
    for tries in 1..=TRIES {
        util::say(&format!("booting {name} on {}, try {tries}", arch.name()));
        let started = Instant::now();
        match Machine::start(arch, kernel, initramfs)?.answer(console)? {
            Outcome::Answer(answer) => return Ok(Booted { tries, took: started.elapsed(), answer: *answer }),
            Outcome::NoMarker(why) => {
                util::say(&format!("the boot of {name} {why} before its marker; trying again"));
                last = why;
            }
        }
    }
    bail!("{TRIES} boots of {name} and none got to its marker; the last one {last}: see {}", console.display())
}

/// A running qemu; it is killed when this is dropped.
struct Machine {
    child: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn start(arch: Arch, kernel: &Path, initramfs: &Path) -> Result<Self> {
        // Emulation by all means: where /dev/kvm is there, it may not work. Without cmpxchg16b, which this qemu gets wrong at
        // times: Debian's 6.12 dies of it in its allocator. `pauth-impdef` is the quick way to emulate what is on by default.
        let (program, machine, console): (_, &[&str], _) = match arch {
            Arch::Amd64 => ("qemu-system-x86_64", &["-cpu", "max,-cx16"], "ttyS0"),
            Arch::Arm64 => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max,pauth-impdef=on"], "ttyAMA0"),
        };
        let mut command = Command::new(program);
        command.args(["-accel", "tcg", "-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot", "-display", "none"]);
        command.args(["-serial", "stdio"]).args(machine).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        command.arg("-append").arg(format!("console={console} panic=-1 tsc=unstable quiet"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = child.with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || read(stdout, &sender));
        Ok(Self { child, lines })
    }

    /// Waits for the answer; all that was on the serial line goes into a file.
    fn answer(mut self, console: &Path) -> Result<Outcome> {
        let mut said = String::new();
        let mut booted = false;
        let mut deadline = Instant::now() + TO_MARKER;
        let outcome = loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    said.push_str(&line);
                    if line.contains(BOOTED) {
                        (booted, deadline) = (true, Instant::now() + TO_RESULT);
                    }
                    if let Some((_, result)) = line.split_once(RESULT) {
                        break serde_json::from_str(result.trim())
                            .map(|answer| Outcome::Answer(Box::new(answer)))
                            .with_context(|| format!("cannot read the answer: see {}", console.display()));
                    }
                }
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "hung" } else { "died" };
                    break if booted {
                        Err(anyhow::anyhow!("the machine {why} after its marker: see {}", console.display()))
                    } else {
                        Ok(Outcome::NoMarker(why.to_owned()))
                    };
                }
            }
        };
        let _ = self.child.kill();
        fs::write(console, said).with_context(|| format!("cannot write {}", console.display()))?;
        outcome
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stdout: ChildStdout, to: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}
