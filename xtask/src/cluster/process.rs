//! The programs of a cluster as child processes: each logs to a file of its own, and none outlives this process, however
//! that ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::service;

/// A program that runs; it is asked to end when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to `NAME.log` in that directory, after what an earlier run of it wrote there.
    pub fn start(name: &str, directory: &Path, command: &Command) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut dying = Command::new("setpriv");
        dying.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => dying.env(key, value),
                None => dying.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            dying.current_dir(directory);
        }
        dying.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(dying).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        bail!("{} ended ({status}): {}", self.name, self.last_words(8))
    }

    /// The last lines of its log.
    pub fn last_words(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut last: Vec<&str> = text.lines().rev().take(lines).collect();
        last.reverse();
        last.join("\n")
    }

    /// Asks it to end, and kills it if it takes over 5 seconds.
    pub fn stop(&mut self) -> Result<()> {
        service::end(&mut self.child).with_context(|| format!("cannot end {}", self.name))
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Asks every tenth of a second until there is an answer, or the time is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts a process from a thread that lasts: the kernel sends the parent-death signal when the thread that forked ends, and
/// a test's thread ends before what tests share does.
fn spawn(command: Command) -> Result<Child> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = channel();
    orders.send((command, answer)).context("the thread that starts processes has ended")?;
    Ok(child.recv().context("the thread that starts processes has ended")??)
}
