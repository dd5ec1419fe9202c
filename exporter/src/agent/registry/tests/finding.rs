use exporter_ebpf::target::MAX_TARGETS;

use super::*;

#[test]
fn a_new_process_is_considered_once() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["consider"]);
    assert!(life.registry.ignore(10, Some(process.id)), "it is not wanted");
    assert!(!life.registry.ignore(10, Some(process.id)), "that is no news");
    assert_eq!(kinds(&life.seen(10, Some(&process))), [""; 0]);
    // Another image of it, as after `execve`, may be wanted.
    assert_eq!(kinds(&life.seen(10, Some(&Process::sample(10, 2, 1)))), ["consider"]);
}

#[test]
fn where_ports_matter_a_process_is_considered_at_each_look() {
    let mut life = life();
    life.registry = Registry::new(true);
    let process = Process::sample(10, 1, 1);
    life.registry.ignore(10, Some(process.id));
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["consider"]);
}

#[test]
fn what_has_no_executable_is_not_looked_at_again_by_a_scan() {
    let mut life = life();
    assert_eq!(kinds(&life.seen(2, None)), [""; 0]);
    assert_eq!(life.registry.scanned(&[2, 3], false), [3]);
    assert_eq!(life.registry.scanned(&[2, 3], true), [2, 3], "by a full one it is");
    // Its id is another's once it is gone.
    life.registry.scanned(&[3], false);
    assert_eq!(life.registry.scanned(&[2], false), [2]);
}

#[test]
fn a_wanted_process_is_inspected() {
    let mut life = life();
    let effects = life.adopt(candidate(&Process::sample(10, 1, 1)));
    assert_eq!(kinds(&effects), ["inspect"]);
    assert!(matches!(effects[1], Effect::Inspect { id: 1, attempt: 1, known: None, .. }));
    assert_eq!(life.stage(1), "preparing");
    assert_eq!(life.registry.of_pid(10).unwrap().id, 1);
}

#[test]
fn what_is_in_an_executable_is_known_of_the_next_process() {
    let mut life = life();
    life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let effects = life.adopt(candidate(&Process::sample(11, 1, 1)));
    assert!(matches!(effects[1], Effect::Inspect { known: Some(Ok(_)), .. }));
    let effects = life.adopt(candidate(&Process::sample(12, 2, 1)));
    assert!(matches!(effects[1], Effect::Inspect { known: None, .. }));
}

#[test]
fn a_target_that_is_as_before_is_only_checked() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    life.adopt(candidate(&process));
    assert_eq!(kinds(&life.seen(10, Some(&process))), [""; 0], "it is not in the kernel's maps yet");
    let mut life = super::life();
    life.measured(candidate(&process), "a");
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["check"]);
}

#[test]
fn an_exec_of_the_same_file_that_looks_the_same_is_a_new_target() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let now = life.now();
    let effects = life.registry.unconfigured(id, now);
    assert_eq!(kinds(&effects), ["unconfigure", "detach", "scheduler", "bury", "consider"]);
    assert_eq!(life.stage(id), "gone");
}

#[test]
fn an_exec_in_place_ends_the_target_at_once_and_is_considered() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "ab");
    let effects = life.seen(10, Some(&Process::sample(10, 2, 1)));
    assert_eq!(kinds(&effects), ["unconfigure", "detach", "scheduler", "bury", "consider"]);
    assert_eq!(detached(&effects), "ab");
    assert_eq!(life.stage(id), "gone");
    assert_eq!(life.bury(0), 1, "its figures wait for no scrape");
}

#[test]
fn a_process_id_that_is_used_again_is_another_target() {
    let mut life = life();
    let first = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let again = Process::sample(10, 1, 2);
    assert_eq!(kinds(&life.seen(10, Some(&again))).last(), Some(&"consider"));
    let second = life.measured(candidate(&again), "b");
    assert_ne!(first, second);
    assert_eq!(life.registry.of_pid(10).unwrap().id, second);
    // That the first one is over is said once more.
    assert_eq!(kinds(&life.end(first, false)), [""; 0]);
    assert_eq!(life.registry.of_pid(10).unwrap().id, second);
}

#[test]
fn a_target_that_scans_do_not_show_is_looked_at() {
    let mut life = life();
    life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    assert_eq!(life.registry.scanned(&[10], false), [0; 0]);
    assert_eq!(life.registry.scanned(&[], false), [10]);
}

#[test]
fn an_owner_gets_no_more_ids_than_leave_room_for_others() {
    let mut life = life();
    let mut adopt = |pid, owner: &str| {
        let new = Candidate { owner: owner.into(), ..candidate(&Process::sample(pid, 1, 1)) };
        let effects = life.adopt(new);
        kinds(&effects).contains(&"inspect")
    };
    let of_one = (1..=MAX_TARGETS).filter(|pid| adopt(*pid, "/greedy")).count();
    assert!(of_one < MAX_TARGETS as usize);
    assert!(adopt(MAX_TARGETS + 1, "/modest"));
    let refused = life.adopt(Candidate { owner: "/greedy".into(), ..candidate(&Process::sample(9_999, 1, 1)) });
    assert!(matches!(logs(&refused)[..], [Log::NoRoom { pid: 9_999, .. }]));
}

#[test]
fn an_id_is_not_used_again_soon() {
    let mut life = life();
    for pid in 1..100 {
        let id = life.measured(candidate(&Process::sample(pid, u64::from(pid), 1)), "a");
        assert_eq!(id, pid);
        life.end(id, true);
        assert_eq!(life.bury(0), 1);
    }
}

#[test]
fn every_process_that_is_known_to_run_a_file_is_named() {
    let mut life = life();
    let (one, other, unwanted) = (Process::sample(10, 1, 1), Process::sample(11, 1, 1), Process::sample(12, 1, 1));
    life.measured(candidate(&one), "a");
    life.adopt(candidate(&other));
    life.adopt(candidate(&Process::sample(13, 2, 1)));
    life.registry.ignore(12, Some(unwanted.id));
    let ended = life.measured(candidate(&Process::sample(14, 3, 1)), "b");
    life.end(ended, false);
    let mut running: Vec<u32> = life.registry.running(one.id.inode, one.id).iter().map(|it| it.pid).collect();
    running.sort_unstable();
    assert_eq!(running, [11, 12]);
    assert!(life.registry.running(Process::sample(14, 3, 1).id.inode, one.id).is_empty());
}

#[test]
fn a_view_of_the_targets_stays_as_it_was() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let view = life.registry.targets.clone();
    life.end(id, true);
    life.bury(0);
    assert_eq!(view[&id].stage.name(), "measured");
    assert!(!life.registry.targets.contains_key(&id));
}

#[test]
fn who_executes_one_program_after_another_is_attached_to_once_it_rests() {
    let mut life = life();
    life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    for (file, link) in [(2, "b"), (3, "c")] {
        let process = Process::sample(10, file, 1);
        assert_eq!(kinds(&life.seen(10, Some(&process))).last(), Some(&"consider"));
        life.measured(candidate(&process), link);
    }
    let last = Process::sample(10, 4, 1);
    assert_eq!(kinds(&life.seen(10, Some(&last))), ["unconfigure", "detach", "scheduler", "bury", "look later"]);
    assert_eq!(kinds(&life.seen(10, Some(&last))), [""; 0], "a scan finds it");
    life.second += 1;
    assert_eq!(kinds(&life.seen(10, Some(&last))), ["consider"]);
}
