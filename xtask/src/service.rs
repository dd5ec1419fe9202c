//! Starts the sample services and the load generator, and ends them again when they are dropped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A sample service that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    // Kept open, since a Go program that writes to a closed standard output dies.
    stdout: BufReader<ChildStdout>,
    /// Where it listens, by kind: `http`, `https`, `h2c`, `admin`.
    pub addresses: BTreeMap<String, SocketAddr>,
}

/// How often a service itself counted one kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfCount {
    /// The request's method.
    pub method: String,
    /// The status as the client saw it, or 0 if the handler wrote none and did not return.
    pub status: u16,
    /// The route, empty where none matched.
    pub route: String,
    /// `returned`, `panicked`, `aborted`, `hijacked` or `exited` (`runtime.Goexit`).
    pub outcome: String,
    /// The number of requests.
    pub count: u64,
    /// The sum of the durations of the outermost handler.
    pub seconds: f64,
}

impl Running {
    /// Starts a service and waits for the line that says where it listens.
    pub fn start(binary: &Path, arguments: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(binary).args(arguments))
    }

    /// Starts a service by a command of the caller's making.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut running = Self { child, stdout: BufReader::new(stdout), addresses: BTreeMap::new() };
        let mut line = String::new();
        running.stdout.read_line(&mut line)?;
        let Ok(said) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&line) else {
            bail!("{program} did not say where it listens, but `{}`", line.trim());
        };
        for (kind, address) in said {
            if let Some(address) = address.as_str().and_then(|address| address.parse().ok()) {
                running.addresses.insert(kind, address);
            }
        }
        Ok(running)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of one kind: `http`, `https`, `h2c`, `admin`.
    pub fn address(&self, kind: &str) -> Result<SocketAddr> {
        self.addresses.get(kind).copied().with_context(|| format!("the service does not listen for {kind}"))
    }

    /// What the service itself counted.
    pub fn counts(&self) -> Result<Vec<SelfCount>> {
        Ok(serde_json::from_str(&get(self.address("admin")?, "/_self")?)?)
    }

    /// Forgets what the service counted.
    pub fn reset(&self) -> Result<()> {
        get(self.address("admin")?, "/_reset").map(drop)
    }

    /// True while the process has not ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the service to end, and waits for it; it is killed if it takes over 5 seconds.
    pub fn stop(&mut self) -> Result<()> {
        end(&mut self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Asks a child to end by SIGTERM, waits up to 5 seconds, and kills it then.
pub fn end(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    if kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM) == Err(Errno::EPERM) {
        // It runs through sudo, which passes the signal on.
        let _ = Command::new("sudo").args(["-n", "kill", "-TERM", &child.id().to_string()]).status();
    }
    for _ in 0..250 {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// The body of an HTTP answer with status 200.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(|| format!("cannot write to {address}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("cannot read from {address}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address} gave no HTTP answer"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("http://{address}{path} answered with status {status}");
    }
    Ok(body.to_owned())
}

/// What the load generator prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Answered requests, wrong answers included.
    pub total: u64,
    /// Requests that failed or whose answer was not the expected one.
    pub errors: u64,
    /// The first few errors.
    #[serde(default)]
    pub error_samples: Vec<String>,
    /// How long it all took.
    pub elapsed_seconds: f64,
    /// Requests a second.
    pub rate: f64,
    /// Sum of the durations.
    pub seconds: f64,
    /// Median duration.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest duration.
    pub max: f64,
    /// Answers by method, status and route.
    pub counts: Vec<LoadCount>,
}

/// Answers of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadCount {
    /// The request's method.
    pub method: String,
    /// The status received; 0 for a connection closed without an answer.
    pub status: u16,
    /// The route that the mix names.
    pub route: String,
    /// The number of answers.
    pub count: u64,
    /// The sum of their durations.
    pub seconds: f64,
}

/// Runs the load generator to its end and returns its report.
pub fn load(binary: &Path, arguments: &[&str]) -> Result<LoadReport> {
    let printed = crate::util::output(Command::new(binary).args(arguments))?;
    serde_json::from_str(&printed).with_context(|| format!("the load generator printed `{printed}`"))
}
