//! `bench attach`: from the start of a matching process to its first counted request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fixture::{Agent, Copied, Tools};
use super::report::Section;
use super::stats::Spread;
use crate::exposition;
use crate::service;

const ROUNDS: usize = 20;
/// How long requests are sent after the start.
const WATCH: Duration = Duration::from_millis(700);

/// Measures.
pub(super) fn run(tools: &Tools) -> Result<Section> {
    let mut section = Section::new(
        "attach",
        "An agent runs; a process that it is to measure starts (time zero: just before fork and exec). One client sends it requests, \
         one after another, from the moment it listens. Of N answered requests the agent has counted the last C, so that number \
         N-C+1 was the first one counted: the figure is the time until that one was sent.",
    );
    let pattern = format!("gpbench-{}-attach*", std::process::id());
    let agent = Agent::measuring(tools, &["--executable", &pattern], 0)?;
    let (mut new, mut known, mut first) = (Vec::new(), Vec::new(), Vec::new());
    let again = tools.copy(&tools.stripped, "attach-known")?;
    once(&agent, &again)?;
    for round in 0..ROUNDS {
        let copied = tools.copy(&tools.stripped, &format!("attach-{round}"))?;
        let (counted, answered) = once(&agent, &copied)?;
        new.push(counted);
        first.push(answered);
        known.push(once(&agent, &again)?.0);
    }
    section.limited("exec to first counted request, executable not seen before", "ms", Spread::of(&new), 150.0);
    section.limited("exec to first counted request, executable known", "ms", Spread::of(&known), 150.0);
    section.figure("exec to the first request that could be sent at all", "ms", Spread::of(&first));
    Ok(section)
}

/// Milliseconds to the first counted and to the first sent request.
fn once(agent: &Agent, copied: &Copied) -> Result<(f64, f64)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(copied.path());
    command.args(["-https", "-", "-h2c", "-", "-admin", "-", "-http", &address.to_string()]);
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start the service")?;
    let sent = requests(address, start);
    let counted = sent.and_then(|sent| {
        // The last request's end is behind its answer.
        thread::sleep(Duration::from_millis(50));
        Ok((counted(agent.address, child.id())?, sent))
    });
    child.kill()?;
    child.wait()?;
    let (counted, sent) = counted?;
    match sent.len().checked_sub(counted).and_then(|index| sent.get(index)) {
        Some(at) => Ok((at.as_secs_f64() * 1e3, sent[0].as_secs_f64() * 1e3)),
        None => bail!("{counted} requests counted of {} sent", sent.len()),
    }
}

/// When each request was sent.
fn requests(address: SocketAddr, start: Instant) -> Result<Vec<Duration>> {
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > Duration::from_secs(5) => {
                return Err(error).context("the service does not listen");
            }
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    };
    stream.set_nodelay(true)?;
    let mut sent = Vec::new();
    let mut answer = [0; 1024];
    while start.elapsed() < WATCH {
        let at = start.elapsed();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        if stream.read(&mut answer)? == 0 {
            bail!("the service closed the connection");
        }
        sent.push(at);
        thread::sleep(Duration::from_micros(200));
    }
    Ok(sent)
}

/// Requests of a process that the agent has counted.
fn counted(agent: SocketAddr, pid: u32) -> Result<usize> {
    let samples = exposition::parse(&service::get(agent, "/metrics")?);
    let pid = pid.to_string();
    let of = samples.iter().filter(|it| it.name == "http_server_request_duration_seconds_count");
    Ok(of.filter(|it| it.label("instance_pid") == pid).map(|it| it.value as usize).sum())
}
