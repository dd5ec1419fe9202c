//! Many targets, each an executable of its own, and an agent that measures them all: what `scale` and `scrape` are run on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use clap::Args;

use super::fixture::{Copied, Tools};
use crate::service::Running;
use crate::util;

/// Options of `bench scale` and `bench scrape`.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(super) struct Options {
    /// How many targets
    #[arg(long, default_value_t = 250)]
    pub(super) targets: usize,
}

/// Collections of the `api` service: one route each is asked for a thing that is there and for one that is not.
const KINDS: [&str; 10] =
    ["users", "orders", "items", "carts", "prices", "stores", "reviews", "invoices", "shipments", "payments"];

/// The targets.
pub(super) struct Fleet<'t> {
    pub(super) tools: &'t Tools,
    pub(super) services: Vec<Running>,
    /// What selects them all.
    pub(super) pattern: String,
    pub(super) size: usize,
    executables: Vec<Copied>,
}

impl<'t> Fleet<'t> {
    /// Starts them.
    pub(super) fn start(tools: &'t Tools, options: &Options) -> Result<Self> {
        util::say(&format!("starting {} services", options.targets));
        let executables = (0..options.targets)
            .map(|i| tools.copy(&tools.stripped, &format!("fleet-{i}")))
            .collect::<Result<Vec<_>>>()?;
        let pattern = format!("gpbench-{}-fleet-*", std::process::id());
        let mut fleet = Self { tools, services: Vec::new(), pattern, size: options.targets, executables };
        fleet.revive()?;
        Ok(fleet)
    }

    /// Starts those that do not run.
    pub(super) fn revive(&mut self) -> Result<()> {
        self.services.clear();
        self.services = self.executables.iter().map(|it| it.start("api")).collect::<Result<_>>()?;
        Ok(())
    }

    /// Ends all processes at once.
    pub(super) fn kill(&mut self) -> Result<()> {
        for service in &self.services {
            let pid = nix::unistd::Pid::from_raw(service.pid() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Asks each target for 10 routes with 2 status codes each.
    pub(super) fn touch(&self) -> Result<()> {
        for service in &self.services {
            let address = service.address("http")?;
            touch(address).with_context(|| format!("the service at {address}"))?;
        }
        Ok(())
    }
}

fn touch(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for kind in KINDS {
        for id in [7, 7777] {
            write!(stream, "GET /v1/{kind}/{id} HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut length = 0;
            loop {
                let mut line = String::new();
                answers.read_line(&mut line)?;
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            answers.read_exact(&mut vec![0; length])?;
        }
    }
    Ok(())
}
