//! The executables of all tests and the agent that the end-to-end tests run: built by one command, of one graph.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::AGENT;
use crate::{build, util};

/// How long tests take whose length can be chosen, where every long form is asked for.
const LONG: [(&str, &str); 2] = [("GOPULSE_CHURN_SECONDS", "300"), ("GOPULSE_OUTAGE_SECONDS", "60")];

/// An executable of tests.
#[derive(Debug, Clone)]
pub(super) struct Test {
    /// The target's name.
    pub(super) name: String,
    pub(super) executable: PathBuf,
    /// Its package's directory, which cargo would run it in.
    pub(super) directory: PathBuf,
}

impl Test {
    /// The names of its tests.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let printed = util::output(Command::new(&self.executable).arg("--list"))?;
        Ok(printed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) agent: PathBuf,
    /// Tests that plain `cargo test` runs too.
    pub(super) unit: Vec<Test>,
    /// Tests of gobinary over many releases of Go, or programs of others.
    pub(super) releases: Vec<Test>,
    pub(super) end_to_end: Test,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    test: bool,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Binaries {
    /// Builds them; for the unit tests alone the agent and the end-to-end tests are left out.
    pub(super) fn build(unit_only: bool) -> Result<Self> {
        let mut cargo = util::cargo();
        cargo.args(["test", "--no-run", "--workspace", "--ignore-rust-version"]);
        if !unit_only {
            // By this glob also those that plain `cargo test` leaves alone.
            cargo.args(["--lib", "--bins", "--test", "*"]);
        }
        cargo.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(util::target());
        let built = build::with_objects(cargo).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !built.status.success() {
            bail!("the tests do not build");
        }
        let mut binaries =
            Self { agent: PathBuf::new(), unit: Vec::new(), releases: Vec::new(), end_to_end: Test::none() };
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            if let Ok(message) = serde_json::from_str::<Message>(line) {
                binaries.take(message);
            }
        }
        if binaries.unit.is_empty() || !unit_only && (binaries.end_to_end.name.is_empty() || !binaries.agent.is_file())
        {
            bail!("cargo names no unit tests, no end-to-end tests or no agent among what it has built");
        }
        Ok(binaries)
    }

    fn take(&mut self, message: Message) {
        let Message {
            reason,
            executable: Some(executable),
            target: Some(target),
            profile: Some(profile),
            manifest_path,
        } = message
        else {
            return;
        };
        if reason != "compiler-artifact" {
            return;
        }
        if !profile.test {
            if target.name == "gopulse" {
                self.agent = executable;
            }
            return;
        }
        let directory = manifest_path.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let test = Test { name: target.name, executable, directory };
        match (target.test, test.name.as_str()) {
            (true, _) => self.unit.push(test),
            (false, "e2e") => self.end_to_end = test,
            (false, _) => self.releases.push(test),
        }
    }

    /// The end-to-end tests' executable, as root, with what they need of the environment, which sudo would not pass on.
    pub(super) fn end_to_end_command(&self, full: bool) -> Result<Command> {
        let mut environment = vec![
            (AGENT, self.agent.display().to_string()),
            (build::BPF_DIR, build::bpf_directory().display().to_string()),
            ("GOPULSE_ROOT", util::root().display().to_string()),
        ];
        for name in [
            "PATH",
            "HOME",
            "GOPROXY",
            "GOSUMDB",
            "GONOSUMDB",
            "GOFLAGS",
            "HTTPS_PROXY",
            "SSL_CERT_FILE",
            "GOPULSE_SOAK_SECONDS",
            "GOPULSE_CHURN_SECONDS",
            "GOPULSE_CHURN_SEED",
            "GOPULSE_OUTAGE_SECONDS",
            "GOPULSE_KEEP_CLUSTER",
            "GOPULSE_HPA_SYNC_SECONDS",
            "GOPULSE_HPA_SERIES",
            "GOPULSE_HOSTILE_SECONDS",
            "GOPULSE_HOSTILE_ONLY",
        ] {
            if let Ok(value) = env::var(name) {
                environment.push((name, value));
            } else if let Some((_, value)) = LONG.iter().find(|(long, _)| full && *long == name) {
                environment.push((name, (*value).to_owned()));
            }
        }
        let mut command = util::as_root(&self.end_to_end.executable, &environment)?;
        command.current_dir(&self.end_to_end.directory);
        Ok(command)
    }
}

impl Test {
    fn none() -> Self {
        Self { name: String::new(), executable: PathBuf::new(), directory: PathBuf::new() }
    }
}
