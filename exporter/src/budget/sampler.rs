//! When probes are attached, so that on average they cost no more than they may. All is counted in units of the limit: a
//! second that passes earns one second of it, and probes that cost three times the limit spend three a second.

use std::time::Duration;

/// Time between two windows in which probes are attached, where one is enough. Long, since attaching and detaching cost
/// something too; short against the time that a rate in Prometheus spans.
const PERIOD: Duration = Duration::from_secs(10);
/// How soon it is looked for the first time what the probes cost.
const TRIAL: Duration = Duration::from_millis(100);
/// A shorter window sees too little of what waits.
const SHORTEST: Duration = Duration::from_millis(20);
/// What quiet times may save up: a load that begins all at once is noticed within a second, and must not be paid for longer.
const SAVED: Duration = Duration::from_secs(1);
/// Less than this share of the limit is idle.
pub(crate) const QUIET: f64 = 0.02;
/// The probes stay attached while they cost less than this share of the limit.
const COMFORTABLE: f64 = 0.8;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turn {
    /// Attach, and stay attached while [`Sampler::can_stay`].
    Full,
    /// Wait, then attach for so long.
    Window { wait: Duration, open: Duration },
}

/// The decisions for one set of probes.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    /// What may be spent; below zero, what is owed. Seconds of the limit.
    purse: f64,
    /// What the probes cost while they are attached, in limits; none before the first look.
    burn: Option<f64>,
    /// How long they were attached before that is known, and what they spent.
    tried: (Duration, f64),
}

impl Sampler {
    /// Nothing known and nothing saved.
    pub(crate) fn new() -> Self {
        Self { purse: 0.0, burn: None, tried: (Duration::ZERO, 0.0) }
    }

    /// Time has passed in which the probes spent so many seconds of the limit.
    pub(crate) fn passed(&mut self, time: Duration, spent: f64) {
        self.purse += time.as_secs_f64() - spent;
    }

    /// What the probes cost while they were last attached.
    pub(crate) fn burned(&mut self, attached: Duration, spent: f64) {
        if !attached.is_zero() {
            self.burn = Some(spent / attached.as_secs_f64());
        }
    }

    /// Time has passed in which the probes were attached throughout. Whoever joins has that looked at sooner: what they cost is known
    /// after so many looks that they make up a trial, or that the purse is empty.
    pub(crate) fn stayed(&mut self, time: Duration, spent: f64) {
        self.passed(time, spent);
        if self.burn.is_some() {
            if time >= TRIAL {
                self.burned(time, spent);
            }
            return;
        }
        self.tried = (self.tried.0 + time, self.tried.1 + spent);
        if self.tried.0 >= TRIAL || self.purse < 0.0 {
            self.burned(self.tried.0, self.tried.1);
        }
    }

    /// Whether probes that are attached all the time may remain.
    pub(crate) fn can_stay(&mut self) -> bool {
        self.purse = self.purse.min(SAVED.as_secs_f64());
        self.purse >= 0.0
    }

    /// How soon to look what the probes cost, where that is not known yet.
    pub(crate) fn trial(&self) -> Option<Duration> {
        self.burn.is_none().then_some(TRIAL)
    }

    /// Whether the program is idle, so that nothing need be asked until that changes.
    pub(crate) fn is_quiet(&self) -> bool {
        self.burn.is_some_and(|burn| burn < QUIET)
    }

    /// What to do while the probes are detached. `random` is from 0 to 1: windows at even distances would see nothing of what
    /// happens between them in step.
    pub(crate) fn turn(&self, random: f64) -> Turn {
        // Most programs are idle: what is attached to see that can remain.
        let Some(burn) = self.burn else { return Turn::Full };
        if burn <= COMFORTABLE && self.purse >= 0.0 {
            return Turn::Full;
        }
        let open = (PERIOD.as_secs_f64() / burn.max(1.0)).max(SHORTEST.as_secs_f64());
        let short = (burn * open - self.purse).max(0.0);
        Turn::Window {
            wait: Duration::from_secs_f64(short * (0.75 + 0.5 * random)),
            open: Duration::from_secs_f64(open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a sampler against probes that cost `burn` limits while attached; the share of time they are attached, and what
    /// they cost on average.
    fn simulate(burn: f64, seconds: f64) -> (f64, f64) {
        let mut sampler = Sampler::new();
        let (mut now, mut attached, mut random) = (0.0, 0.0, 0.5);
        while now < seconds {
            random = (random * 97.3_f64 + 0.137).fract();
            let (wait, open) = match sampler.turn(random) {
                Turn::Full => (0.0, sampler.trial().map_or(1.0, |trial| trial.as_secs_f64())),
                Turn::Window { wait, open } => (wait.as_secs_f64(), open.as_secs_f64()),
            };
            sampler.passed(Duration::from_secs_f64(wait), 0.0);
            sampler.passed(Duration::from_secs_f64(open), open * burn);
            sampler.burned(Duration::from_secs_f64(open), open * burn);
            sampler.can_stay();
            now += wait + open;
            attached += open;
        }
        (attached / now, attached * burn / now)
    }

    #[test]
    fn light_load_is_measured_in_full() {
        for burn in [0.0, 0.01, 0.5, 0.79] {
            assert!(simulate(burn, 100.0).0 > 0.99, "{burn}");
        }
    }

    #[test]
    fn what_is_not_known_is_tried_for_a_moment() {
        let mut sampler = Sampler::new();
        assert_eq!((sampler.turn(0.5), sampler.trial()), (Turn::Full, Some(TRIAL)));
        sampler.passed(TRIAL, 5.0);
        sampler.burned(TRIAL, 5.0);
        assert!(!sampler.can_stay() && sampler.trial().is_none());
        assert!(matches!(sampler.turn(0.5), Turn::Window { .. }));
    }

    #[test]
    fn who_is_looked_at_again_and_again_before_a_trial_is_over_is_sampled_too() {
        let mut sampler = Sampler::new();
        while sampler.can_stay() {
            sampler.stayed(Duration::from_millis(5), 0.1);
        }
        let Turn::Window { wait, open } = sampler.turn(0.5) else { panic!("it is attached again at once") };
        assert!(wait + open > Duration::from_secs(1), "{wait:?} {open:?}");
        let mut idle = Sampler::new();
        for _ in 0..30 {
            idle.stayed(Duration::from_millis(5), 0.0);
        }
        assert!(idle.is_quiet());
    }

    #[test]
    fn heavy_load_is_sampled_within_the_limit() {
        for burn in [0.9, 1.5, 10.0, 100.0, 1000.0] {
            let (share, cost) = simulate(burn, 3000.0);
            assert!(cost < 1.05, "{burn} times the limit: costs {cost}");
            assert!(share > 0.0 && share < 1.0, "{burn} times the limit: attached for {share} of the time");
        }
    }

    #[test]
    fn a_burst_is_paid_back() {
        let mut sampler = Sampler::new();
        sampler.burned(Duration::from_secs(1), 0.1);
        sampler.passed(Duration::from_secs(1), 101.0);
        sampler.burned(Duration::from_secs(1), 101.0);
        assert!(!sampler.can_stay());
        let Turn::Window { wait, .. } = sampler.turn(0.5) else { panic!("it stays attached") };
        assert!(wait > Duration::from_secs(90), "{wait:?}");
    }

    #[test]
    fn a_load_after_quiet_times_is_paid_for_no_longer_than_until_it_is_noticed() {
        for burn in [3.0, 20.0] {
            let mut sampler = Sampler::new();
            sampler.passed(Duration::from_hours(1), 0.0);
            assert!(sampler.can_stay());
            sampler.passed(Duration::from_secs(1), burn);
            assert!(!sampler.can_stay(), "{burn} times the limit");
        }
    }
}
