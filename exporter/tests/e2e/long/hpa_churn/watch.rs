//! What HPAs want, once a second, held against the true load; and how often their controller has looked, by the API server's own
//! audit log. Knows nothing of what is done to the cluster but what it is told by name.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use hyper::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};

use crate::support::stage::quantity;

/// The HPA's default tolerance.
const TOLERANCE: f64 = 0.1;
/// The true load is taken over so many seconds, as the metric is.
const WINDOW: usize = 15;
/// Where little is known yet, it is over so many.
const SHORT: usize = 3;
/// And what is told may be of so long ago.
const LAG: usize = 6;
/// An answer that does not come.
const PATIENCE: Duration = Duration::from_secs(4);

const HPAS: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers";

/// Asks the API server over one connection that stays.
pub(super) struct Api {
    runtime: Runtime,
    client: Client,
}

impl Api {
    pub(super) fn new(kubeconfig: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the control plane's kubeconfig");
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            Client::try_from(config.expect("it names a cluster")).expect("a client")
        });
        Self { runtime, client }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = self.runtime.block_on(async { timeout(PATIENCE, self.client.request::<Value>(request)).await });
        answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())
    }
}

/// A Deployment and the HPA of the same name.
#[derive(Clone, Debug)]
pub(super) struct Scaled {
    pub(super) name: &'static str,
    /// Where what its HPA is told is asked for.
    pub(super) path: String,
    /// Requests a second that are sent to it.
    pub(super) load: f64,
    /// Of each pod.
    pub(super) target: f64,
}

/// Has kube-apiserver write down who asks for metrics: its flags, and where it writes.
pub(super) fn audited(directory: &Path) -> (Vec<String>, PathBuf) {
    let (policy, log) = (directory.join("audit-policy.yaml"), directory.join("audit.log"));
    let groups = json!([{"group": "custom.metrics.k8s.io"}, {"group": "external.metrics.k8s.io"}]);
    let rules = json!([{"level": "Metadata", "resources": groups}, {"level": "None"}]);
    let text =
        json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules});
    fs::write(&policy, text.to_string()).expect("it is writable");
    let flags = [("policy-file", &policy), ("log-path", &log)];
    let flags = flags.into_iter().map(|(flag, path)| format!("--audit-{flag}={}", path.display()));
    // A decision is held against looks that are there to be read.
    (flags.chain(["--audit-log-mode=blocking".to_owned()]).collect(), log)
}

/// Whether the controller, told the truth, would leave this count as it is, the truth being somewhere in a range.
pub(super) fn is_right(desired: u64, (least, most): (f64, f64), target: f64) -> bool {
    let each = target * desired as f64;
    // Within the tolerance, or what the load divided by the target is rounded up to.
    let lowest = ((1.0 - TOLERANCE) * each).min(each - target);
    most > lowest && least <= (1.0 + TOLERANCE) * each
}

/// The true load: how many requests were answered in the last seconds.
#[derive(Default)]
struct Truth {
    answered: VecDeque<(Instant, u64)>,
}

impl Truth {
    fn note(&mut self, answered: u64) {
        self.answered.push_back((Instant::now(), answered));
        if self.answered.len() > WINDOW + LAG {
            self.answered.pop_front();
        }
    }

    /// Whether so many requests a second were sent all the time, also over the few seconds of which a rate is made where an agent
    /// was started anew: a machine that others burn may not get them sent.
    fn is_steady(&self, load: f64) -> bool {
        let last = |seconds: usize| self.answered.iter().zip(self.answered.iter().skip(seconds));
        let rates = last(SHORT).map(Self::rate);
        self.answered.len() == WINDOW + LAG && rates.into_iter().all(|rate| (rate / load - 1.0).abs() < TOLERANCE)
    }

    fn rate((from, to): (&(Instant, u64), &(Instant, u64))) -> f64 {
        (to.1 - from.1) as f64 / to.0.duration_since(from.0).as_secs_f64()
    }

    /// The least and the most a second over windows of lately; none before there is one.
    fn range(&self) -> Option<(f64, f64)> {
        let rates = self.answered.iter().zip(self.answered.iter().skip(WINDOW)).map(Self::rate);
        rates.fold(None, |range, rate| {
            let (least, most) = range.unwrap_or((rate, rate));
            Some((rate.min(least), rate.max(most)))
        })
    }
}

/// A time in which an HPA wanted another count than the true one.
#[derive(Clone, Debug)]
pub(super) struct Excursion {
    hpa: &'static str,
    since: Duration,
    pub(super) until: Duration,
    wanted: Vec<u64>,
    truth: (f64, f64),
    /// When the controller has looked since it was first seen, and how it was answered.
    looks: Vec<u64>,
    /// What was told, from some seconds before on.
    told: Vec<String>,
    churn: Vec<String>,
}

impl Excursion {
    /// Whether it outlasted the look after the one that it came by.
    pub(super) fn is_too_long(&self) -> bool {
        self.looks.len() > 1
    }

    pub(super) fn seconds(&self) -> f64 {
        self.until.saturating_sub(self.since).as_secs_f64()
    }

    /// When, how far, for how long.
    fn line(&self) -> String {
        format!(
            "{} at {:.0} s for {:.0} s: wanted {:?}, true load {:.1} to {:.1}; looks meanwhile {:?}\n",
            self.hpa,
            self.since.as_secs_f64(),
            self.seconds(),
            self.wanted,
            self.truth.0,
            self.truth.1,
            self.looks,
        )
    }

    /// And what was done to the cluster before, and what was told.
    fn table(&self) -> String {
        self.churn.iter().chain(&self.told).fold(self.line(), |text, line| text + "    " + line + "\n")
    }
}

/// What is watched of one HPA.
struct Watched {
    of: Scaled,
    truth: Truth,
    open: Option<Excursion>,
    told: VecDeque<String>,
    /// Looks of the controller by the status of their answers.
    looks: BTreeMap<u64, u64>,
    /// Seconds in which the load was not constant.
    unsteady: u64,
    /// How far a total was from the truth at most, and when.
    farthest: (f64, Duration),
}

/// All HPAs.
pub(super) struct Watch<'a> {
    api: Api,
    begun: Instant,
    audit: PathBuf,
    read: usize,
    churn: &'a Mutex<Vec<(Duration, String)>>,
    all: Vec<Watched>,
    pub(super) excursions: Vec<Excursion>,
    seconds: u64,
    away: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        kubeconfig: &Path,
        audit: &Path,
        of: &[Scaled],
        begun: Instant,
        churn: &'a Mutex<Vec<(Duration, String)>>,
    ) -> Self {
        let watched = |of: &Scaled| Watched {
            of: of.clone(),
            truth: Truth::default(),
            open: None,
            told: VecDeque::new(),
            looks: BTreeMap::new(),
            unsteady: 0,
            farthest: (0.0, Duration::ZERO),
        };
        let all = of.iter().map(watched).collect();
        let api = Api::new(kubeconfig);
        Self { api, begun, audit: audit.to_owned(), read: 0, churn, all, excursions: Vec::new(), seconds: 0, away: 0 }
    }

    /// Looks at all of them; `answered` is how many requests each was sent.
    pub(super) fn look(&mut self, answered: impl Fn(&str) -> u64) {
        self.seconds += 1;
        for it in &mut self.all {
            it.truth.note(answered(it.of.name));
        }
        let hpas = self.api.get(HPAS);
        // After that: the look that what is wanted comes from is none since then.
        self.read_audit();
        self.away += u64::from(hpas.is_err());
        let now = self.begun.elapsed();
        let churn = self.churn.lock().expect("nobody panics with it").clone();
        for it in &mut self.all {
            let Some(truth) = it.truth.range() else { continue };
            let told = self.api.get(&it.of.path);
            let total = told.as_ref().ok().map(values);
            if let Some((total, count)) = total.filter(|(_, count)| *count > 0) {
                // The mean of pods of which one has no figures is not comparable.
                let off = if total > truth.1 { total / truth.1 - 1.0 } else { (total / truth.0 - 1.0).min(0.0) };
                if count == 1 && it.truth.is_steady(it.of.load) && off.abs() > it.farthest.0.abs() {
                    it.farthest = (off, now);
                }
            }
            let told = match (told, total) {
                (Ok(_), Some((total, count))) => format!("{total:.1} of {count}"),
                (Err(error), _) => error.chars().take(160).collect(),
                (Ok(_), None) => String::new(),
            };
            let desired = hpas.as_ref().ok().and_then(|list| desired(list, it.of.name));
            it.told.push_back(format!("{:.0} s: {told}; wants {desired:?}", now.as_secs_f64()));
            if it.told.len() > 10 && it.open.is_none() {
                it.told.pop_front();
            }
            let Some(desired) = desired else { continue };
            if !it.truth.is_steady(it.of.load) {
                it.unsteady += 1;
                // Nobody can say what is right.
                if let Some(open) = it.open.take() {
                    println!("NOT JUDGED, the load was not constant: {}", open.line());
                }
                it.told.clear();
                continue;
            }
            if is_right(desired, truth, it.of.target) {
                if let Some(mut over) = it.open.take() {
                    over.told = it.told.drain(..).collect();
                    over.churn = churn
                        .iter()
                        .filter(|(at, _)| *at + Duration::from_mins(1) > over.since)
                        .map(|(at, what)| format!("{:.0} s: {what}", at.as_secs_f64()))
                        .collect();
                    println!("EXCURSION {}", over.table());
                    self.excursions.push(over);
                }
                continue;
            }
            let open = it.open.get_or_insert_with(|| Excursion {
                hpa: it.of.name,
                since: now,
                until: now,
                wanted: Vec::new(),
                truth,
                looks: Vec::new(),
                told: Vec::new(),
                churn: Vec::new(),
            });
            open.until = now;
            if open.wanted.last() != Some(&desired) {
                open.wanted.push(desired);
            }
        }
    }

    /// Whether all want something, and have looked.
    pub(super) fn all_right(&self) -> bool {
        let hpas = self.api.get(HPAS).unwrap_or_default();
        self.all.iter().all(|it| {
            let right = |desired| is_right(desired, (it.of.load, it.of.load), it.of.target);
            desired(&hpas, it.of.name).is_some_and(right)
        })
    }

    /// Counts the controller's looks that are new.
    fn read_audit(&mut self) {
        let text = fs::read(&self.audit).unwrap_or_default();
        let new = text.get(self.read..).unwrap_or_default();
        let Some(end) = new.iter().rposition(|it| *it == b'\n') else { return };
        let new = String::from_utf8_lossy(&new[..end]).into_owned();
        self.read += end + 1;
        for line in new.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if !event["user"]["username"].as_str().is_some_and(|it| it.ends_with(":horizontal-pod-autoscaler")) {
                continue;
            }
            let uri = event["requestURI"].as_str().unwrap_or_default();
            let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
            for it in self.all.iter_mut().filter(|it| uri.contains(it.of.name)) {
                *it.looks.entry(code).or_default() += 1;
                if let Some(open) = &mut it.open {
                    open.looks.push(code);
                }
            }
        }
    }

    /// What is open in the end is an excursion as well.
    pub(super) fn end(&mut self) {
        let open: Vec<Excursion> = self.all.iter_mut().filter_map(|it| it.open.take()).collect();
        for it in open {
            println!("EXCURSION at the end {}", it.table());
            self.excursions.push(it);
        }
    }

    /// Whether the load was constant for most of the time, so that something was judged.
    pub(super) fn has_judged(&self) -> bool {
        self.all.iter().all(|it| 2 * it.unsteady < self.seconds)
    }

    pub(super) fn summary(&self) -> String {
        let mut text = format!("{} seconds watched, the API server away in {}\n", self.seconds, self.away);
        for it in &self.all {
            let _ = writeln!(
                text,
                "{}: looks of the controller by status {:?}; load not constant in {} s; a total was off by {:+.1}% at most, at {:.0} s",
                it.of.name,
                it.looks,
                it.unsteady,
                100.0 * it.farthest.0,
                it.farthest.1.as_secs_f64(),
            );
        }
        let longest = self.excursions.iter().map(Excursion::seconds).fold(0.0, f64::max);
        let _ = writeln!(text, "{} excursions, the longest of {longest:.0} s", self.excursions.len());
        for it in &self.excursions {
            text.push_str(&it.line());
        }
        text
    }
}

/// As many replicas as an HPA of a list wants.
fn desired(list: &Value, name: &str) -> Option<u64> {
    let items = list["items"].as_array()?;
    let hpa = items.iter().find(|it| it["metadata"]["name"] == name)?;
    hpa["status"]["desiredReplicas"].as_u64()
}

/// The sum of a list's values, and of how many.
pub(super) fn values(list: &Value) -> (f64, usize) {
    let items = list["items"].as_array().map_or(&[][..], |it| it);
    (items.iter().map(|it| quantity(&it["value"])).sum(), items.len())
}

#[test]
fn a_count_is_right_if_the_controller_would_leave_it() {
    let right = |desired, load| is_right(desired, (load, load), 25.0);
    assert!(right(4, 95.0) && right(4, 76.0) && right(4, 109.0));
    assert!(!right(3, 95.0) && !right(5, 95.0) && !right(4, 75.0) && !right(4, 111.0));
    assert!(is_right(5, (95.0, 101.0), 25.0), "it may have been told the one and then the other");
}
