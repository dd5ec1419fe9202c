//! What happens to the agent itself: it stands still, or has another beside it.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::service::{Running, get};

use super::Ring;
use crate::support::{Agent, settles};

fn ask(running: &Running, times: u64) {
    for _ in 0..times {
        get(running.address("http").expect("it listens"), "/hello").expect("it lives");
    }
}

#[test]
fn an_agent_that_stands_still_loses_nothing() {
    let ring = Ring::start(&[]);
    let before = ring.agent.scrape().total(ring.neighbour.pid());
    let signal = |signal| kill(Pid::from_raw(ring.agent.pid() as i32), signal).expect("it runs");
    signal(Signal::SIGSTOP);
    ask(&ring.neighbour, 500);
    signal(Signal::SIGCONT);
    settles("each is counted", &(before + 500), || ring.agent.scrape().total(ring.neighbour.pid()));
    assert_eq!(ring.agent.scrape().lost(), Vec::<String>::new());
    ring.is_unharmed();
}

#[test]
fn two_agents_count_the_same() {
    let ring = Ring::start(&[]);
    let pid = ring.neighbour.pid();
    let second = Agent::measuring(pid, &[]);
    let before = ring.agent.scrape().total(pid);
    ask(&ring.neighbour, 200);
    settles("the second's", &200, || second.scrape().total(pid));
    settles("the first's", &(before + 200), || ring.agent.scrape().total(pid));
    second.stop();
    // Its probes were at the same places.
    ring.is_unharmed();
}
