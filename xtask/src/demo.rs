//! `cargo xtask demo`: a sample shop under load, measured by gopulse, shown live in the terminal.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::exposition::{self, Sample};
use crate::go::{self, Service};
use crate::service::{self, Running};
use crate::{build, setup, util};

const HISTOGRAM: &str = "http_server_request_duration_seconds";
/// How long the agent has to answer at /metrics.
const START: Duration = Duration::from_secs(15);
/// The shop's traffic; some orders do not exist, some bodies are no JSON.
const MIX: [&str; 8] = [
    "GET /orders 200 /orders 10",
    "GET /orders/7 200 /orders/{id} 30",
    "GET /orders/999999 404 /orders/{id} 3",
    "POST /orders 201 /orders 10 send={\"item\":\"pen\",\"amount\":2}",
    "POST /orders 400 /orders 1 send=nonsense",
    "GET /search?q=book 200 /search 6",
    "GET /report 200 /report 1",
    "DELETE /orders/999998 404 /orders/{id} 1",
];

/// Options of `cargo xtask demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// End after this many seconds; without it, Ctrl-C ends the demo
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Requests a second that the load generator sends
    #[arg(long, default_value_t = 2000)]
    pub rate: u32,
    /// Where gopulse serves /metrics
    #[arg(long, default_value = "127.0.0.1:9464")]
    pub metrics_address: SocketAddr,
}

/// Sets everything up, runs it, and takes it down again.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    util::ensure_root()?;
    let agent = build::run()?;
    let shop = go::build(&Service::local("demo"))?;
    let load = go::build(&Service::local("load"))?;

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    ctrlc::set_handler(move || stopped.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;

    let shop = Running::spawn(Command::new(shop).process_group(0))?;
    let _load = Ended(start_load(&load, shop.address("http")?, options.rate)?);
    let mut agent = Ended(start_agent(&agent, shop.pid(), options.metrics_address)?);
    wait_for_metrics(&mut agent.0, options.metrics_address, &stop)?;
    let seen = watch(options, &mut agent.0, shop.pid(), &stop)?;
    if !seen && options.seconds.is_some() {
        bail!("no request was seen at http://{}/metrics", options.metrics_address);
    }
    Ok(())
}

/// A child that is ended when this is dropped, whichever way the demo ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = service::end(&mut self.0);
    }
}

fn start_load(binary: &Path, shop: SocketAddr, rate: u32) -> Result<Child> {
    let mut command = Command::new(binary);
    command.arg("-address").arg(shop.to_string()).args(["-duration", "24h", "-c", "64"]);
    command.arg("-rate").arg(rate.to_string());
    for line in MIX {
        command.args(["-mix", line]);
    }
    // Of a process group of its own, so that Ctrl-C leaves the order of ending to the demo.
    command.process_group(0);
    // The shop fails now and then on purpose, so the generator's own report is of no interest.
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start the load generator")
}

fn start_agent(binary: &Path, pid: u32, address: SocketAddr) -> Result<Child> {
    let mut command = util::as_root(binary, &[])?;
    command.arg("run").arg("--pid").arg(pid.to_string()).arg("--metrics-address").arg(address.to_string());
    util::say(&util::display(&command));
    command.stdin(Stdio::null()).spawn().context("cannot start gopulse")
}

fn wait_for_metrics(agent: &mut Child, address: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = agent.try_wait()? {
            bail!("gopulse ended at once ({status}); what it wrote is above");
        }
        match service::get(address, "/metrics") {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START => return Err(error.context("gopulse does not serve /metrics")),
            Err(_) if stop.load(Ordering::Relaxed) => bail!("interrupted"),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Shows the figures every second, and returns whether any request was seen.
fn watch(options: &Options, agent: &mut Child, pid: u32, stop: &AtomicBool) -> Result<bool> {
    let start = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    let mut seen = false;
    let mut before = Routes::default();
    let mut read_at = Instant::now();
    let mut first = true;
    while !stop.load(Ordering::Relaxed) {
        let text = match service::get(options.metrics_address, "/metrics") {
            Ok(text) => text,
            // A Ctrl-C in the terminal reaches gopulse too, perhaps before it reaches this process.
            Err(_) if interrupted_soon(stop) => break,
            Err(error) => match agent.try_wait()? {
                Some(status) => bail!("gopulse ended ({status}); what it wrote is above"),
                None => return Err(error),
            },
        };
        let now = Routes::of(&exposition::parse(&text), pid);
        let seconds = read_at.elapsed().as_secs_f64();
        read_at = Instant::now();
        if !first {
            let rows = now.rows(&before, seconds);
            seen |= rows.iter().any(|row| row.rate > 0.0);
            show(&rows, options.metrics_address, pid, terminal)?;
        }
        (before, first) = (now, false);
        if options.seconds.is_some_and(|limit| start.elapsed() >= Duration::from_secs(limit)) {
            break;
        }
        for _ in 0..10 {
            if !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
    Ok(seen)
}

fn interrupted_soon(stop: &AtomicBool) -> bool {
    thread::sleep(Duration::from_millis(200));
    stop.load(Ordering::Relaxed)
}

/// Cumulative counts by method and route.
#[derive(Default)]
struct Routes(BTreeMap<(String, String), Route>);

#[derive(Default)]
struct Route {
    /// By status.
    counts: BTreeMap<String, f64>,
    /// Upper bounds as written, and the cumulative counts over all statuses.
    buckets: BTreeMap<String, f64>,
}

struct Row {
    method: String,
    route: String,
    rate: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    /// Requests a second by status.
    statuses: Vec<(String, f64)>,
}

impl Routes {
    fn of(samples: &[Sample], pid: u32) -> Self {
        let mut routes = Self::default();
        let pid = pid.to_string();
        for sample in samples {
            if sample.label("instance_pid") != pid {
                continue;
            }
            let Some(suffix) = sample.name.strip_prefix(HISTOGRAM) else { continue };
            let key = (sample.label("http_request_method").to_owned(), sample.label("http_route").to_owned());
            let route = routes.0.entry(key).or_default();
            match suffix {
                "_count" => {
                    let status = sample.label("http_response_status_code").to_owned();
                    *route.counts.entry(status).or_default() += sample.value;
                }
                "_bucket" => *route.buckets.entry(sample.label("le").to_owned()).or_default() += sample.value,
                _ => {}
            }
        }
        routes
    }

    /// What happened since `before`.
    fn rows(&self, before: &Self, seconds: f64) -> Vec<Row> {
        let none = Route::default();
        let mut rows = Vec::new();
        for (key, now) in &self.0 {
            let old = before.0.get(key).unwrap_or(&none);
            let since = |now: f64, old: Option<&f64>| (now - old.copied().unwrap_or(0.0)).max(0.0);
            let statuses: Vec<_> = now
                .counts
                .iter()
                .map(|(status, &count)| (status.clone(), since(count, old.counts.get(status)) / seconds))
                .collect();
            let mut buckets: Vec<_> = now
                .buckets
                .iter()
                .filter_map(|(bound, &count)| Some((bound.parse().ok()?, since(count, old.buckets.get(bound)))))
                .collect();
            buckets.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
            rows.push(Row {
                method: key.0.clone(),
                route: key.1.clone(),
                rate: statuses.iter().map(|(_, rate)| rate).sum(),
                p50: exposition::quantile(0.5, &buckets),
                p99: exposition::quantile(0.99, &buckets),
                statuses,
            });
        }
        rows
    }
}

fn show(rows: &[Row], address: SocketAddr, pid: u32, terminal: bool) -> Result<()> {
    let mut out = Vec::new();
    if terminal {
        // Home, then clear what is below: the screen does not flicker as it would if it were cleared first.
        out.extend_from_slice(b"\x1b[H\x1b[J");
    }
    let rate: f64 = rows.iter().map(|row| row.rate).sum();
    writeln!(out, "gopulse measures process {pid}, an unmodified Go program: {rate:.0} requests/s")?;
    let [method, route, requests, p50, p99] = ["method", "route", "req/s", "p50", "p99"];
    writeln!(out, "{method:<8} {route:<24} {requests:>9} {p50:>9} {p99:>9}  status codes (per second)")?;
    for row in rows {
        let statuses: Vec<_> = row.statuses.iter().map(|(status, rate)| format!("{status}: {rate:.1}")).collect();
        writeln!(
            out,
            "{:<8} {:<24} {:>9.1} {:>9} {:>9}  {}",
            row.method,
            row.route,
            row.rate,
            duration(row.p50),
            duration(row.p99),
            statuses.join("  ")
        )?;
    }
    writeln!(out, "all metrics: http://{address}/metrics")?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()?;
    Ok(())
}

fn duration(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Routes, duration};
    use crate::exposition::parse;

    #[test]
    fn rates_are_of_the_time_between() {
        let text = |count: u32| {
            let labels =
                "instance_pid=\"7\",http_request_method=\"GET\",http_response_status_code=\"200\",http_route=\"/x\"";
            format!(
                "http_server_request_duration_seconds_bucket{{{labels},le=\"0.1\"}} {count}\n\
                 http_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}\n\
                 http_server_request_duration_seconds_count{{{labels}}} {count}\n"
            )
        };
        let before = Routes::of(&parse(&text(10)), 7);
        let rows = Routes::of(&parse(&text(30)), 7).rows(&before, 2.0);
        assert_eq!(rows.len(), 1);
        assert!((rows[0].rate - 10.0).abs() < 1e-9);
        assert!((rows[0].p50.unwrap() - 0.05).abs() < 1e-9);
        assert!(Routes::of(&parse(&text(10)), 8).0.is_empty());
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!([Some(0.00005), Some(0.0123), Some(2.5), None].map(duration), ["50 us", "12.3 ms", "2.50 s", "-"]);
    }
}
