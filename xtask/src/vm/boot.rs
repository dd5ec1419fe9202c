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
use super::kernel::Kernel;
use super::report::Answer;
use crate::util;

/// What `xtask/go/guest` prints when it is up, and before its result.
const BOOTED: &str = "GOPULSE-VM-BOOTED ";
const RESULT: &str = "GOPULSE-VM-RESULT ";
/// Boots that may die before they get to the marker.
const TRIES: u32 = 5;
const TO_MARKER: Duration = Duration::from_mins(2);
/// From the marker to the result: up to five runs of the agent on an emulated processor.
const TO_RESULT: Duration = Duration::from_mins(15);
/// How the kernel tells that something is wrong with itself.
const COMPLAINTS: [&str; 5] = ["BUG:", "Oops", "WARNING:", "general protection fault", "Kernel panic"];

/// A machine that came up and gave its answer.
pub(super) struct Booted {
    /// How many boots it took.
    pub(super) tries: u32,
    /// From the start of the machine that came up to its answer.
    pub(super) took: Duration,
    /// What it said.
    pub(super) answer: Answer,
    /// What its kernel complained of.
    pub(super) complaints: Vec<String>,
}

/// How one boot ended.
enum Outcome {
    Answer(Box<Answer>, Vec<String>),
    /// It died, or hung, before the marker.
    NoMarker(String),
}

/// Boots until the marker is seen, and waits for the answer. `image` is the kernel's, and `append` more
/// words for its command line.
pub(super) fn run(
    kernel: &Kernel,
    arch: Arch,
    image: &Path,
    initramfs: &Path,
    append: &str,
    console: &Path,
) -> Result<Booted> {
    let (name, mut last) = (kernel.name, String::new());
    let command_line = format!("{} {append}", kernel.command_line);
    for tries in 1..=TRIES {
        util::say(&format!("booting {name} on {}, try {tries}", arch.name()));
        let started = Instant::now();
        match Machine::start(arch, image, initramfs, &command_line)?.answer(console)? {
            Outcome::Answer(answer, complaints) => {
                return Ok(Booted { tries, took: started.elapsed(), answer: *answer, complaints });
            }
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
    fn start(arch: Arch, kernel: &Path, initramfs: &Path, command_line: &str) -> Result<Self> {
        // Emulation by all means: where /dev/kvm is there, it may not work. Without cmpxchg16b, which this qemu gets wrong at
        // times: Debian's 6.12 dies of it in its allocator. `pauth-impdef` is the quick way to emulate what is on by default.
        let (program, machine, console): (_, &[&str], _) = match arch {
            Arch::Amd64 => ("qemu-system-x86_64", &["-cpu", "max,-cx16"], "ttyS0"),
            Arch::Arm64 => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max,pauth-impdef=on"], "ttyAMA0"),
        };
        let mut command = Command::new(program);
        command.args(["-accel", "tcg", "-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot", "-display", "none"]);
        command.args(["-serial", "stdio"]).args(machine).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        // Warnings are to be seen. An emulated processor can stand still for longer than the watchdogs allow.
        let usual = format!("console={console} panic=-1 tsc=unstable loglevel=5 nowatchdog");
        command.arg("-append").arg(format!("{usual} {command_line}"));
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
                        break answer(result)
                            .map(|answer| Outcome::Answer(Box::new(answer), complaints(&said)))
                            .with_context(|| format!("cannot read the answer: see {}", console.display()));
                    }
                }
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "hung" } else { "died" };
                    break if booted {
                        let complaints = complaints(&said).join("; ");
                        Err(anyhow::anyhow!(
                            "the machine {why} after its marker: see {}; {complaints}",
                            console.display()
                        ))
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

/// The answer at the beginning of a line, behind which the kernel may have said more.
fn answer(line: &str) -> Result<Answer> {
    let mut answers = serde_json::Deserializer::from_str(line).into_iter();
    Ok(answers.next().context("there is none")??)
}

/// The lines in which the kernel says that something is wrong with itself.
fn complaints(console: &str) -> Vec<String> {
    let wrong = |line: &&str| !line.contains(RESULT) && COMPLAINTS.iter().any(|words| line.contains(words));
    console.lines().filter(wrong).map(|line| line.trim().to_owned()).collect()
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

#[cfg(test)]
mod tests {
    use super::{answer, complaints};

    #[test]
    fn what_the_kernel_says_behind_the_answer_is_left_alone() {
        let line = "{\"kernel\":\"7.2\",\"preempts\":\"full\",\"trials\":[]}[   76.9] reboot: Power down";
        assert!(answer(line).is_ok());
        assert!(answer("[   76.9] reboot: Power down").is_err());
        assert!(answer("").is_err());
    }

    #[test]
    fn complaints_are_found_on_the_console() {
        let console = "[    0.1] Linux version 7.2\r\n\
            [   33.0] BUG: unable to handle page fault for address: 00001b71b6d681c0\r\n\
            [   33.1] Oops: 0002 [#1] SMP NOPTI\r\n\
            [   33.2] Modules linked in:\r\n\
            [   40.0] WARNING: CPU: 0 PID: 1 at kernel/fork.c:1 f+0x1/0x2\r\n\
            GOPULSE-VM-RESULT {\"error\":\"not a BUG: of the kernel\"}\r\n";
        let found = complaints(console);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].ends_with("00001b71b6d681c0"));
        assert!(complaints("[    0.0] DEBUG enabled\n").is_empty());
    }
}
