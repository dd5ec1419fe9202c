//! Threads for work that may never end, so that no pool of a bounded number can be asked to do it: whatever stands still has a thread to
//! itself. One that is done is used again for a moment, since beginning and ending a thread costs as much as what most of them do.
//! Knows nothing of the work.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SendError, Sender},
    },
    thread,
    time::Duration,
};

/// Most idle threads that are kept: each has a stack.
const KEPT: usize = 4;
/// How long one is kept.
const REST: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce() + Send>;

/// Threads of one name and size of stack, as many as there is work at one time.
pub(crate) struct Threads {
    name: &'static str,
    stack: usize,
    rest: Duration,
    number: AtomicU64,
    /// Those that have nothing to do, by number, and how they are given something.
    idle: Mutex<Vec<(u64, Sender<Work>)>>,
}

impl Threads {
    /// None is there yet. The stack is in bytes.
    pub(crate) const fn new(name: &'static str, stack: usize) -> Self {
        Self { name, stack, rest: REST, number: AtomicU64::new(0), idle: Mutex::new(Vec::new()) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(u64, Sender<Work>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work on a thread that does nothing else meanwhile.
    ///
    /// # Errors
    /// There can be no thread.
    pub(crate) fn run(&'static self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut work: Work = Box::new(work);
        loop {
            let Some((_, idle)) = self.idle().pop() else { break };
            match idle.send(work) {
                Ok(()) => return Ok(()),
                Err(SendError(back)) => work = back,
            }
        }
        let (sender, given) = mpsc::channel();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let all = move || {
            let mut next = Some(work);
            while let Some(work) = next {
                work();
                next = self.next(number, &sender, &given);
            }
        };
        thread::Builder::new().name(self.name.into()).stack_size(self.stack).spawn(all).map(drop)
    }

    /// What an idle thread is given to do, if anything comes soon.
    fn next(&self, number: u64, sender: &Sender<Work>, given: &Receiver<Work>) -> Option<Work> {
        {
            let mut idle = self.idle();
            if idle.len() >= KEPT {
                return None;
            }
            idle.push((number, sender.clone()));
        }
        match given.recv_timeout(self.rest) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let is_taken = {
                    let mut idle = self.idle();
                    let before = idle.len();
                    idle.retain(|(it, _)| *it != number);
                    idle.len() == before
                };
                // Whoever took it is about to give it something.
                is_taken.then(|| given.recv().ok()).flatten()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::mpsc::channel, thread::ThreadId};

    use super::*;

    fn threads(rest: Duration) -> &'static Threads {
        Box::leak(Box::new(Threads { rest, ..Threads::new("test", 64 * 1024) }))
    }

    /// The thread on which some work is done.
    fn ran_on(threads: &'static Threads) -> ThreadId {
        let (told, tells) = channel();
        threads.run(move || told.send(thread::current().id()).unwrap()).unwrap();
        tells.recv().unwrap()
    }

    fn wait_for_idle(threads: &Threads, count: usize) {
        while threads.idle().len() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn one_that_is_done_is_used_again_and_one_that_stands_still_is_waited_for_by_none() {
        let threads = threads(Duration::from_secs(60));
        let first = ran_on(threads);
        wait_for_idle(threads, 1);
        let (go_on, waits) = channel::<()>();
        let (told, tells) = channel();
        threads
            .run(move || {
                told.send(thread::current().id()).unwrap();
                let _ = waits.recv();
            })
            .unwrap();
        assert_eq!(tells.recv().unwrap(), first);
        assert_ne!(ran_on(threads), first, "that one is busy");
        drop(go_on);
        wait_for_idle(threads, 2);
    }

    #[test]
    fn few_are_kept_and_none_for_long_and_none_that_panicked() {
        let threads = threads(Duration::from_millis(50));
        let (go_on, waits) = channel::<()>();
        let waits = std::sync::Arc::new(Mutex::new(waits));
        for _ in 0..3 * KEPT {
            let waits = std::sync::Arc::clone(&waits);
            threads.run(move || assert!(waits.lock().unwrap().recv().is_err())).unwrap();
        }
        assert_eq!(threads.idle().len(), 0);
        drop(go_on);
        while threads.number.load(Ordering::Relaxed) < 3 * KEPT as u64 || std::sync::Arc::strong_count(&waits) > 1 {
            thread::yield_now();
        }
        assert!(threads.idle().len() <= KEPT);
        wait_for_idle(threads, 0);
        let (told, tells) = channel::<()>();
        threads
            .run(move || {
                let _told = told;
                panic!("as work may");
            })
            .unwrap();
        assert!(tells.recv().is_err());
        assert_eq!(threads.idle().len(), 0);
    }

    /// Work that comes just when a thread is about to end is done.
    #[test]
    fn work_is_never_lost() {
        let threads = threads(Duration::from_micros(50));
        let seen: HashSet<_> = (0..2000)
            .map(|i| {
                thread::sleep(Duration::from_micros(i % 100));
                ran_on(threads)
            })
            .collect();
        assert!(!seen.is_empty());
    }
}
