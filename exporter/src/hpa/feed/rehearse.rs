//! Agents that measure nothing and tell what a script says: for tests and benchmarks of what listens to them. The stream is the
//! agents' own.

mod cost;
mod fleet;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{Amount, Counted, Feed, Figures, Stream};
use crate::hpa::wire;

/// Upper bounds of the durations told of: those of the agent.
const BOUNDS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0,
];

/// Options of the hidden command.
#[derive(Debug, Args)]
pub(crate) struct RehearseArgs {
    /// Where to listen: one agent at each. With port 0 the kernel chooses, and the addresses are printed.
    #[arg(long = "address", value_name = "ADDRESS:PORT", required_unless_present = "cost")]
    addresses: Vec<SocketAddr>,
    /// So many agents at the first address, at ports that the kernel chooses.
    #[arg(long, default_value = "1")]
    agents: usize,
    /// What to tell (YAML, read again every second): `pods`, a list of `namespace`, `pod`, `container`, `requests_per_second`,
    /// `active`, `latency_seconds`, `route`, `waiting` (goroutines by reason), `agent` (by number); and `unmeasured`, a list of `namespace`, `pod`, `expected`,
    /// `reason`, `agent`: pods without figures.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Without a script: so many pods at each agent, `ns-NUMBER/pod-AGENT-NUMBER`.
    #[arg(long, default_value = "100")]
    pods: usize,
    /// Namespaces that they are spread over.
    #[arg(long, default_value = "20")]
    namespaces: usize,
    /// Requests a second of each.
    #[arg(long, default_value = "50")]
    rate: f64,
    /// Routes of each.
    #[arg(long, default_value = "2")]
    routes: usize,
    /// Of requests alone, and nothing of runtimes, processes and the scheduler.
    #[arg(long)]
    requests_alone: bool,
    /// Serve TLS by this certificate (PEM) ...
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// ... and its key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Listen nowhere, but print what a second of the stream costs an agent of a container with so many series: their number, and
    /// nanoseconds a series to read figures and to make a frame.
    #[arg(long, value_name = "SERIES")]
    cost: Vec<usize>,
    /// Answer 401 without this bearer token.
    #[arg(long)]
    token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    pods: Vec<Scripted>,
    #[serde(default)]
    unmeasured: Vec<Without>,
}

/// A pod that has no figures.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Without {
    namespace: String,
    pod: String,
    #[serde(default)]
    expected: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    agent: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripted {
    namespace: String,
    pod: String,
    #[serde(default = "app")]
    container: String,
    #[serde(default)]
    requests_per_second: f64,
    #[serde(default)]
    active: f64,
    #[serde(default)]
    latency_seconds: f64,
    /// Goroutines by what they wait for; a reason that is not there is told of no more.
    #[serde(default)]
    waiting: BTreeMap<String, f64>,
    #[serde(default = "root")]
    route: String,
    #[serde(default)]
    agent: usize,
}

fn app() -> String {
    "app".into()
}

fn root() -> String {
    "/".into()
}

/// One agent: its script, and what has been counted by it.
struct Rehearsal {
    number: usize,
    script: PathBuf,
    counted: HashMap<(String, String, String), Tally>,
    at: Instant,
    looked: bool,
}

/// What has been counted of a container.
struct Tally {
    /// Of a request.
    fraction: f64,
    buckets: Vec<f64>,
    /// Of their durations, seconds.
    sum: f64,
    counted: Counted,
}

/// What an agent tells.
#[derive(Clone)]
enum Source {
    Script(Feed, Arc<Mutex<Rehearsal>>),
    Fleet(fleet::Agent),
}

impl Source {
    fn listen(&self) -> Stream {
        match self {
            Self::Fleet(agent) => agent.listen(),
            Self::Script(feed, rehearsal) => {
                let rehearsal = rehearsal.clone();
                feed.listen(move || rehearsal.lock().unwrap_or_else(PoisonError::into_inner).figures())
            }
        }
    }
}

impl Rehearsal {
    /// The figures of now: requests since the last look, at the script's rates, are counted.
    fn figures(&mut self) -> Figures {
        let script = read(&self.script);
        let elapsed = self.at.elapsed().as_secs_f64();
        // Pods of the first look were there before this agent, as those that an agent finds when it starts.
        let counted = Counted { since: self.at, from_start: self.looked };
        (self.at, self.looked) = (Instant::now(), true);
        let mut figures = Figures { unix_ms: super::unix_ms(), ..Figures::default() };
        let bounds: Arc<[f64]> = BOUNDS.into();
        for pod in script.pods.iter().filter(|it| it.agent == self.number) {
            let name = (pod.namespace.clone(), pod.pod.clone(), pod.container.clone());
            let Tally { fraction, buckets, sum, counted } = self.counted.entry(name.clone()).or_insert_with(|| Tally {
                fraction: 0.0,
                buckets: vec![0.0; BOUNDS.len() + 1],
                sum: 0.0,
                counted,
            });
            let requests = pod.requests_per_second * elapsed + *fraction;
            *fraction = requests.fract();
            let bucket = BOUNDS.partition_point(|it| *it < pod.latency_seconds);
            buckets[bucket] += requests.trunc();
            *sum += requests.trunc() * pod.latency_seconds;
            let measured = figures.containers.entry(name).or_default();
            measured.counted = Some(*counted);
            measured.families.extend(["http_server_active_requests", "http_server_request_duration_seconds"]);
            measured.families.insert("http_server_request_duration_seconds_sum");
            measured.add("http_server_active_requests", Vec::new(), Amount::Gauge(pod.active));
            for (reason, count) in &pod.waiting {
                measured.families.insert("go_goroutines_waiting");
                let labels = vec!["reason".to_owned(), reason.clone()];
                measured.add("go_goroutines_waiting", labels, Amount::Gauge(*count));
            }
            if buckets.iter().any(|it| *it > 0.0) {
                let counts = buckets.iter().map(|it| *it as u64).collect();
                let labels =
                    [("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", &*pod.route)];
                let labels: Vec<String> =
                    labels.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect();
                measured.add("http_server_request_duration_seconds_sum", labels.clone(), Amount::Counter(*sum));
                measured.add(
                    "http_server_request_duration_seconds",
                    labels,
                    Amount::Buckets { bounds: bounds.clone(), counts },
                );
            }
        }
        let without = script.unmeasured.iter().filter(|it| it.agent == self.number);
        figures.wanted(without.map(|it| (it.namespace.clone(), it.pod.clone(), it.expected, it.reason.clone())))
    }
}

fn read(path: &Path) -> Script {
    // Half written for a moment: the next look finds it whole, and until then nothing is told.
    fs::read_to_string(path).ok().and_then(|text| serde_norway::from_str(&text).ok()).unwrap_or_default()
}

/// Serves until it is ended.
pub(crate) async fn run(args: RehearseArgs) -> Result<(), String> {
    if !args.cost.is_empty() {
        for series in args.cost {
            let [figures, frame] = cost::of(series);
            println!("{series} {figures:.0} {frame:.0}");
        }
        return Ok(());
    }
    let mut addresses = args.addresses.clone();
    if args.agents > 1 {
        addresses = vec![SocketAddr::new(args.addresses[0].ip(), 0); args.agents];
    }
    let tls = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Some(crate::serve::acceptor(certificate, key)?),
        _ => None,
    };
    let pods = fleet::Pods {
        count: args.pods,
        namespaces: args.namespaces,
        rate: args.rate,
        routes: args.routes,
        runtime: !args.requests_alone,
    };
    let fleet = if args.script.is_none() { fleet::agents(addresses.len(), &pods) } else { Vec::new() };
    let mut fleet = fleet.into_iter();
    let mut shown = String::new();
    for (number, address) in addresses.into_iter().enumerate() {
        let listener =
            TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let _ = writeln!(shown, "{}", listener.local_addr().map_err(|error| error.to_string())?);
        let source = match (fleet.next(), &args.script) {
            (Some(agent), _) => Source::Fleet(agent),
            (None, script) => {
                let script = script.clone().unwrap_or_default();
                let rehearsal =
                    Rehearsal { number, script, counted: HashMap::new(), at: Instant::now(), looked: false };
                Source::Script(Feed::default(), Arc::new(Mutex::new(rehearsal)))
            }
        };
        tokio::spawn(serve(listener, tls.clone(), source, args.token.clone()));
    }
    print!("{shown}");
    let _ = std::io::Write::flush(&mut std::io::stdout());
    std::future::pending().await
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, source: Source, token: Option<String>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, source, token) = (tls.clone(), source.clone(), token.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, source, token).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, source, token).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, source: Source, token: Option<String>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (source, token) = (source.clone(), token.clone());
        async move {
            let shown = request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
            if request.uri().path() != wire::PATH || (token.is_some() && shown != token.as_deref()) {
                let mut response = Response::new(Stream::empty());
                *response.status_mut() = if token.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::NOT_FOUND };
                return Ok::<_, Infallible>(response);
            }
            Ok(Response::new(source.listen()))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}
