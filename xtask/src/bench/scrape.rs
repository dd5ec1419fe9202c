//! `bench scrape`: scrapes of many targets with many label sets: time to the last byte, bytes, and memory meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fixture::Agent;
use super::fleet::Fleet;
use super::proc;
use super::report::{Section, Table};
use super::stats::Spread;
use crate::util;

const ROUNDS: usize = 9;
const TEXT: &str = "Accept: text/plain;version=0.0.4\r\n";
const OPEN_METRICS: &str = "Accept: application/openmetrics-text;version=1.0.0\r\n";
const GZIP: &str = "Accept: text/plain;version=0.0.4\r\nAccept-Encoding: gzip\r\n";

/// What one way of scraping gave.
#[derive(Default)]
struct Way {
    ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    extra_mib: Vec<f64>,
    bytes: usize,
}

/// Measures.
pub(super) fn run(fleet: &mut Fleet<'_>) -> Result<Section> {
    let mut section = Section::new(
        "scrape",
        format!(
            "{} targets with 10 routes and 2 status codes each. Time from sending the request to the last byte of the answer over \
             loopback; extra memory is the agent's peak meanwhile over what was resident before (VmHWM, reset by \
             /proc/PID/clear_refs). {ROUNDS} rounds in which each way has its turn.",
            fleet.size
        ),
    );
    let agent = Agent::measuring(fleet.tools, &["--executable", &fleet.pattern], fleet.size)?;
    fleet.touch()?;
    thread::sleep(Duration::from_millis(200));
    let mut cold = Way::default();
    once(&agent, TEXT, 1, &mut cold)?;
    let first = scrape(agent.address, TEXT)?;
    let text = String::from_utf8_lossy(&first);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    let label_sets = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count")).count();
    let headers: [(&str, &str, usize); 4] =
        [("text", TEXT, 1), ("OpenMetrics", OPEN_METRICS, 1), ("text, gzip", GZIP, 1), ("text, two at once", TEXT, 2)];
    let mut ways: Vec<Way> = headers.iter().map(|_| Way::default()).collect();
    for _ in 0..ROUNDS {
        for (way, (_, header, at_once)) in ways.iter_mut().zip(headers) {
            once(&agent, header, at_once, way)?;
        }
    }
    section.figure("samples", "", Spread::one(samples as f64));
    section.figure("histogram label sets", "", Spread::one(label_sets as f64));
    section.limited("the agent's first scrape: time to the last byte", "ms", Spread::of(&cold.ms), 250.0);
    section.limited("the agent's first scrape: extra memory", "MiB", Spread::of(&cold.extra_mib), 24.0);
    for (way, (name, ..)) in ways.iter().zip(headers) {
        let (ms, extra) = (Spread::of(&way.ms), Spread::of(&way.extra_mib));
        if name == "text" {
            section.limited("text: time to the last byte", "ms", ms, 250.0);
            section.limited("text: extra memory", "MiB", extra, 24.0);
        } else if name == "text, two at once" {
            section.figure("text, two at once: time to the last byte of both", "ms", ms);
            let one = Spread::of(&ways[0].extra_mib).median;
            section.limited(
                "text, two at once: extra memory (limit: twice that of one)",
                "MiB",
                extra,
                (2.0 * one).max(1.0),
            );
        } else {
            section.figure(format!("{name}: time to the last byte"), "ms", ms);
            section.figure(format!("{name}: extra memory"), "MiB", extra);
        }
        section.figure(format!("{name}: agent's CPU time"), "ms", Spread::of(&way.cpu_ms));
        section.figure(format!("{name}: bytes"), "MB", Spread::one(way.bytes as f64 / 1e6));
    }
    match system_calls(&agent) {
        Ok(table) => section.tables.push(table),
        Err(error) => section.note(format!("System calls were not counted: {error:#}.")),
    }
    Ok(section)
}

fn once(agent: &Agent, header: &str, at_once: usize, way: &mut Way) -> Result<()> {
    let pid = agent.pid();
    thread::sleep(Duration::from_millis(100));
    proc::reset_peak(pid)?;
    let (resident, cpu) = (proc::memory_mib(pid, "VmRSS")?, proc::cpu_ns(pid)?);
    let start = Instant::now();
    let bytes: Vec<usize> = thread::scope(|scope| {
        let scrapes: Vec<_> = (0..at_once).map(|_| scope.spawn(|| scrape(agent.address, header))).collect();
        scrapes
            .into_iter()
            .map(|it| it.join().expect("scrape does not panic").map(|body| body.len()))
            .collect::<Result<_>>()
    })?;
    way.ms.push(start.elapsed().as_secs_f64() * 1e3);
    way.cpu_ms.push((proc::cpu_ns(pid)? - cpu) as f64 / 1e6);
    way.extra_mib.push(proc::memory_mib(pid, "VmHWM")? - resident);
    way.bytes = bytes[0];
    Ok(())
}

/// The whole answer, as bytes.
fn scrape(address: SocketAddr, header: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: bench\r\n{header}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the scrape broke off")?;
    if !answer.starts_with(b"HTTP/1.0 200") && !answer.starts_with(b"HTTP/1.1 200") {
        bail!("the scrape was answered by {}", String::from_utf8_lossy(&answer[..answer.len().min(40)]));
    }
    Ok(answer)
}

/// System calls of one scrape, counted by strace, which slows it: for numbers alone.
fn system_calls(agent: &Agent) -> Result<Table> {
    let strace = util::which("strace").context("there is no strace")?;
    let file = util::target().join("bench/strace.txt");
    let mut tracer = Command::new(strace);
    tracer.args(["-f", "-c", "-o"]).arg(&file).arg("-p").arg(agent.pid().to_string());
    let mut tracer = tracer.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_millis(700));
    let scraped = scrape(agent.address, TEXT);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracer.id() as i32), nix::sys::signal::SIGINT)?;
    tracer.wait()?;
    scraped?;
    let text = std::fs::read_to_string(&file)?;
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls: u64 = words.get(3)?.parse().ok()?;
        Some(vec![(*words.last()?).to_owned(), calls.to_string()])
    });
    let rows: Vec<Vec<String>> = rows.filter(|row| row[0] != "total").take(8).collect();
    Ok(Table {
        title: "System calls of one scrape, and of what else the agent does in that second (strace)".into(),
        columns: ["call", "times"].map(Into::into).to_vec(),
        rows,
    })
}
