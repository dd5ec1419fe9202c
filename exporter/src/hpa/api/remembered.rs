//! Answers of the API server, remembered for a moment: one that has been remembered for long is given once more while it is asked for
//! anew, so that who asks again and again never waits. Knows nothing of what is asked.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Answers kept.
const MOST: usize = 4096;

/// Answers by what was asked.
pub(super) struct Remembered<K, V> {
    /// For how long an answer holds; for as long again it is given out while it is asked for anew.
    kept: Duration,
    answers: Mutex<HashMap<K, Known<V>>>,
}

struct Known<V> {
    at: Instant,
    answer: V,
    /// Somebody was told to ask anew.
    asked: bool,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory<V> {
    /// It holds.
    Fresh(V),
    /// It holds, and whoever is told this asks anew, without waiting: nobody else is told so.
    Due(V),
    /// It held once.
    Old(V),
    Nothing,
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    /// Nothing is known yet.
    pub(super) fn new(kept: Duration) -> Self {
        Self { kept, answers: Mutex::default() }
    }

    pub(super) fn look(&self, key: &K, now: Instant) -> Memory<V> {
        let mut answers = self.lock();
        let Some(known) = answers.get_mut(key) else { return Memory::Nothing };
        let age = now.saturating_duration_since(known.at);
        let answer = known.answer.clone();
        if age < self.kept || (age < 2 * self.kept && std::mem::replace(&mut known.asked, true)) {
            Memory::Fresh(answer)
        } else if age < 2 * self.kept {
            Memory::Due(answer)
        } else {
            Memory::Old(answer)
        }
    }

    pub(super) fn note(&self, key: K, answer: V, now: Instant) {
        let mut answers = self.lock();
        if answers.len() >= MOST {
            answers.retain(|_, known| now.saturating_duration_since(known.at) < 2 * self.kept);
        }
        if answers.len() < MOST || answers.contains_key(&key) {
            answers.insert(key, Known { at: now, answer, asked: false });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Known<V>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_asked_for_anew_by_one_while_it_is_given_to_all() {
        let kept = Duration::from_secs(10);
        let remembered = Remembered::new(kept);
        let begun = Instant::now();
        let at = |seconds: u64| remembered.look(&"a", begun + Duration::from_secs(seconds));
        assert_eq!(at(0), Memory::Nothing);
        remembered.note("a", 1, begun);
        assert_eq!(
            [at(0), at(9), at(10), at(11), at(19)].map(|it| format!("{it:?}")),
            ["Fresh(1)", "Fresh(1)", "Due(1)", "Fresh(1)", "Fresh(1)"]
        );
        assert_eq!(at(20), Memory::Old(1), "nobody has asked, or there was no answer");
        remembered.note("a", 2, begun + Duration::from_secs(20));
        assert_eq!((at(29), at(30)), (Memory::Fresh(2), Memory::Due(2)));
    }

    #[test]
    fn no_more_is_kept_than_so_many() {
        let remembered = Remembered::new(Duration::from_secs(10));
        let begun = Instant::now();
        (0..2 * MOST).for_each(|key| remembered.note(key, (), begun));
        assert_eq!(remembered.lock().len(), MOST);
        remembered.note(0, (), begun + Duration::from_secs(15));
        assert_eq!(remembered.look(&0, begun + Duration::from_secs(15)), Memory::Fresh(()));
        remembered.note(2 * MOST, (), begun + Duration::from_secs(22));
        assert_eq!(remembered.lock().len(), 2);
    }
}
