//! Work on one thing after another of which any may never return, as a read of memory that a program never hands over: each
//! such costs a thread, and the others are done without it. Knows nothing of what is done.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Stack of a thread that reads.
const STACK: usize = 512 * 1024;

/// The least time that anything has.
const LEAST: Duration = Duration::from_millis(5);

/// How long the next is waited for after one that was left: many that never return take hardly longer together than two.
fn less(patience: Duration) -> Duration {
    (patience / 2).max(LEAST.min(patience))
}

/// Does `work` on each thing in turn, on a thread that has its own `work` from `hand`. One that takes longer than `patience`
/// is left to its thread, and another thread goes on with the next, and waits for half as long. Things whose turn has not come by
/// `until`, where there is such a time, are dropped. How many were left.
pub(super) fn each<T: Send + 'static, W: FnMut(T) + 'static>(
    things: Vec<T>,
    mut patience: Duration,
    until: Option<Instant>,
    hand: impl Fn() -> W + Clone + Send + 'static,
) -> usize {
    let queue = Arc::new(Mutex::new(VecDeque::from(things)));
    let is_late = move || until.is_some_and(|until| Instant::now() >= until);
    let next = move |queue: &Mutex<VecDeque<T>>| {
        let thing = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        // Asked here, so that no thing is begun that nobody waits for.
        if is_late() { None } else { thing() }
    };
    let mut left = 0;
    while !queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        let (done, told) = mpsc::channel();
        let (queue_of_thread, hand) = (Arc::clone(&queue), hand.clone());
        let thread = thread::Builder::new().name("runtimes".into()).stack_size(STACK).spawn(move || {
            let mut work = hand();
            while let Some(thing) = next(&queue_of_thread) {
                work(thing);
                // Nobody listens to a thread that was left: another goes on.
                if done.send(()).is_err() {
                    return;
                }
            }
        });
        if thread.is_err() {
            break;
        }
        loop {
            match told.recv_timeout(patience) {
                Ok(()) => {}
                // All are done, it is too late for more, or the thread broke down over one.
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    left += 1;
                    patience = less(patience);
                    break;
                }
            }
        }
        if is_late() {
            queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn what_never_returns_holds_nobody_up() {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (tell, told) = mpsc::channel();
        let things = (0..10).collect();
        let left = each(things, Duration::from_millis(100), None, move || {
            let (held, tell) = (Arc::clone(&held), tell.clone());
            move |thing: u32| {
                if thing == 3 {
                    let _ = held.lock().unwrap().recv();
                }
                tell.send(thing).unwrap();
            }
        });
        assert!(left >= 1);
        let mut done: Vec<u32> = std::iter::from_fn(|| told.recv_timeout(LONG).ok()).take(9).collect();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        // It comes back at last.
        drop(release);
        assert_eq!(told.recv_timeout(LONG), Ok(3));
    }

    #[test]
    fn many_that_never_return_take_as_long_as_two() {
        let patience = Duration::from_millis(300);
        let waited: Duration = std::iter::successors(Some(patience), |it| Some(less(*it))).take(40).sum();
        assert!(waited < Duration::from_millis(800), "{waited:?}");
        assert_eq!(less(Duration::from_millis(1)), Duration::from_millis(1));
    }

    #[test]
    fn what_breaks_down_holds_nobody_up_and_nothing_begins_too_late() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        each(vec![0, 1, 2], LONG, None, move || {
            let count = Arc::clone(&counted);
            move |thing| {
                assert_ne!(thing, 1, "as a mistake of ours would");
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
        // Too late from the beginning.
        let counted = Arc::clone(&count);
        let left = each(vec![0; 1000], LONG, Some(Instant::now()), move || {
            let count = Arc::clone(&counted);
            move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!((left, count.load(Ordering::SeqCst)), (0, 2));
    }
}
