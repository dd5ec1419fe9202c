//! What every benchmark sets up: the programs, a service under a name of its own, and an agent that measures it. All ends
//! when it is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{proc, programs};
use crate::go::{self, Service, Variant};
use crate::service::{self, LoadReport, Running};
use crate::{build, setup, util};

/// How long the agent has to measure what it should.
const START: Duration = Duration::from_mins(1);
/// After a detach, before the next measurement.
const SETTLE: Duration = Duration::from_millis(150);

/// What is run.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) agent: PathBuf,
    pub(super) load: PathBuf,
    /// The services.
    pub(super) bench: PathBuf,
    /// The same, without symbols.
    pub(super) stripped: PathBuf,
    directory: PathBuf,
}

impl Tools {
    /// Builds it all, the agent only if none is given and that has not been done.
    pub(super) fn build(given: Option<&Path>, built: bool) -> Result<Self> {
        let agent = if let Some(given) = given {
            given.to_owned()
        } else if built {
            build::agent()
        } else {
            setup::run()?;
            build::run()?
        };
        let stripped = Service { variant: Variant::Strip, ..Service::local("bench") };
        let directory = util::target().join("bench/bin");
        fs::create_dir_all(&directory)?;
        Ok(Self {
            agent,
            load: go::build(&Service::local("load"))?,
            bench: go::build(&Service::local("bench"))?,
            stripped: go::build(&stripped)?,
            directory,
        })
    }

    /// The same with another build of the agent.
    pub(super) fn with_agent(&self, agent: &Path) -> Self {
        Self { agent: agent.to_owned(), ..self.clone() }
    }

    /// A copy of a program under a name that no other agent on the machine selects.
    pub(super) fn copy(&self, program: &Path, label: &str) -> Result<Copied> {
        let path = self.directory.join(format!("gpbench-{}-{label}", std::process::id()));
        fs::copy(program, &path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Copied(path))
    }

    /// Sends requests, `arguments` saying how many and how.
    pub(super) fn load(&self, address: SocketAddr, arguments: &[&str]) -> Result<LoadReport> {
        let address = address.to_string();
        let report = service::load(&self.load, &[&["-address", &address], arguments].concat())?;
        if report.errors > 0 {
            bail!("{} of {} requests failed: {}", report.errors, report.total, report.error_samples.join("; "));
        }
        Ok(report)
    }
}

/// A file that is removed with this.
pub(super) struct Copied(PathBuf);

impl Copied {
    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Marks it as immutable: the agent shares probes between processes of a file that keeps its content.
    pub(super) fn seal(&self) -> Result<()> {
        self.chattr("+i")
    }

    fn chattr(&self, change: &str) -> Result<()> {
        util::run(Command::new("chattr").arg(change).arg(&self.0))
    }

    /// Its file name.
    pub(super) fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Starts it as one of the services, with its plain HTTP port alone.
    pub(super) fn start(&self, kind: &str) -> Result<Running> {
        Running::start(&self.0, &["-kind", kind, "-https", "-", "-h2c", "-", "-admin", "-"])
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if fs::remove_file(&self.0).is_err() && self.chattr("-i").is_ok() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// A gopulse that runs.
pub(super) struct Agent {
    child: Child,
    /// Where it serves.
    pub(super) address: SocketAddr,
}

#[derive(Deserialize)]
struct Target {
    state: String,
    probes: Vec<Probe>,
}

#[derive(Deserialize)]
struct Probe {
    attached: bool,
}

impl Agent {
    /// Starts it.
    pub(super) fn start(tools: &Tools, arguments: &[&str]) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::options().create(true).append(true).open(tools.directory.with_file_name("agent.log"))?;
        let mut command = Command::new(&tools.agent);
        command.arg("run").arg("--metrics-address").arg(address.to_string()).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Ok(Self { child: child.context("cannot start gopulse")?, address })
    }

    /// Starts it and waits until it measures that many targets.
    pub(super) fn measuring(tools: &Tools, arguments: &[&str], targets: usize) -> Result<Self> {
        let mut agent = Self::start(tools, arguments)?;
        agent.wait(targets)?;
        Ok(agent)
    }

    /// Waits until it measures that many targets, looking every 10 ms.
    pub(super) fn wait(&mut self, targets: usize) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("gopulse ended at once ({status}): target/bench/agent.log says why");
            }
            let measured = self.targets().ok().map(|(measured, _)| measured);
            if measured.is_some_and(|measured| measured >= targets) {
                return Ok(());
            }
            if start.elapsed() > START {
                let measured = measured.unwrap_or(0);
                bail!("gopulse measures {measured} targets of {targets} after {} s", START.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Targets that are measured, and sites attached in all of them.
    pub(super) fn targets(&self) -> Result<(usize, usize)> {
        let targets: Vec<Target> = serde_json::from_str(&service::get(self.address, "/targets")?)?;
        let measured = targets.iter().filter(|target| target.state == "measured");
        let sites = targets.iter().flat_map(|target| &target.probes).filter(|probe| probe.attached);
        Ok((measured.count(), sites.count()))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its programs with their hits so far.
    pub(super) fn programs(&self) -> Result<Vec<programs::Program>> {
        programs::of(self.pid())
    }

    /// Ends it by SIGTERM and says how long that took, to the millisecond.
    pub(super) fn stop(&mut self) -> Result<Duration> {
        let start = Instant::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), nix::sys::signal::SIGTERM)?;
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > START {
                bail!("gopulse does not end");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = service::end(&mut self.child);
        thread::sleep(SETTLE);
    }
}

/// Another agent's probes on what is measured would be counted as the service's own cost.
pub(super) fn warn_of_others() {
    let others = proc::named("gopulse");
    if !others.is_empty() {
        util::say(&format!(
            "another gopulse runs (process {}): if it measures every process, figures hold its cost",
            others[0]
        ));
    }
}
