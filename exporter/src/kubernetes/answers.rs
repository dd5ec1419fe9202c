//! What the API server said of tokens, and who may have it asked again: strangers can neither make it work nor have answers
//! forgotten that others need. Knows tokens by keyed hashes alone.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::review::Access;
use crate::allowance::Allowance;

/// How long an answer holds: kube-rbac-proxy and kubelets keep theirs for 10 s to 2 min.
const HOLDS: Duration = Duration::from_mins(1);
/// For how long a token that was good is asked about without counting: longer than the intervals of scrapes.
const FAMILIAR: Duration = Duration::from_hours(1);
/// Answers kept, of good tokens and of others each.
const MOST: usize = 256;
/// Clients that are remembered for asking with tokens that were not good.
const CLIENTS: usize = 256;
/// What each may ask at once with such tokens; one more each second.
const TRIES: Allowance = Allowance::new(10, Duration::from_secs(1));

/// A token and a path.
pub(super) type Key = (u64, u64);

/// Whether the API server may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// The token was good a while ago.
    Again,
    /// It is one more unknown token of this client.
    Anew,
    /// It would be one too many.
    TooMany,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Apart from the others, of which anyone can make as many as he likes.
    good: HashMap<Key, Instant>,
    others: HashMap<Key, (Instant, Access)>,
    tries: HashMap<IpAddr, Allowance>,
}

impl Answers {
    /// What was said, if that still holds.
    pub(super) fn known(&self, key: Key, now: Instant) -> Option<Access> {
        let holds = |at: Instant| now.saturating_duration_since(at) < HOLDS;
        let good = self.good.get(&key).filter(|at| holds(**at)).map(|_| Access::Granted);
        good.or_else(|| self.others.get(&key).filter(|(at, _)| holds(*at)).map(|(_, access)| *access))
    }

    /// Whether to ask; counts where it is the client's fault.
    pub(super) fn ask(&mut self, key: Key, client: IpAddr, now: Instant) -> Asking {
        if self.good.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < FAMILIAR) {
            return Asking::Again;
        }
        // Who has tried least is forgotten for a newcomer: many addresses may make more tries, but lock nobody out.
        if self.tries.len() >= CLIENTS
            && !self.tries.contains_key(&client)
            && let Some(least) = self.tries.iter().min_by_key(|(_, it)| it.whole_at()).map(|(client, _)| *client)
        {
            self.tries.remove(&least);
        }
        match self.tries.entry(client).or_insert(TRIES).take(now) {
            Ok(()) => Asking::Anew,
            Err(_) => Asking::TooMany,
        }
    }

    /// Remembers what was said.
    pub(super) fn keep(&mut self, key: Key, client: IpAddr, asked: Asking, access: Access, now: Instant) {
        if access == Access::Granted {
            insert(&mut self.good, key, now, |at| *at);
            self.others.remove(&key);
            if asked == Asking::Anew
                && let Some(tries) = self.tries.get_mut(&client)
            {
                tries.give_back(now);
            }
        } else {
            self.good.remove(&key);
            insert(&mut self.others, key, (now, access), |(at, _)| *at);
        }
    }
}

/// Inserts, in the place of the oldest where there are [`MOST`].
fn insert<K: Copy + Eq + Hash, V>(into: &mut HashMap<K, V>, key: K, value: V, at: impl Fn(&V) -> Instant) {
    if into.len() >= MOST
        && !into.contains_key(&key)
        && let Some(oldest) = into.iter().min_by_key(|(_, value)| at(value)).map(|(key, _)| *key)
    {
        into.remove(&oldest);
    }
    into.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Key = (0, 0);

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn wrong_tokens_push_no_good_one_out() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        assert_eq!(answers.ask(GOOD, client(1), now), Asking::Anew);
        answers.keep(GOOD, client(1), Asking::Anew, Access::Granted, now);
        for wrong in 1..=10 * MOST as u64 {
            let at = now + Duration::from_millis(wrong);
            let access = if wrong % 2 == 0 { Access::Unknown } else { Access::Denied };
            answers.keep((wrong, wrong), client(2), Asking::Anew, access, at);
        }
        assert_eq!(answers.known(GOOD, now + HOLDS / 2), Some(Access::Granted));
        assert_eq!((answers.good.len(), answers.others.len()), (1, MOST));
        let last = 10 * MOST as u64;
        assert_eq!(answers.known((last, last), now), Some(Access::Unknown));
        assert_eq!(answers.known((1, 1), now), None, "the oldest went");
        // Its owner is asked about again, however many tries others have made.
        assert_eq!(answers.known(GOOD, now + HOLDS), None);
        assert_eq!(answers.ask(GOOD, client(1), now + HOLDS), Asking::Again);
        assert_ne!(answers.ask(GOOD, client(1), now + FAMILIAR), Asking::Again);
    }

    #[test]
    fn a_client_has_some_tries_and_good_tokens_cost_none() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let mut asked = |key: u64, by: u8, access| {
            let asking = answers.ask((key, key), client(by), now);
            if asking != Asking::TooMany {
                answers.keep((key, key), client(by), asking, access, now);
            }
            asking
        };
        assert!((1..100).all(|key| asked(key, 1, Access::Granted) == Asking::Anew));
        let tries = (100..200).filter(|key| asked(*key, 2, Access::Unknown) == Asking::Anew).count();
        assert_eq!(tries, 10);
        // Somebody else is not held up, and who was gets another try a second later.
        assert_eq!(asked(300, 1, Access::Unknown), Asking::Anew);
        assert_eq!(answers.ask((301, 301), client(2), now), Asking::TooMany);
        assert_eq!(answers.ask((301, 301), client(2), now + Duration::from_secs(1)), Asking::Anew);
    }

    #[test]
    fn a_token_that_is_good_no_more_is_a_strangers() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(GOOD, client(1), Asking::Anew, Access::Granted, now);
        answers.keep(GOOD, client(1), Asking::Again, Access::Unknown, now + HOLDS);
        assert_eq!(answers.known(GOOD, now + HOLDS), Some(Access::Unknown));
        assert_eq!(answers.ask(GOOD, client(1), now + 2 * HOLDS), Asking::Anew);
    }

    #[test]
    fn who_has_tried_least_is_forgotten_for_a_newcomer() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        for by in 0..=255 {
            let tries = if by == 7 { 1 } else { 10 };
            assert!((0..tries).all(|_| answers.ask((1, 1), client(by), now) == Asking::Anew));
        }
        let newcomer = IpAddr::from([10, 0, 1, 0]);
        assert_eq!(answers.ask((1, 1), newcomer, now), Asking::Anew);
        assert!(!answers.tries.contains_key(&client(7)));
        assert_eq!(answers.tries.len(), CLIENTS);
        assert_eq!(answers.ask((1, 1), client(8), now), Asking::TooMany);
    }
}
