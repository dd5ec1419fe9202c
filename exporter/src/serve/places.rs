//! Who has a place: which connection gives way where all places are taken, and which has let the agent wait for too long. Knows
//! connections by number, client and for how long they have been waited for; nothing of HTTP or TLS.

mod activity;
mod verdict;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::task::AbortHandle;

pub(crate) use self::activity::{Activity, Asked, Carries};
use self::verdict::{Taken, Verdict, verdict};
use super::turnstile::Turnstile;

/// One in so many places is a client address's share, where others want in.
const CLIENTS: usize = 4;
#[derive(Debug)]
struct Held {
    client: IpAddr,
    activity: Arc<Activity>,
    /// The last sweep found it overdue. If so does the next it is ended: an agent that was kept from its work has not seen yet what
    /// its clients have sent meanwhile.
    noted: bool,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Table {
    fn end(&mut self, number: u64) {
        if let Some(task) = self.held.remove(&number).and_then(|held| held.task) {
            task.abort();
        }
    }
}

/// All places of a server.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    most: usize,
    carries: Carries,
    turnstiles: Option<Turnstiles>,
    table: Arc<Mutex<Table>>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    table: Arc<Mutex<Table>>,
    /// Whose it is.
    pub(crate) client: IpAddr,
    /// What its connection is at.
    pub(crate) activity: Arc<Activity>,
    /// Where it waits for its turn, if anywhere.
    pub(super) turnstiles: Option<Turnstiles>,
}

/// Where clients wait: a node's probes never behind whoever asks anything else.
#[derive(Clone, Debug, Default)]
pub(super) struct Turnstiles {
    probes: Turnstile,
    pub(super) others: Turnstile,
}

impl Place {
    /// Waits until a request on this connection is to be answered, which may be a probe.
    pub(crate) async fn turn(&self, is_probe: bool) {
        if let Some(Turnstiles { probes, others }) = &self.turnstiles
            && self.activity.needs_turn()
        {
            let turnstile = if is_probe { probes } else { others };
            turnstile.clone().pass(self.client).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).held.remove(&self.number);
    }
}

impl Places {
    /// So many, all of them free.
    pub(crate) fn new(most: usize, carries: Carries) -> Self {
        Self { most, carries, turnstiles: None, table: Arc::default() }
    }

    /// With answers in turn, where clients ask without pause.
    pub(crate) fn in_turn(self) -> Self {
        Self { turnstiles: Some(Turnstiles::default()), ..self }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if need be that of another. None where all answers are being made.
    pub(crate) fn take(&self, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let mut table = self.table();
        let taken: Vec<Taken> = table
            .held
            .iter()
            .map(|(number, held)| {
                let waits_since = held.activity.state().waits_since();
                Taken { number: *number, client: held.client, waits_since }
            })
            .collect();
        match verdict(client, &taken, self.most, self.most / CLIENTS) {
            Verdict::Welcome => {}
            Verdict::InsteadOf(number) => table.end(number),
            Verdict::Full => return None,
        }
        let number = table.next;
        table.next += 1;
        let activity = Arc::new(Activity::begun(self.carries));
        table.held.insert(number, Held { client, activity: activity.clone(), noted: false, task: None });
        drop(table);
        Some(Place { number, table: self.table.clone(), client, activity, turnstiles: self.turnstiles.clone() })
    }

    /// Names the task that serves the connection, to be ended when another takes its place.
    pub(crate) fn serve(&self, place: Place, serve: impl FnOnce(Place) -> AbortHandle) {
        let number = place.number;
        let task = serve(place);
        if let Some(held) = self.table().held.get_mut(&number) {
            held.task = Some(task);
        }
    }

    /// Whether nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.table().held.is_empty()
    }

    /// Ends connections whose clients have let the agent wait for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut table = self.table();
        let mut ended = Vec::new();
        for (number, held) in &mut table.held {
            let overdue = held.activity.state().overdue(now);
            if overdue && held.noted {
                ended.push(*number);
            }
            held.noted = overdue;
        }
        for number in ended {
            table.end(number);
        }
    }
}

#[cfg(test)]
mod tests;
