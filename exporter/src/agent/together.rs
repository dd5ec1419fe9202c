//! Reads of one kernel map for all who ask about some targets: who asks while a read waits to begin shares it, and reads follow one
//! another at a distance, however many ask. Knows nothing of what is read.

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::spawn_blocking, time::sleep_until};

/// Time between the beginnings of two reads: each goes over the whole map, however few targets are asked about.
const APART: Duration = Duration::from_millis(50);

/// What a read gave of each target that has something.
type Of<T> = HashMap<u32, T>;

/// Who asks.
pub(super) struct Together<T>(Arc<Mutex<Table<T>>>);

struct Table<T> {
    waiting: Vec<(Vec<u32>, oneshot::Sender<Of<T>>)>,
    /// Whether a read is to begin that those who wait will share.
    planned: bool,
    /// When the last began.
    last: Option<Instant>,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Table { waiting: Vec::new(), planned: false, last: None })))
    }
}

fn lock<T>(table: &Mutex<Table<T>>) -> MutexGuard<'_, Table<T>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Together<T> {
    /// What there is of these targets, read after this was asked: at once where nobody has asked for a while. None where it cannot be
    /// read. Each target is to be asked about by one at a time. `read` is given the ids of all that the read is for.
    pub(super) async fn ask(
        &self,
        ids: Vec<u32>,
        read: impl FnOnce(&HashSet<u32>) -> io::Result<Of<T>> + Send + 'static,
    ) -> Option<Of<T>> {
        let (sender, answer) = oneshot::channel();
        let begins = {
            let mut table = lock(&self.0);
            table.waiting.push((ids, sender));
            let last = table.last;
            (!mem::replace(&mut table.planned, true)).then(|| last.map(|last| last + APART))
        };
        if let Some(at) = begins {
            let table = Arc::clone(&self.0);
            tokio::spawn(async move {
                if let Some(at) = at {
                    sleep_until(at.into()).await;
                }
                drop(spawn_blocking(move || answer_all(&table, read)).await);
            });
        }
        answer.await.ok()
    }
}

fn answer_all<T>(table: &Mutex<Table<T>>, read: impl FnOnce(&HashSet<u32>) -> io::Result<Of<T>>) {
    let waiting = {
        let mut table = lock(table);
        table.planned = false;
        table.last = Some(Instant::now());
        mem::take(&mut table.waiting)
    };
    let all = waiting.iter().flat_map(|(ids, _)| ids).copied().collect();
    // Where it fails nobody is answered.
    let Ok(mut of) = read(&all) else { return };
    for (ids, answer) in waiting {
        // Who does not wait any more needs none.
        let _ = answer.send(ids.iter().filter_map(|id| Some((*id, of.remove(id)?))).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn whoever_asks_before_a_read_begins_shares_it() {
        let together = Together::default();
        let reads = Arc::new(AtomicUsize::new(0));
        let read = || {
            let reads = Arc::clone(&reads);
            move |ids: &HashSet<u32>| {
                let number = reads.fetch_add(1, Ordering::Relaxed);
                // Of 7 there is nothing.
                Ok(ids.iter().filter(|id| **id != 7).map(|id| (*id, (number, ids.len()))).collect())
            }
        };
        assert_eq!(together.ask(vec![1], read()).await, Some(HashMap::from([(1, (0, 1))])));
        let (two, four, seven) = tokio::join!(
            together.ask(vec![2, 3], read()),
            together.ask(vec![4], read()),
            together.ask(vec![7], read())
        );
        assert_eq!(two, Some(HashMap::from([(2, (1, 4)), (3, (1, 4))])));
        assert_eq!((four, seven), (Some(HashMap::from([(4, (1, 4))])), Some(HashMap::new())));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_read_that_fails_is_nobodys_answer_and_the_next_may_succeed() {
        let together = Together::<u8>::default();
        let fails = |_: &HashSet<u32>| Err(io::Error::other("the kernel's"));
        let (one, two) = tokio::join!(together.ask(vec![1], fails), together.ask(vec![2], fails));
        assert_eq!((one, two), (None, None));
        assert_eq!(together.ask(vec![1], |_| Ok(HashMap::from([(1, 5)]))).await, Some(HashMap::from([(1, 5)])));
    }

    #[tokio::test]
    async fn who_asks_while_a_read_goes_on_gets_the_next() {
        let together = Arc::new(Together::<u8>::default());
        let (begun, begins) = oneshot::channel();
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let first = {
            let together = Arc::clone(&together);
            tokio::spawn(async move {
                let read = move |_: &HashSet<u32>| {
                    let _ = begun.send(());
                    let _ = waits.recv();
                    Ok(HashMap::from([(1, 1)]))
                };
                together.ask(vec![1], read).await
            })
        };
        begins.await.unwrap();
        let second = together.ask(vec![2], |_| Ok(HashMap::from([(2, 2)])));
        assert_eq!(second.await, Some(HashMap::from([(2, 2)])), "it waits for no other");
        drop(go_on);
        assert_eq!(first.await.unwrap(), Some(HashMap::from([(1, 1)])));
    }
}
