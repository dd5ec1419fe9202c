use super::*;
use crate::target::{Change, Disabled, Feature, Part};

fn gone() -> AttachError {
    AttachError::Gone { probe: Probe::HttpStart }
}

fn refused() -> AttachError {
    AttachError::Refused { probe: Probe::HttpStart, reason: "no".into() }
}

#[test]
fn an_inspected_target_is_configured_before_links_are_attached() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let outcome =
        Inspected { literals: (0x1000, 7), facts: Facts { last_gc: 5, ..Facts::NONE }, ..inspected(asked, &process) };
    let effects = life.registry.inspected(outcome, 100);
    assert_eq!(kinds(&effects), ["configure"]);
    let configure = configure(effects);
    let config = configure.config;
    assert_eq!((config.pid, config.id, config.max_routes), (10, asked.0, 100));
    assert_eq!((config.literals_from, config.literals_len, configure.facts.last_gc), (0x1000, 7, 5));
    assert_eq!(life.stage(asked.0), "preparing");
}

#[test]
fn the_kernel_side_is_told_what_is_wanted_of_a_target() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(Candidate { features: Features::NONE.with(Feature::Stw), ..candidate(&process) }));
    let configure = configure(life.registry.inspected(inspected(asked, &process), 100));
    assert_eq!(configure.config.on, Feature::Stw.bit());
}

#[test]
fn an_attached_target_is_measured() {
    let mut life = life();
    let (id, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let attach = attach(effects);
    assert_eq!((attach.id, attach.missing.had, attach.missing.features), (id, Features::NONE, HTTP));
    let effects = life.attached(&attach, Ok(links("ab")));
    assert_eq!(kinds(&effects), ["joined", "blocking", "scheduler"]);
    assert!(matches!(logs(&effects)[..], [Log::Measured { pid: 10, .. }]));
    assert_eq!(life.stage(id), "measured");
}

#[test]
fn what_nothing_can_be_measured_of_is_refused() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let mut nothing = Inspection::sample(1);
    for part in [Part::Http1Server, Part::Http2Server, Part::XnetHttp2Server] {
        nothing.disabled.push(Disabled { part, reason: "no server".into() });
    }
    let effects =
        life.registry.inspected(Inspected { verdict: Ok(Arc::new(nothing)), ..inspected(asked, &process) }, 1);
    assert_eq!(kinds(&effects), [""; 0]);
    assert!(matches!(logs(&effects)[..], [Log::NotMeasured { reason, .. }] if reason == "no server"));
    assert_eq!(life.stage(asked.0), "unsupported");
    assert!(life.registry.targets[&asked.0].inspection.is_some(), "people are shown what is in it");
}

#[test]
fn what_is_no_go_program_is_refused_with_all_of_its_file() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let not_go = || Err("not a Go program".to_owned());
    life.registry.inspected(Inspected { verdict: not_go(), ..inspected(asked, &process) }, 1);
    assert_eq!(life.stage(asked.0), "unsupported");
    assert_eq!(life.registry.files.known(&Process::sample(11, 1, 1)).unwrap().unwrap_err(), "not a Go program");
    // That a process is odd says nothing of its file.
    let other = Process::sample(12, 2, 1);
    let asked = inspect(&life.adopt(candidate(&other)));
    let outcome = Inspected { verdict: not_go(), holds: Holds::OfProcess, ..inspected(asked, &other) };
    life.registry.inspected(outcome, 1);
    assert!(life.registry.files.known(&other).is_none());
}

#[test]
fn what_could_not_be_read_now_is_tried_again_ever_less_often() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let mut asked = inspect(&life.adopt(candidate(&process)));
    let mut scans_between = Vec::new();
    for round in 0..7 {
        let outcome = Inspected { verdict: Err("busy".into()), holds: Holds::Now, ..inspected(asked, &process) };
        let effects = life.registry.inspected(outcome, 1);
        assert_eq!(logs(&effects).len(), usize::from(round == 0), "the log says it once");
        assert_eq!(life.stage(asked.0), "failed");
        let mut scans = 0;
        asked = loop {
            scans += 1;
            let effects = life.registry.try_again();
            if !effects.is_empty() {
                break inspect(&effects);
            }
        };
        scans_between.push(scans);
    }
    assert_eq!(scans_between, [1, 2, 4, 8, 16, 16, 16]);
    assert_eq!(life.stage(asked.0), "preparing");
}

#[test]
fn a_process_that_ended_while_it_was_read_is_looked_at() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let outcome =
        Inspected { verdict: Err("gone".into()), holds: Holds::Now, is_there: false, ..inspected(asked, &process) };
    let effects = life.registry.inspected(outcome, 1);
    assert_eq!((kinds(&effects), logs(&effects).len()), (vec!["look"], 0));
}

#[test]
fn what_the_kernels_maps_refuse_is_tried_again() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let configure = configure(life.registry.inspected(inspected(asked, &process), 1));
    let effects = life.registry.configured(configure, Err("the map is full".into()));
    assert_eq!(kinds(&effects), ["unconfigure"], "one map may have it");
    assert_eq!(life.stage(asked.0), "failed");
    assert_eq!(kinds(&life.registry.try_again()), ["inspect"]);
}

#[test]
fn a_target_that_ended_before_it_was_configured_leaves_nothing_behind() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let configure = configure(life.registry.inspected(inspected(asked, &process), 1));
    life.end(asked.0, false);
    assert_eq!(kinds(&life.registry.configured(configure, Ok(()))), ["unconfigure"]);
    assert_eq!(life.stage(asked.0), "gone");
}

#[test]
fn what_comes_of_an_earlier_attempt_counts_no_more() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let first = inspect(&life.adopt(candidate(&process)));
    let second = inspect(&life.registry.regroup(first.0));
    assert_eq!(kinds(&life.registry.inspected(inspected(first, &process), 1)), [""; 0]);
    assert_eq!(kinds(&life.registry.inspected(inspected(second, &process), 1)), ["configure"]);
}

#[test]
fn an_inspection_of_a_process_that_is_another_by_now_counts_for_its_file_alone() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    life.end(asked.0, true);
    life.bury(0);
    assert_eq!(kinds(&life.registry.inspected(inspected(asked, &process), 1)), [""; 0]);
    assert!(life.registry.files.known(&Process::sample(11, 1, 1)).is_some());
}

#[test]
fn what_the_kernel_refuses_is_measured_nowhere_and_tried_again() {
    let mut life = life();
    let (id, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let (other, waits) = life.configured(candidate(&Process::sample(11, 1, 1)));
    assert_eq!(kinds(&waits), [""; 0]);
    let attach = attach(effects);
    let effects = life.attached(&attach, Err(refused()));
    assert_eq!(kinds(&effects), ["unconfigure", "unconfigure"]);
    assert_eq!((life.stage(id), life.stage(other)), ("failed", "failed"));
    assert!(life.registry.groups.get(&attach.key).is_none());
    assert_eq!(kinds(&life.registry.try_again()), ["inspect", "inspect"]);
}

#[test]
fn links_for_a_target_that_ended_meanwhile_come_off() {
    let mut life = life();
    let (id, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let attach = attach(effects);
    life.end(id, false);
    assert_eq!(detached(&life.attached(&attach, Ok(links("ab")))), "ab");
    assert_eq!(kinds(&life.attached(&attach, Err(refused()))), [""; 0]);
}

#[test]
fn another_process_takes_the_place_of_one_that_ended_while_links_were_attached() {
    let mut life = life();
    let (first, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let (second, _) = life.configured(candidate(&Process::sample(11, 1, 1)));
    let through_first = attach(effects);
    let effects = life.attached(&through_first, Err(gone()));
    assert_eq!(kinds(&effects), ["attach", "look"]);
    let through_second = attach(effects);
    assert_eq!((through_second.id, through_second.process.id.pid), (second, 11));
    life.attached(&through_second, Ok(links("a")));
    assert_eq!((life.stage(first), life.stage(second)), ("preparing", "measured"));
}

#[test]
fn a_process_that_was_the_only_one_is_looked_at() {
    let mut life = life();
    let (_, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let attach = attach(effects);
    assert_eq!(kinds(&life.attached(&attach, Err(gone()))), ["look"]);
    assert!(life.registry.groups.get(&attach.key).is_none());
}

#[test]
fn a_process_whose_code_was_swapped_ends_and_its_file_is_inspected_anew() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    let (id, effects) = life.configured(candidate(&process));
    let attach = attach(effects);
    let effects = life.attached(&attach, Err(AttachError::Swapped(std::io::ErrorKind::InvalidData.into())));
    assert_eq!(kinds(&effects), ["unconfigure", "scheduler", "bury", "look"]);
    assert!(matches!(logs(&effects)[..], [Log::Swapped { pid: Some(10), .. }, Log::Ended(10, _)]));
    assert_eq!(life.stage(id), "gone");
    assert!(life.registry.files.known(&process).is_none());
    // Also where its identity is as before.
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["consider"]);
}

#[test]
fn functions_that_a_process_has_changed_get_no_probe() {
    let mut life = life();
    let sharing = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let process = Process::sample(11, 1, 1);
    let asked = inspect(&life.adopt(candidate(&process)));
    let change = Change {
        function: "net/http.serverHandler.ServeHTTP".into(),
        part: Part::Http1Server,
        is_writable: false,
        reason: "the program has changed its code".into(),
    };
    let outcome = Inspected { changes: BTreeSet::from([change]), may_share: false, ..inspected(asked, &process) };
    let effects = life.registry.inspected(outcome, 1);
    assert_eq!(life.stage(asked.0), "unsupported", "no server is left");
    // Links on its file get into it too: who shares them gets its own.
    assert_eq!(kinds(&effects), ["detach", "inspect"]);
    assert_eq!((inspect(&effects).0, detached(&effects)), (sharing, "a".to_owned()));
}

#[test]
fn code_that_was_dropped_is_told_and_costs_what_was_in_flight() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    assert_eq!(kinds(&life.registry.code_replaced(id, true)), ["lose"]);
    assert_eq!((life.stage(id), life.registry.targets[&id].code.replaced), ("measured", 1));
    let effects = life.registry.code_replaced(id, false);
    assert_eq!(kinds(&effects), ["lose", "unconfigure", "detach", "look"]);
    assert_eq!((life.stage(id), detached(&effects)), ("unsupported", "a".to_owned()));
}

#[test]
fn blocking_is_driven_by_one_task_a_group() {
    let mut life = life();
    let key = GroupKey::shared(&Process::sample(10, 1, 1));
    life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    assert_eq!(life.registry.drive_blocking(&key), None, "nobody asks for it");
    let blocking = Candidate { features: HTTP.with(Feature::Blocking), ..candidate(&Process::sample(11, 1, 1)) };
    let (_, effects) = life.configured(blocking);
    assert_eq!(life.registry.drive_blocking(&key), None, "its links are being attached");
    life.attached(&attach(effects), Ok(Links::new()));
    assert!(life.registry.drive_blocking(&key).is_some());
    assert_eq!(life.registry.drive_blocking(&key), None);
}
