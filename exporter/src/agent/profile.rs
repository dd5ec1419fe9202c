//! `/debug/blocked`: lets the kernel side take the stacks of goroutines that block for a while, and makes a profile of them.

mod mapped;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use exporter_ebpf::{
    key::target_of,
    wait::{self, Window},
};
use gobinary::frames_at;
use instruments::{UNKNOWN, blocking::reason};
use tokio::task::spawn_blocking;

use self::mapped::Mapped;
use super::{Agent, ledger::add_functions, registry::Stage};
use crate::{
    allowance::Allowance,
    process::Process,
    profile::{Place, Profile, Stack},
    target::Feature,
};

/// The longest that a profile may take.
const LONGEST: Duration = Duration::from_mins(5);
/// Profiles at once, one after another, and one more each time that this has passed: one keeps all others from theirs.
pub(super) const PROFILES: Allowance = Allowance::new(6, Duration::from_secs(10));

/// Of whom a profile is wanted, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// A process id.
    pub(crate) pid: Option<u32>,
    /// A pod's namespace.
    pub(crate) namespace: Option<String>,
    /// A pod's name.
    pub(crate) pod: Option<String>,
    /// One of its containers.
    pub(crate) container: Option<String>,
    /// How long it is looked at.
    pub(crate) time: Duration,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoProfile {
    /// The request is wrong.
    Wrong(String),
    /// There is no such target.
    Unknown(String),
    /// Not now.
    Busy,
    /// There have been enough for now; how long to wait.
    TooMany(Duration),
    /// It could not be made.
    Failed(String),
}

/// Whose profile is taken.
#[derive(Clone, Debug)]
struct Subject {
    id: u32,
    pid: u32,
    process: Process,
    executable: String,
    minor: u16,
}

/// Stacks by id and wait reason, with their count and nanoseconds.
type Weights = HashMap<(u32, u32), (f64, f64)>;

impl Agent {
    /// Takes a profile; comes back after the time asked for.
    pub(crate) async fn profile(&self, ask: Ask) -> Result<Profile, NoProfile> {
        let subject = self.subject(&ask)?;
        let Ok(one_at_a_time) = Arc::clone(&self.inner.profiling).try_acquire_owned() else {
            return Err(NoProfile::Busy);
        };
        let taken = self.inner.profiles.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        taken.map_err(NoProfile::TooMany)?;
        let broken = |_| NoProfile::Failed("the profile could not be made".into());
        let agent = self.clone();
        // What a profile has left whose client went away.
        spawn_blocking(move || agent.forget_stacks()).await.map_err(broken)?.map_err(|error| unreadable(&error))?;
        let (began, since, from) = (Instant::now(), SystemTime::now(), crate::clock::monotonic_ns());
        if !self.set_stacks(&subject, from) {
            return Err(NoProfile::Unknown("the process ended".into()));
        }
        // Whoever asked may go away while this waits.
        let off = SwitchOff { agent: self.clone(), subject: subject.clone() };
        tokio::time::sleep(ask.time).await;
        let took = began.elapsed();
        let agent = self.clone();
        spawn_blocking(move || {
            let weights = agent.weights(&subject, from).map_err(|error| unreadable(&error));
            drop(off);
            let stacks = weights.and_then(|weights| agent.stacks(&subject, &weights));
            // Where this fails, the next profile begins with it.
            let _ = agent.forget_stacks();
            drop(one_at_a_time);
            crate::heap::give_back();
            let stacks = stacks?;
            agent.add_to_top(subject.id, &stacks);
            let began_ns = since.duration_since(UNIX_EPOCH).map_or(0, |at| i64::try_from(at.as_nanos()).unwrap_or(0));
            Ok(Profile { executable: subject.executable, began_ns, took, stacks })
        })
        .await
        .map_err(broken)?
    }

    fn subject(&self, ask: &Ask) -> Result<Subject, NoProfile> {
        if ask.time.is_zero() || ask.time > LONGEST {
            return Err(NoProfile::Wrong(format!("seconds must be from 1 to {}", LONGEST.as_secs())));
        }
        if ask.pid.is_none() && (ask.namespace.is_none() || ask.pod.is_none()) {
            return Err(NoProfile::Wrong(
                "say of which process: ?namespace=NAMESPACE&pod=POD[&container=CONTAINER] or ?pid=PID".into(),
            ));
        }
        let targets = self.state().targets.clone();
        let mut found = targets.values().filter(|target| {
            let label = |name: &str, wanted: Option<&String>| {
                wanted.is_none_or(|wanted| target.labels.iter().any(|(is, value)| is == name && value == wanted))
            };
            matches!(target.stage, Stage::Measured)
                && ask.pid.is_none_or(|pid| pid == target.process.id.pid)
                && label("namespace", ask.namespace.as_ref())
                && label("pod", ask.pod.as_ref())
                && label("container", ask.container.as_ref())
        });
        let Some(target) = found.next() else {
            return Err(NoProfile::Unknown("no such process is measured on this node: see /targets".into()));
        };
        if found.next().is_some() {
            return Err(NoProfile::Wrong("more than one process is meant: add &container= or &pid=".into()));
        }
        if !target.features.has(Feature::Blocking) {
            return Err(NoProfile::Wrong("blocking is not among what is measured of this process (features)".into()));
        }
        Ok(Subject {
            id: target.id,
            pid: target.process.id.pid,
            process: target.process.clone(),
            executable: target.process.executable.display().to_string(),
            minor: target.inspection.as_deref().map_or(0, |it| it.go_minor),
        })
    }

    /// Lets the kernel side take stacks of goroutines that park from then on (`u64::MAX`: of none); whether the process is still
    /// there.
    fn set_stacks(&self, subject: &Subject, stacks_from_ns: u64) -> bool {
        self.change_window(subject.id, subject.pid, |window| Window { stacks_from_ns, ..window })
    }

    /// What blocked where: waits that ended, scaled up where they were sampled, and those that go on.
    fn weights(&self, subject: &Subject, from: u64) -> io::Result<Weights> {
        let scale = self.state().targets.get(&subject.id).map_or(1.0, |target| target.blocked.scale());
        let maps = self.inner.kernel.maps();
        let mut weights = maps.blocked_at.read(|weights: &mut Weights, key, value| {
            if key.target == subject.id {
                let weight = weights.entry((key.stack, key.reason)).or_insert((0.0, 0.0));
                weight.0 += value.count as f64 * scale;
                weight.1 += value.sum_ns as f64 * scale;
            }
        })?;
        let now = crate::clock::monotonic_ns();
        let waiting = maps.parked.read(|waiting: &mut Vec<_>, key, parked| {
            if target_of(*key) == subject.id
                && parked.start_ns >= from
                && let Ok(stack) = u32::try_from(parked.stack)
            {
                waiting.push(((stack, parked.reason), now.saturating_sub(parked.start_ns)));
            }
        })?;
        for (at, nanoseconds) in waiting {
            let weight = weights.entry(at).or_insert((0.0, 0.0));
            weight.0 += 1.0;
            weight.1 += nanoseconds as f64;
        }
        Ok(weights)
    }

    /// Makes stacks readable, by the executable's own function table.
    fn stacks(&self, subject: &Subject, weights: &Weights) -> Result<Vec<Stack>, NoProfile> {
        let maps = self.inner.kernel.maps();
        let addresses: HashMap<u32, Vec<u64>> = weights
            .keys()
            .map(|(stack, _)| *stack)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|id| Some((id, addresses_of(&maps.stacks.get(&id)?))))
            .collect();
        let no_file = |error: &dyn std::fmt::Display| NoProfile::Failed(format!("the executable: {error}"));
        let file = subject.process.open().map_err(|error| no_file(&error))?;
        let mapped = Mapped::of(subject.pid, file.metadata().map_err(|error| no_file(&error))?.ino())?;
        let unique: BTreeSet<u64> = addresses.values().flat_map(|stack| callers(stack)).collect();
        let (known, offsets): (Vec<u64>, Vec<u64>) =
            unique.into_iter().filter_map(|address| Some((address, mapped.file_offset(address)?))).unzip();
        let places = frames_at(&file, &offsets).map_err(|error| no_file(&error))?;
        let places: HashMap<u64, Place> = known.into_iter().zip(places).collect();
        let mut stacks: Vec<Stack> = weights
            .iter()
            .filter_map(|((stack, number), (count, nanoseconds))| {
                let places = callers(addresses.get(stack)?)
                    .filter_map(|address| {
                        Some((address, places.get(&address).filter(|place| !place.is_empty())?.clone()))
                    })
                    .collect();
                let number = u8::try_from(*number).ok();
                let reason = number.and_then(|number| reason(subject.minor, number)).unwrap_or(UNKNOWN);
                Some(Stack { reason, count: *count, seconds: nanoseconds / 1e9, places }.without_mechanism())
            })
            .collect();
        stacks.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(stacks)
    }

    /// Empties the maps of stacks: one profile at a time has them for itself.
    fn forget_stacks(&self) -> io::Result<()> {
        let maps = self.inner.kernel.maps();
        maps.blocked_at.remove_all(&maps.blocked_at.keys(|_| true)?);
        maps.stacks.remove_all(&maps.stacks.keys(|_| true)?);
        Ok(())
    }

    /// Adds to the functions at which most time was spent.
    fn add_to_top(&self, id: u32, stacks: &[Stack]) {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for stack in stacks {
            *sums.entry(stack.function().unwrap_or(UNKNOWN)).or_default() += stack.seconds;
        }
        let mut sums: Vec<(&str, f64)> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.total_cmp(&a.1));
        if let Some(target) = self.state().targets.get_mut(&id) {
            add_functions(&mut target.blocked_functions, sums);
        }
    }
}

/// The addresses of a stack, the innermost first.
fn addresses_of(stack: &wait::Stack) -> Vec<u64> {
    stack.addresses.iter().copied().take_while(|&address| address != 0).collect()
}

/// Addresses whose calls are shown: a return address is that of the instruction behind the call.
fn callers(stack: &[u64]) -> impl Iterator<Item = u64> + '_ {
    stack.iter().enumerate().map(|(i, address)| if i == 0 { *address } else { address.saturating_sub(1) })
}

fn unreadable(error: &io::Error) -> NoProfile {
    NoProfile::Failed(format!("the kernel's map of stacks: {error}"))
}

/// Ends the taking of stacks when it is dropped.
struct SwitchOff {
    agent: Agent,
    subject: Subject,
}

impl Drop for SwitchOff {
    fn drop(&mut self) {
        self.agent.set_stacks(&self.subject, u64::MAX);
    }
}
