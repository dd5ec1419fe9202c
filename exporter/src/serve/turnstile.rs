//! Who is answered at once, and who in a later beat: clients that ask without pause would otherwise decide how much CPU time this
//! process takes. A few hundred are answered at once; past that some in each beat, those first whose address has asked least.
//! Knows nothing of what is asked.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::allowance::Allowance;

/// What is answered at once: some at one time, and a hundred each second. Scrapes and probes of a node are some in a second.
const AT_ONCE: Allowance = Allowance::new(200, Duration::from_millis(10));
/// Between the times at which some of those that wait are let through: half of the time in which a probe should have its answer.
const BEAT: Duration = Duration::from_millis(40);
/// How many each time. An answer costs some 50 us.
const OF_A_BEAT: usize = 20;
/// How many wait at most. One more, and another goes at once: who opens connections without waiting for answers would else keep
/// others out for longer.
const WAITING: usize = 192;
/// By so much an address that asks once comes behind others.
const ONCE: Duration = Duration::from_secs(1);
/// Addresses of which it is known how much they have asked.
const CLIENTS: usize = 1024;

/// Lets through who asks, in turn. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Turnstile(Arc<Mutex<Queue<oneshot::Sender<()>>>>);

impl Default for Turnstile {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Queue::new())))
    }
}

impl Turnstile {
    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this client's turn.
    pub(crate) async fn pass(self, client: IpAddr) {
        let turn = {
            let mut queue = self.queue();
            if queue.passes(client, Instant::now()) {
                return;
            }
            let (go, turn) = oneshot::channel();
            let (is_first, instead) = queue.wait(client, go);
            if is_first {
                tokio::spawn(self.clone().beat());
            }
            let _ = instead.map(|other| other.send(()));
            turn
        };
        let _ = turn.await;
    }

    /// Lets through those that wait, until none does.
    async fn beat(self) {
        loop {
            tokio::time::sleep(BEAT).await;
            let (next, is_over) = {
                let mut queue = self.queue();
                // Who has gone away takes no turn.
                queue.waiting.retain(|_, it| !it.of.is_closed());
                (queue.next(), queue.waiting.is_empty())
            };
            for it in next {
                let _ = it.send(());
            }
            if is_over {
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Waiting<T> {
    client: IpAddr,
    of: T,
}

/// Who waits, and how much each address has asked.
#[derive(Debug)]
struct Queue<T> {
    at_once: Allowance,
    number: u64,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// By address, the time at which what it asked is forgotten: the later, the more it has asked.
    asked: HashMap<IpAddr, Instant>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { at_once: AT_ONCE, number: 0, waiting: BTreeMap::new(), asked: HashMap::new() }
    }

    /// Whether a client is answered at once.
    fn passes(&mut self, client: IpAddr, now: Instant) -> bool {
        self.note(network(client), now);
        self.waiting.is_empty() && self.at_once.take(now).is_ok()
    }

    fn note(&mut self, client: IpAddr, now: Instant) {
        if self.asked.len() >= CLIENTS && !self.asked.contains_key(&client) {
            self.asked.retain(|_, until| *until > now);
            let least = self.asked.iter().min_by_key(|(_, until)| **until).map(|(client, _)| *client);
            if self.asked.len() >= CLIENTS
                && let Some(least) = least
            {
                self.asked.remove(&least);
            }
        }
        let until = self.asked.entry(client).or_insert(now);
        *until = (*until).max(now) + ONCE;
    }

    /// One that does not pass at once waits. Whether it is the only one, and who goes instead where too many wait.
    fn wait(&mut self, client: IpAddr, of: T) -> (bool, Option<T>) {
        let instead = if self.waiting.len() >= WAITING { self.take(1).pop() } else { None };
        self.number += 1;
        self.waiting.insert(self.number, Waiting { client: network(client), of });
        (self.waiting.len() == 1, instead)
    }

    /// Those that are let through in a beat.
    fn next(&mut self) -> Vec<T> {
        self.take(OF_A_BEAT)
    }

    /// So many of those whose addresses have asked least, the first that came first.
    fn take(&mut self, most: usize) -> Vec<T> {
        let asked = |client: &IpAddr| self.asked.get(client).copied();
        let mut order: Vec<_> = self.waiting.iter().map(|(number, it)| (asked(&it.client), *number)).collect();
        order.sort_unstable();
        let numbers = order.into_iter().take(most).map(|(_, number)| number);
        numbers.filter_map(|number| self.waiting.remove(&number)).map(|it| it.of).collect()
    }
}

/// Whose address it is: one client may have as many of IPv6 as it likes in its /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// A client asks so often at one time; what waits of it.
    fn ask(queue: &mut Queue<u8>, client: u8, times: usize, now: Instant) -> usize {
        let before = queue.waiting.len();
        for _ in 0..times {
            if !queue.passes(address(client), now) {
                assert!(queue.wait(address(client), client).1.is_none());
            }
        }
        queue.waiting.len() - before
    }

    #[test]
    fn some_hundreds_pass_and_then_some_in_a_beat() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        assert_eq!(ask(&mut queue, 1, 200, now), 0);
        assert_eq!(ask(&mut queue, 1, 60, now), 60);
        // While some wait nobody overtakes them but in a beat.
        assert_eq!(ask(&mut queue, 2, 1, now + Duration::from_mins(1)), 1);
        let beats: Vec<usize> = (0..4).map(|_| queue.next().len()).collect();
        assert_eq!(beats, [OF_A_BEAT, OF_A_BEAT, OF_A_BEAT, 1]);
        assert_eq!(ask(&mut queue, 1, 200, now + Duration::from_mins(1)), 0);
    }

    #[test]
    fn who_asks_in_reason_never_waits() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        assert!((0..10_000).all(|i| ask(&mut queue, (i % 7) as u8, 1, start + i * Duration::from_millis(10)) == 0));
    }

    #[test]
    fn those_that_asked_least_are_first() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        ask(&mut queue, 1, 390, now);
        assert_eq!(ask(&mut queue, 2, 1, now), 1);
        let next = queue.next();
        assert_eq!((next.len(), next[0]), (OF_A_BEAT, 2));
        assert!(next[1..].iter().all(|it| *it == 1));
    }

    #[test]
    fn where_too_many_wait_another_goes_at_once() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        ask(&mut queue, 1, 200 + WAITING, now);
        assert!(!queue.passes(address(2), now));
        assert_eq!(queue.wait(address(2), 2), (false, Some(1)));
        assert!(!queue.passes(address(1), now));
        assert_eq!(
            queue.wait(address(1), 1),
            (false, Some(2)),
            "who asked least, though the other has waited for longer"
        );
        assert_eq!(queue.waiting.len(), WAITING);
    }

    #[test]
    fn addresses_without_end_take_no_room_without_end() {
        let (mut queue, now) = (Queue::<u8>::new(), Instant::now());
        for i in 0..10_000_u32 {
            queue.note(IpAddr::from(i.to_be_bytes()), now);
        }
        assert_eq!(queue.asked.len(), CLIENTS);
        queue.note(address(1), now + 2 * ONCE);
        assert_eq!(queue.asked.len(), 1, "what was asked is forgotten");
    }

    #[test]
    fn addresses_of_one_client_are_one() {
        let of = |text: &str| network(text.parse().expect("it is an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), address(1));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_let_through_in_the_end() {
        let turnstile = Turnstile::default();
        let all: Vec<_> = (0..1000).map(|_| tokio::spawn(turnstile.clone().pass(address(1)))).collect();
        for it in all {
            it.await.expect("it passes");
        }
        assert!(turnstile.queue().waiting.is_empty());
        // Who goes away while it waits takes no turn.
        let gone: Vec<_> = (0..100).map(|_| tokio::spawn(turnstile.clone().pass(address(1)))).collect();
        tokio::task::yield_now().await;
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        turnstile.clone().pass(address(2)).await;
        assert!(turnstile.queue().waiting.is_empty());
    }
}
