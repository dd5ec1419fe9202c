//! One section of a run: commands whose output is shown and counted. A section in the foreground shows each line as it comes; one
//! beside it shows all of them at its end, so that the two do not mix.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _, pipe};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::tally::{Row, Tally};
use crate::util;

/// Held while a section beside the foreground prints what it has kept.
static TERMINAL: Mutex<()> = Mutex::new(());

/// How the outcome of a section's commands is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Each prints what it ran, as Rust's test runner does.
    Tests,
    /// Each is one check, by its exit code.
    Check,
    /// It is work that the others need: an error counts as a failure, success as nothing.
    Preparation,
}

/// What is run under one name.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) counts: Counts,
    pub(super) commands: Vec<Command>,
}

impl Section {
    /// Runs every command, also after one that failed.
    pub(super) fn run(self, beside: bool) -> Row {
        let start = Instant::now();
        let mut screen = Screen { kept: beside.then(String::new) };
        if !beside {
            util::section(&self.name);
        }
        let tally = screen.show_all(self.commands, self.counts);
        if let Some(kept) = screen.kept {
            let _terminal = TERMINAL.lock();
            util::section(&format!("{}, beside the others for {} s", self.name, start.elapsed().as_secs()));
            print!("{kept}");
        }
        Row { name: self.name, seconds: start.elapsed(), tally, beside }
    }
}

/// Where output goes.
struct Screen {
    /// None shows it at once.
    kept: Option<String>,
}

impl Screen {
    fn line(&mut self, line: &str) {
        if let Some(kept) = &mut self.kept {
            let _ = writeln!(kept, "{line}");
        } else {
            let _terminal = TERMINAL.lock();
            println!("{line}");
            let _ = std::io::stdout().flush();
        }
    }

    fn show_all(&mut self, commands: Vec<Command>, counts: Counts) -> Tally {
        let mut tally = Tally::default();
        for mut command in commands {
            tally.add(self.show(&mut command, counts));
        }
        tally
    }

    fn show(&mut self, command: &mut Command, counts: Counts) -> Tally {
        self.line(&format!("xtask: {}", util::display(command)));
        let mut tally = Tally::default();
        let passed = match self.follow(command, &mut tally) {
            Ok(passed) => passed,
            Err(error) => {
                self.line(&format!("{error:#}"));
                false
            }
        };
        match counts {
            Counts::Check => Tally::of_check(passed),
            // A runner that died before it counted has failed at least once.
            Counts::Tests if !passed && tally.failed == 0 => Tally { failed: 1, ..tally },
            Counts::Tests => tally,
            Counts::Preparation => Tally { failed: u32::from(!passed), ..Tally::default() },
        }
    }

    /// Runs a command to its end, standard output and error in one stream; whether it succeeded.
    fn follow(&mut self, command: &mut Command, tally: &mut Tally) -> Result<bool> {
        let (reader, writer) = pipe().context("no pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().context("no pipe")?).stderr(writer);
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", util::display(command)))?;
        // The command keeps the pipe's end that is written to, and the last of them closes it.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    tally.read(&line);
                    self.line(&line);
                }
                // What a test left running may hold the pipe open for ever.
                Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait()?;
        if !status.success() {
            self.line(&format!("`{}` failed: {status}", util::display(command)));
        }
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Counts, Screen};
    use crate::test::tally::Tally;

    const ONE: &str = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";

    fn tally(counts: Counts, scripts: &[&str]) -> Tally {
        let shell = |script: &&str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        // Kept and not printed: who runs these tests counts what they print.
        Screen { kept: Some(String::new()) }.show_all(scripts.iter().map(shell).collect(), counts)
    }

    #[test]
    fn every_command_runs_and_a_runner_that_dies_has_failed() {
        let died = format!("{ONE}; kill -9 $$");
        let wanted = Tally { passed: 2, failed: 1, ..Tally::default() };
        assert_eq!(tally(Counts::Tests, &[&died, ONE]), wanted);
        let unknown = "no-such-command-anywhere";
        assert_eq!(tally(Counts::Tests, &[unknown]), Tally { failed: 1, ..Tally::default() });
    }

    #[test]
    fn checks_count_by_their_exit_code_and_preparations_only_when_they_fail() {
        assert_eq!(tally(Counts::Check, &["true", "false", ONE]), Tally { passed: 2, failed: 1, ..Tally::default() });
        assert_eq!(tally(Counts::Preparation, &["true", ONE]), Tally::default());
        assert_eq!(tally(Counts::Preparation, &["false"]), Tally { failed: 1, ..Tally::default() });
    }

    /// It would wait for ten minutes.
    #[test]
    fn what_a_command_leaves_running_is_not_waited_for() {
        let script = format!("sleep 600 & echo $! >&2; {ONE}");
        assert_eq!(tally(Counts::Tests, &[&script]).passed, 1);
        // What it left is this test's to end.
        let _ = Command::new("pkill").args(["-f", "^sleep 600$"]).status();
    }
}
