//! How often something may be done: a few times at once, and again one by one as time passes. Knows nothing of what.

use std::time::{Duration, Instant};

/// What is left of a number of times, of which one comes back after each of `every`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    most: u32,
    every: Duration,
    /// When all are back.
    whole: Option<Instant>,
}

impl Allowance {
    /// All are there.
    pub(crate) const fn new(most: u32, every: Duration) -> Self {
        Self { most, every, whole: None }
    }

    fn missing(&self, now: Instant) -> Duration {
        self.whole.map_or(Duration::ZERO, |whole| whole.saturating_duration_since(now))
    }

    /// Takes one; where there is none, how long until there is.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let missing = self.missing(now);
        let wait = (missing + self.every).saturating_sub(self.every * self.most);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.whole = Some(now + missing + self.every);
        Ok(())
    }

    /// Puts back one that was taken.
    pub(crate) fn give_back(&mut self, now: Instant) {
        self.whole = Some(now + self.missing(now).saturating_sub(self.every));
    }

    /// When all are there again; the sooner the more are left.
    pub(crate) fn whole_at(&self) -> Option<Instant> {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_and_then_one_by_one() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut allowance = Allowance::new(3, 10 * second);
        assert_eq!(allowance.whole_at(), None);
        assert_eq!([0; 3].map(|_| allowance.take(start)), [Ok(()); 3]);
        assert_eq!(allowance.take(start), Err(10 * second));
        assert_eq!(allowance.take(start + 4 * second), Err(6 * second), "asking costs nothing");
        assert_eq!(allowance.take(start + 10 * second), Ok(()));
        assert_eq!(allowance.take(start + 10 * second), Err(10 * second));
        allowance.give_back(start + 10 * second);
        assert_eq!(allowance.take(start + 10 * second), Ok(()));
        assert_eq!(allowance.whole_at(), Some(start + 40 * second));
        // After a rest there are as many as at first, and not more.
        let later = start + 1000 * second;
        assert_eq!([0; 4].map(|_| allowance.take(later).is_ok()), [true, true, true, false]);
    }
}
