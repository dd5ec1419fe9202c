use super::*;

fn recognise(life: &mut Life, process: &Process) -> Recognition {
    let now = life.now().at;
    life.registry.files.recognise(process, now)
}

#[test]
fn an_executable_is_read_once_for_all_that_wait() {
    let mut life = life();
    let (one, other) = (Process::sample(10, 1, 1), Process::sample(11, 1, 1));
    assert_eq!(recognise(&mut life, &one), Recognition::Unknown { ask: true });
    assert_eq!(recognise(&mut life, &other), Recognition::Unknown { ask: false });
    let effects = life.registry.recognised(&one, Ok(Kind::Go));
    assert!(matches!(effects[..], [Effect::Look(10), Effect::Look(11)]));
    assert_eq!(recognise(&mut life, &other), Recognition::Go);
}

#[test]
fn what_is_no_go_program_is_not_asked_again() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    recognise(&mut life, &process);
    life.registry.recognised(&process, Ok(Kind::Other("not a Go program".into())));
    assert_eq!(recognise(&mut life, &process), Recognition::Other);
    // Another device's file may look the same.
    let mut elsewhere = process;
    elsewhere.device = 2;
    assert_eq!(recognise(&mut life, &elsewhere), Recognition::Unknown { ask: true });
}

#[test]
fn what_was_inspected_is_go() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    life.measured(candidate(&process), "a");
    assert_eq!(recognise(&mut life, &process), Recognition::Go);
}

#[test]
fn that_one_process_could_not_be_read_says_nothing_of_the_others() {
    let mut life = life();
    let (one, other) = (Process::sample(10, 1, 1), Process::sample(11, 1, 1));
    recognise(&mut life, &one);
    recognise(&mut life, &other);
    let effects = life.registry.recognised(&one, Err(None));
    assert!(matches!(effects[..], [Effect::Look(11)]), "it is asked through the other");
    assert_eq!(recognise(&mut life, &other), Recognition::Unknown { ask: true });
    assert_eq!(kinds(&life.seen(10, Some(&one))), [""; 0]);
}

#[test]
fn who_waits_long_is_named_until_it_is_gone() {
    let mut life = life();
    let patience = Duration::from_secs(5);
    recognise(&mut life, &Process::sample(10, 1, 1));
    life.second = 4;
    assert!(life.registry.files.late(life.now().at, patience).is_empty());
    life.second = 6;
    let late = life.registry.files.late(life.now().at, patience);
    assert_eq!((late.len(), late[0].0.id.pid, late[0].1.as_secs()), (1, 10, 6));
    life.registry.scanned(&[11], false);
    assert!(life.registry.files.late(life.now().at, patience).is_empty());
}
