use nix::sys::stat::makedev;

use super::lane::A_READ;
use super::*;

fn who(owner: &str, device: u64) -> Who {
    Who { owner: owner.into(), device }
}

/// How many of these begin.
fn begin(turns: &Turns, who: &Who, count: usize) -> usize {
    let asked: Vec<_> = (0..count).map(|_| turns.ask(who, None).1).collect();
    asked.into_iter().filter_map(|mut turn| turn.try_recv().ok()).count()
}

fn stick(turns: &Turns, of: &Who, count: usize) {
    for _ in 0..count {
        Held { turns: turns.clone(), who: of.clone(), target: None, number: 0, stuck: false }.is_stuck_for_ever();
    }
}

impl Held {
    fn is_stuck_for_ever(mut self) {
        self.is_stuck();
        std::mem::forget(self);
    }
}

#[test]
fn an_owner_leaves_turns_to_others_whatever_it_does() {
    let (turns, one, other) = (Turns::default(), who("/pod1", 40), who("/pod2", 41));
    assert_eq!(begin(&turns, &one, 100), OF_AN_OWNER);
    assert_eq!(begin(&turns, &other, 100), TURNS - OF_AN_OWNER);
    // They are stuck: their turns are others' again, and it gets no more.
    stick(&turns, &one, OF_AN_OWNER);
    assert_eq!(begin(&turns, &one, 100), 0);
    assert_eq!(begin(&turns, &who("/pod1", 99), 1), 0, "a device of its own making");
    assert_eq!(begin(&turns, &who("/pod1", makedev(8, 1)), 1), 1, "a disk");
    assert_eq!(begin(&turns, &who("/pod3", 40), 5), 5);
    // One that comes back lets it begin again only once enough have.
    for left in (0..OF_AN_OWNER).rev() {
        drop(Held { turns: turns.clone(), who: one.clone(), target: None, number: 0, stuck: true });
        assert_eq!(begin(&turns, &one, 1), usize::from(left < STUCK_OF_A_DEVICE && left == 3), "{left}");
        if left == 3 {
            break;
        }
    }
}

#[test]
fn what_is_stuck_on_one_device_leaves_the_owners_others_alone() {
    let (turns, one) = (Turns::default(), who("/", 40));
    assert_eq!(begin(&turns, &one, STUCK_OF_A_DEVICE), STUCK_OF_A_DEVICE);
    stick(&turns, &one, STUCK_OF_A_DEVICE);
    assert_eq!(begin(&turns, &one, 1), 0);
    assert_eq!(begin(&turns, &who("/", 41), 1), 1);
}

#[tokio::test(start_paused = true)]
async fn what_never_returns_is_told_and_holds_nobody_up() {
    let (turns, one) = (Turns::default(), who("/pod1", 40));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let jobs: Vec<_> = (0..40_u32)
        .map(|id| {
            let (turns, one, held) = (turns.clone(), one.clone(), Arc::clone(&held));
            tokio::spawn(async move {
                let wait = move || {
                    let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
                };
                turns.take(one, Some(id), wait).await
            })
        })
        .collect();
    assert_eq!(turns.take(who("/pod2", 41), Some(100), || 7).await, Some(7));
    tokio::time::sleep(PATIENCE * 2).await;
    let later = Instant::now() + PATIENCE * 2;
    let told = |id| turns.table().told(id, later).unwrap_or_default();
    assert!(told(0).contains("do not answer: others go on"), "{}", told(0));
    assert!(told(39).contains("for its turn"), "{}", told(39));
    assert_eq!(told(100), "");
    assert_eq!(turns.take(who("/pod2", 41), None, || 8).await, Some(8));
    drop(release);
    for job in jobs {
        assert_eq!(job.await.unwrap(), Some(()));
    }
    assert!(turns.table().stuck.is_empty() && turns.table().held.is_empty() && turns.table().of_target.is_empty());
}

#[tokio::test]
async fn executables_of_one_owner_are_read_with_a_share_of_a_core_and_those_of_others_at_once() {
    // One after another, each of which takes as long as most: some begin at once, and then one after each 0.4 s.
    let (lane, mut at_once) = (Lane::default(), 0);
    while lane.spent().wait(Instant::now()).is_zero() {
        lane.enter(|| false).await;
        at_once += 1;
    }
    assert_eq!(at_once, 3);
    let now = Instant::now();
    assert!(lane.spent().wait(now) <= A_READ * 40);
    // What another process of the file has made known is not waited for, and costs nothing more.
    lane.enter(|| true).await;
    lane.leave(Duration::ZERO);
    // One that took longer is paid for by those that follow; a short one costs little.
    let before = lane.spent().wait(now);
    lane.leave(A_READ * 2);
    assert_eq!(lane.spent().wait(now), before + A_READ * 40);
    lane.leave(Duration::ZERO);
    assert_eq!(lane.spent().wait(now), before);
    // Who waits is told, and others have turns.
    let (turns, one) = (Turns::default(), who("/pod1", 40));
    turns.table().lane(&one.owner).spent().spend(Duration::from_hours(1), now);
    let waits = tokio::spawn({
        let (turns, one) = (turns.clone(), one.clone());
        async move { turns.read(one, 7, || false, || 7).await }
    });
    assert_eq!(turns.read(who("/pod2", 40), 8, || false, || 8).await, Some(8));
    assert_eq!(turns.take(one, None, || 9).await, Some(9), "what is known is not read");
    let told = turns.table().told(7, now + PATIENCE * 2).unwrap_or_default();
    assert!(told.contains("many new executables"), "{told}");
    assert!(!waits.is_finished());
    waits.abort();
}

#[test]
fn owners_without_end_take_no_room_without_end() {
    let turns = Turns::default();
    for owner in 0..1000 {
        turns.table().lane(&owner.to_string().into());
    }
    assert!(turns.table().lanes.len() <= LANES);
}
