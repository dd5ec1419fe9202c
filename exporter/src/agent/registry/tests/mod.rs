//! A life cycle step by step: each test plays the agent, without a kernel. Links are letters.

mod attaching;
mod containers;
mod ending;
mod files;
mod finding;
mod shared;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use exporter_ebpf::facts::Facts;

use super::*;
use crate::{
    agent::groups::{GroupKey, Links, Missing},
    kernel::{AttachError, Probe},
    kubernetes::Placement,
    process::Process,
    target::{Feature, Features, Inspection},
};

const HTTP: Features = Features::NONE.with(Feature::Http);

/// A registry, and a clock that is set by hand.
struct Life {
    registry: Registry<char>,
    begun: Instant,
    /// Seconds since then.
    second: u64,
    /// Snapshots that have begun.
    snapshots: u64,
}

fn life() -> Life {
    Life { registry: Registry::new(false), begun: Instant::now(), second: 0, snapshots: 0 }
}

/// What there is to do, by kind, without the log.
fn kinds(effects: &Effects<char>) -> Vec<&'static str> {
    let kind = |effect: &Effect<char>| match effect {
        Effect::Consider(_) => "consider",
        Effect::Look(_) => "look",
        Effect::LookLater(_) => "look later",
        Effect::CheckConfigured { .. } => "check",
        Effect::Inspect { .. } => "inspect",
        Effect::Configure(_) => "configure",
        Effect::Unconfigure { .. } => "unconfigure",
        Effect::Attach(_) => "attach",
        Effect::Detach(..) => "detach",
        Effect::Verify { .. } => "verify",
        Effect::Joined(_) => "joined",
        Effect::MeasureBlocking(_) => "blocking",
        Effect::UpdateRunQueue => "scheduler",
        Effect::LoseInFlight(_) => "lose",
        Effect::Bury => "bury",
        Effect::Log(_) => "log",
    };
    effects.iter().map(kind).filter(|kind| *kind != "log").collect()
}

fn logs(effects: &Effects<char>) -> Vec<&Log> {
    effects.iter().filter_map(|effect| if let Effect::Log(log) = effect { Some(log) } else { None }).collect()
}

fn detached(effects: &Effects<char>) -> String {
    let links = effects.iter().filter_map(|it| if let Effect::Detach(_, links) = it { Some(links) } else { None });
    links.flatten().map(|(.., link)| *link).collect()
}

fn configure(effects: Effects<char>) -> Configure {
    let found = effects.into_iter().find_map(|it| if let Effect::Configure(it) = it { Some(*it) } else { None });
    found.expect("it is to be configured")
}

fn attach(effects: Effects<char>) -> Attach {
    let found = effects.into_iter().find_map(|it| if let Effect::Attach(it) = it { Some(*it) } else { None });
    found.expect("links are to be attached")
}

/// Id and attempt.
fn inspect(effects: &Effects<char>) -> (u32, u32) {
    let found = effects.iter().find_map(|it| match it {
        Effect::Inspect { id, attempt, .. } => Some((*id, *attempt)),
        _ => None,
    });
    found.expect("it is to be inspected")
}

fn links(letters: &str) -> Links<char> {
    letters.chars().map(|letter| (Probe::HttpStart, letter as u64, letter)).collect()
}

fn candidate(process: &Process) -> Candidate {
    Candidate {
        process: process.clone(),
        owner: "/pod".into(),
        placement: None,
        features: HTTP,
        budget: 0.01,
        others: true,
        late: false,
    }
}

fn placement(uid: &str) -> Arc<Placement> {
    Arc::new(Placement {
        namespace: "shop".into(),
        pod: "cart-0".into(),
        uid: uid.into(),
        container: "app".into(),
        image: "app:1".into(),
        workload: None,
        labels: Arc::new([]),
        features: None,
        budget: None,
        routes: Arc::new([]),
    })
}

fn inspected((id, attempt): (u32, u32), process: &Process) -> Inspected {
    Inspected {
        id,
        attempt,
        process: process.clone(),
        verdict: Ok(Arc::new(Inspection::sample(process.id.inode.number))),
        holds: Holds::OfFile,
        changes: BTreeSet::new(),
        may_share: true,
        is_there: true,
        facts: Facts::NONE,
        literals: (0, 0),
    }
}

impl Life {
    fn now(&self) -> Moment {
        let since = Duration::from_secs(self.second);
        Moment { at: self.begun + since, wall: SystemTime::UNIX_EPOCH + since, snapshots_begun: self.snapshots }
    }

    fn seen(&mut self, pid: u32, found: Option<&Process>) -> Effects<char> {
        let now = self.now();
        self.registry.seen(pid, found.cloned(), now)
    }

    fn adopt(&mut self, new: Candidate) -> Effects<char> {
        let now = self.now();
        self.registry.adopt(new, now)
    }

    /// A target whose links are to be attached, or are there.
    fn configured(&mut self, new: Candidate) -> (u32, Effects<char>) {
        let process = new.process.clone();
        let asked = inspect(&self.adopt(new));
        let configure = configure(self.registry.inspected(inspected(asked, &process), 100));
        (asked.0, self.registry.configured(configure, Ok(())))
    }

    fn attached(&mut self, attach: &Attach, links: Result<Links<char>, AttachError>) -> Effects<char> {
        let now = self.now();
        let (id, key, missing) = (attach.id, attach.key, attach.missing);
        self.registry.attached(Attached { id, key, missing, links }, now)
    }

    /// A target with these links.
    fn measured(&mut self, new: Candidate, letters: &str) -> u32 {
        let (id, effects) = self.configured(new);
        let attach = attach(effects);
        self.attached(&attach, Ok(links(letters)));
        assert_eq!(self.stage(id), "measured");
        id
    }

    fn end(&mut self, id: u32, at_once: bool) -> Effects<char> {
        let now = self.now();
        self.registry.end(id, at_once, now)
    }

    fn stage(&self, id: u32) -> &'static str {
        self.registry.targets[&id].stage.name()
    }

    /// Forgets who is over, as of now, if so many snapshots were shown; how many.
    fn bury(&mut self, shown: u64) -> usize {
        let dead = self.registry.targets.over(self.now().at, shown);
        self.registry.forgotten(&dead);
        dead.len()
    }
}
