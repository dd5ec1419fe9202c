//! How often something may be done, a few times at once and again one by one as time passes; and the same of CPU time that may be
//! spent. Knows nothing of what for.

use std::time::{Duration, Instant};

use nix::time::ClockId;

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

/// CPU time that may be spent: some at once, and again a share of the time that passes. What something costs is known once it is
/// done: it may begin while anything is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spending {
    at_once: Duration,
    one_in: u32,
    /// When all is back.
    whole: Option<Instant>,
}

impl Spending {
    /// Nothing is spent yet. One part of so many of the time that passes comes back.
    pub(crate) const fn new(at_once: Duration, one_in: u32) -> Self {
        Self { at_once, one_in, whole: None }
    }

    /// How long until something may begin.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let missing = self.whole.map_or(Duration::ZERO, |whole| whole.saturating_duration_since(now));
        missing.saturating_sub(self.at_once * self.one_in)
    }

    /// Something has taken so much.
    pub(crate) fn spend(&mut self, cost: Duration, now: Instant) {
        self.whole = Some(self.whole.map_or(now, |whole| whole.max(now)) + cost * self.one_in);
    }

    /// Less was taken than that.
    pub(crate) fn give_back(&mut self, cost: Duration) {
        self.whole = self.whole.and_then(|whole| whole.checked_sub(cost * self.one_in));
    }

    /// Whether all is there.
    pub(crate) fn is_whole(&self, now: Instant) -> bool {
        self.whole.is_none_or(|whole| whole <= now)
    }
}

/// CPU time that this thread has taken so far.
pub(crate) fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_is_spent_at_once_and_then_a_share_of_the_time() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut spending = Spending::new(ms(100), 20);
        assert!(spending.is_whole(start));
        for _ in 0..6 {
            assert_eq!(spending.wait(start), Duration::ZERO);
            spending.spend(ms(20), start);
        }
        // 120 are spent, of which 20 come back in 400.
        assert_eq!(spending.wait(start), ms(400));
        assert_eq!(spending.wait(start + ms(300)), ms(100), "asking costs nothing");
        assert_eq!(spending.wait(start + ms(400)), Duration::ZERO);
        assert!(!spending.is_whole(start + ms(2399)) && spending.is_whole(start + ms(2400)));
        spending.give_back(ms(10));
        assert_eq!(spending.wait(start), ms(200));
        // After a rest there is as much as at first, and not more.
        let later = start + Duration::from_hours(1);
        spending.spend(ms(101), later);
        assert_eq!(spending.wait(later), ms(20));
    }

    #[test]
    fn the_time_of_a_thread_is_its_own() {
        let before = cpu_time();
        std::thread::spawn(|| while cpu_time() < Duration::from_millis(50) {}).join().expect("it ends");
        assert!(cpu_time() - before < Duration::from_millis(50));
        while cpu_time() == before {}
    }

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
