//! gopulse: parses, builds and runs one of the roles.

mod agent;
mod allowance;
mod budget;
mod clock;
mod config;
mod heap;
mod hpa;
mod kernel;
mod kubernetes;
mod logging;
mod metrics;
mod process;
mod profile;
mod runtime;
mod serve;
mod target;
mod threads;
mod visible;

use std::{
    io::{self, Write as _},
    net::TcpListener,
    process::ExitCode,
    time::Duration,
};

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{runtime::Runtime, signal::unix::SignalKind};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::{
    agent::Agent,
    config::{Cli, Command, Config, HpaCommand, HpaStream, LogFormat, RunArgs, Selection},
    kernel::{Kernel, Options},
    kubernetes::{Pods, Reviewer},
    serve::Protection,
};

/// For what is being attached or detached when gopulse is to end: a perf event takes 0.1 s, one after another.
const PATIENCE: Duration = Duration::from_secs(10);

/// Threads of the metrics-api: frames of a thousand agents are read on one while answers are made on the other.
const WORKERS: u8 = 2;

/// A message for the user, and the status to end with.
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn error(message: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self { message: message.into().to_string(), status: 1 }
    }

    fn usage(message: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self { message: message.into().to_string(), status: 2 }
    }
}

fn main() -> ExitCode {
    let _end = logging::End;
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Inspect(args) => inspect(&args.file, args.json),
        Command::Hpa(HpaCommand::Simulate(args)) => {
            hpa::simulate::run(&args).map_err(Failure::usage).and_then(|text| print(&text))
        }
        Command::Hpa(HpaCommand::Doctor(args)) => doctor(args),
        Command::Hpa(HpaCommand::RehearseAgents(args)) => {
            until_ended(|| hpa::feed::rehearse::run(args)).map_err(Failure::error)
        }
        Command::MetricsApi(args) => metrics_api(&args),
        Command::MetricReference => print(&metrics::reference()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::say(&failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(args: &RunArgs) -> Result<(), Failure> {
    // Work in the background is rare.
    heap::keep_arenas(1);
    let config = Config::load(args).map_err(Failure::usage)?;
    if args.check {
        return print(&serde_norway::to_string(&config).map_err(Failure::error)?);
    }
    logging::start(&config.log_level, config.log_format).map_err(Failure::usage)?;
    raise_descriptor_limit();
    warn_of_links(&config.select);
    let globs = config.select.matcher().map_err(|(glob, error)| Failure::usage(format!("{glob}: {error}")))?;
    agent::check_pids(&config.select, config.features).map_err(Failure::error)?;
    let listener = serve::bind(config.metrics_address).map_err(Failure::error)?;
    let access = config.metrics_access.clone();
    let tls = access.tls_certificate.as_deref().zip(access.tls_key.as_deref());
    let tls = tls.map(|(certificate, key)| serve::acceptor(certificate, key)).transpose().map_err(Failure::error)?;
    let stream = stream_listener(&config.hpa_stream).map_err(Failure::error)?;
    let (kernel, events, kernel_log) = Kernel::load(&kernel_options(&config)).map_err(Failure::error)?;
    heap::give_back();
    let address = listener.local_addr().map_err(Failure::error)?;
    if access.require_token && tls.is_none() && !address.ip().is_loopback() {
        warn!("bearer tokens are asked for, and come in the clear: give --tls-certificate and --tls-key");
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let metrics = format!("{scheme}://{address}/metrics");
    info!(version = env!("CARGO_PKG_VERSION"), attach = ?kernel.method(), preemption = kernel::preemption(), %metrics, "ready");
    let pods = config.in_pods().then(|| Pods::new(&config.kubernetes, agent::CHECKS)).transpose();
    let pods = pods.map_err(Failure::usage)?;
    let node = config.kubernetes.node_name.clone().unwrap_or_default();
    let (agent, inbox) = Agent::new(config, kernel, globs, pods.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let result = runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(SignalKind::terminate()).map_err(Failure::error)?;
        let client = if pods.is_some() || access.require_token || stream.is_some() {
            Some(kubernetes::client().await.map_err(Failure::error)?)
        } else {
            None
        };
        let (scaling, scaled) = (agent.clone(), client.clone());
        let stream = async move {
            match (stream, scaled) {
                (Some((listener, tls)), Some(client)) => {
                    let protection = Protection { tls: Some(tls), reviewer: Some(Reviewer::new(client)) };
                    serve::serve(listener, scaling, protection).await
                }
                _ => std::future::pending().await,
            }
        };
        let reviewer = client.clone().filter(|_| access.require_token).map(Reviewer::new);
        let watching = agent.clone();
        let watch = async move {
            if let (Some(pods), Some(client)) = (pods, client) {
                kubernetes::run(client, &node, pods, |containers| watching.pods_changed(containers)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = watch => Ok(()),
            result = agent.run(events, inbox) => result.map_err(Failure::error),
            result = kernel_log.run() => result.map_err(Failure::error),
            result = stream => result.map_err(Failure::error),
            result = serve::serve(listener, agent.clone(), Protection { tls, reviewer }) => result.map_err(Failure::error),
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    info!("detaching");
    agent.shut_down(PATIENCE);
    let left = kernel::settle(PATIENCE);
    if left > 0 {
        warn!("{left} probes are still being detached: the kernel may leave their breakpoints behind");
    }
    // Other work in the background holds nothing that the end of the process does not release.
    runtime.shutdown_background();
    result
}

fn kernel_options(config: &Config) -> Options {
    Options {
        method: config.attach,
        max_series: config.max_series,
        max_in_flight: config.max_in_flight,
        max_parked: config.max_parked,
        features: config.features,
        load_all: config.load_all,
    }
}

/// Looks at files away from all else: the file system of one may never answer.
fn warn_of_links(select: &Selection) {
    let select = select.clone();
    std::thread::spawn(move || {
        for (glob, is) in select.links() {
            warn!(
                executable = glob,
                "a symbolic link: a process is known by its executable's own path, so that this matches none; give {}",
                is.display()
            );
        }
    });
}

/// Each link takes a descriptor, and systemd's soft limit of 1,024 is for programs that use select(2). As many as may be.
fn raise_descriptor_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, "the limit of open files cannot be raised: some probes may not be attached");
    }
}

/// Where the metrics-api listens, if it may.
fn stream_listener(config: &HpaStream) -> Result<Option<(TcpListener, TlsAcceptor)>, String> {
    let (Some(address), Some(certificate), Some(key)) = (config.address, &config.tls_certificate, &config.tls_key)
    else {
        return Ok(None);
    };
    let listener = serve::bind(address).map_err(|error| error.replace("--metrics-address", "--hpa-stream-address"))?;
    Ok(Some((listener, serve::acceptor(certificate, key)?)))
}

fn metrics_api(args: &hpa::api::MetricsApiArgs) -> Result<(), Failure> {
    heap::keep_arenas(1 + WORKERS);
    if let Some(value) = &args.encode {
        return print(&format!("{}\n", hpa::api::encode(value)));
    }
    let config = hpa::api::Config::load(args).map_err(Failure::usage)?;
    if args.check {
        return print(&serde_norway::to_string(&config).map_err(Failure::error)?);
    }
    if args.table {
        return print(&config.table().map_err(Failure::usage)?.markdown());
    }
    logging::start(&config.log_level, if config.log_json { LogFormat::Json } else { LogFormat::Human })
        .map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS.into()).enable_all().build();
    let role = async { Box::pin(hpa::api::run(config, ended()?)).await };
    block_on(runtime, role).map_err(Failure::error)
}

fn doctor(args: hpa::doctor::DoctorArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let (report, status) = runtime.block_on(hpa::doctor::run(args));
    print(&report)?;
    match status {
        0 => Ok(()),
        1 => Err(Failure::error("a link is broken")),
        _ => Err(Failure { status, message: "what is broken, if anything, cannot be told".to_owned() }),
    }
}

/// Runs a role until it fails or is asked to end.
fn until_ended<F: Future<Output = Result<(), String>>>(role: impl FnOnce() -> F) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    block_on(runtime, async {
        tokio::select! {
            result = role() => result,
            end = ended()? => end,
        }
    })
}

/// Resolves when the process is asked to end.
fn ended() -> Result<impl Future<Output = Result<(), String>>, String> {
    let signal = |kind| tokio::signal::unix::signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn block_on(runtime: io::Result<Runtime>, role: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = runtime.map_err(|error| error.to_string())?;
    let result = runtime.block_on(role);
    // Work in the background holds nothing that the end of the process does not release.
    runtime.shutdown_background();
    result
}

fn inspect(file: &std::path::Path, json: bool) -> Result<(), Failure> {
    let shown = file.display();
    let opened = std::fs::File::open(file).map_err(|error| Failure::error(format!("cannot open {shown}: {error}")))?;
    let inspection =
        target::inspect(opened, target::Sites::Chosen).map_err(|error| Failure::error(format!("{shown}: {error}")))?;
    if json {
        print(&(serde_json::to_string_pretty(&inspection).map_err(Failure::error)? + "\n"))
    } else {
        print(&visible::lines(&inspection.to_string()))
    }
}

/// Prints to standard output; a closed pipe (`gopulse ... | head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::error(error)),
        _ => Ok(()),
    }
}
