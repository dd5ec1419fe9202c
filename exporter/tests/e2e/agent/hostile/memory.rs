//! A program that lies about its own runtime, in its own memory: what it says is bounded or refused, and costs its own figures
//! alone.

use std::process::Command;

use serde_json::Value;
use xtask::{exposition, service::get, util};

use super::Ring;
use crate::support::{agent::binary, service, settles};

/// Addresses of the hostile program's runtime variables: it is not position independent.
fn variable(name: &str) -> u64 {
    let printed = util::output(Command::new(binary()).args(["inspect", "--json"]).arg(service("hostile")));
    let inspection: Value = serde_json::from_str(&printed.expect("it can be inspected")).expect("it is JSON");
    inspection["variables"][name].as_u64().unwrap_or_else(|| panic!("{name}: {inspection}"))
}

impl Ring {
    /// Lets the program say something else in a word of its memory.
    pub(crate) fn poke(&self, name: &str, value: &str) {
        let said = self.ask(&format!("/poke?address={}&value={}", variable(name), value.trim()));
        assert_eq!(said.trim(), "done", "{name} {value}");
    }

    /// Samples of a name that are the program's: the hostile one's and the neighbour's.
    fn samples(&self, name: &str) -> (usize, usize) {
        let text = get(self.agent.address, "/metrics").expect("/metrics answers");
        let of = |pid: u32| {
            let pid = pid.to_string();
            let all = exposition::parse(&text).into_iter();
            all.filter(|it| it.name == name && it.label("instance_pid") == pid).count()
        };
        (of(self.hostile.pid()), of(self.neighbour.pid()))
    }

    fn reads(&self, outcome: &str) -> f64 {
        let text = get(self.agent.address, "/metrics").expect("/metrics answers");
        let all = exposition::parse(&text).into_iter();
        all.filter(|it| it.name == "exporter_runtime_reads_total" && it.label("outcome") == outcome)
            .map(|it| it.value)
            .sum()
    }
}

#[test]
fn a_program_that_says_it_has_2_to_the_62_goroutines() {
    let ring = Ring::start(&[]);
    settles("both have goroutines", &(1, 1), || ring.samples("go_goroutines"));
    let page = ring.ask("/page");
    ring.poke("runtime.allgptr", &page);
    ring.poke("runtime.allglen", &(1_u64 << 62).to_string());
    settles("the lie is not shown", &(0, 1), || ring.samples("go_goroutines"));
    assert!(ring.reads("absurd") > 0.0);
    // What /proc says of it is.
    assert_eq!(ring.samples("process_open_fds"), (1, 1));
    ring.is_unharmed();
    // As many as there can be, in memory that is not there: the walk ends, and shows nothing.
    ring.poke("runtime.allglen", &(1_u64 << 32).to_string());
    settles("a lie that could be true is shown", &(1, 1), || ring.samples("go_goroutines"));
    settles("nobody waits in what is not there", &(0, 1), || ring.samples("exporter_target_goroutine_walk_ratio"));
    ring.is_unharmed();
}

#[test]
fn a_program_whose_memory_never_answers() {
    let ring = Ring::start(&[]);
    settles("both have goroutines", &(1, 1), || ring.samples("go_goroutines"));
    let page = ring.ask("/silent");
    if page.contains("userfaultfd") {
        println!("    left out: {page}");
        return;
    }
    ring.poke("runtime.allgptr", &page);
    settles("who does not answer is left out", &(0, 1), || ring.samples("go_goroutines"));
    assert!(ring.reads("slow") > 0.0);
    ring.is_unharmed();
    // Its counts do not depend on its memory's answer.
    let before = ring.agent.scrape().total(ring.hostile.pid());
    ring.ask("/hello");
    settles("its requests", &(before + 1), || ring.agent.scrape().total(ring.hostile.pid()));
    assert_eq!(ring.samples("go_goroutines"), (0, 1));
}
