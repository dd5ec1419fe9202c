//! Which connection gives way where all places are taken. Pure.

use std::{net::IpAddr, time::Instant};

/// A connection as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) client: IpAddr,
    pub(super) waits_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome,
    InsteadOf(u64),
    Full,
}

/// Who gives way to a newcomer. Those that wait for their client go first, and of them who has been waited for longest; clients
/// with more than their share go before others, in the end with answers that are being made. Who has a share takes from itself.
pub(super) fn verdict(newcomer: IpAddr, taken: &[Taken], places: usize, share: usize) -> Verdict {
    if taken.len() < places {
        return Verdict::Welcome;
    }
    let held = |client: IpAddr| taken.iter().filter(|it| it.client == client).count();
    let longest = |among: &dyn Fn(&Taken) -> bool| {
        let waiting = taken.iter().filter(|it| among(it)).filter_map(|it| Some((it.waits_since?, it.number)));
        waiting.min().map(|(_, number)| number)
    };
    let found = if held(newcomer) >= share {
        longest(&|it| it.client == newcomer)
    } else {
        let greedy = |it: &Taken| held(it.client) > share;
        longest(&greedy)
            .or_else(|| longest(&|_| true))
            .or_else(|| taken.iter().filter(|it| greedy(it)).map(|it| it.number).max())
    };
    found.map_or(Verdict::Full, Verdict::InsteadOf)
}
