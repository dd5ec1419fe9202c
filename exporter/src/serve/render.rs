//! Answers of some size that many may ask for at once. Each is rendered whole, compressed, and by one thread at a time; who asks
//! while it waits to begin shares it. Readers hold up no rendering, and the bytes that they hold are bounded. Knows nothing of
//! what is rendered.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    io::{self, Read, Write},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use hyper::body::{Body, Frame};
use tokio::sync::oneshot;
use tracing::warn;

use crate::allowance::{Spending, cpu_time};

/// Bytes that a client is given at once.
const CHUNK: usize = 32 * 1024;
/// Bytes of all renderings that are being read, compressed. Past it the oldest are given up.
const KEPT: usize = 32 << 20;

/// An answer, compressed; gone where it was given up.
#[derive(Debug)]
pub(super) struct Rendering(Mutex<Option<Bytes>>);

impl Rendering {
    fn bytes(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size(&self) -> usize {
        self.bytes().as_ref().map_or(0, Bytes::len)
    }

    /// A body that sends it, as it is or decompressed on the way.
    pub(super) fn body(self: Arc<Self>, gzip: bool) -> Chunks {
        let source = Source { rendering: self, at: 0 };
        Chunks { from: if gzip { Box::new(source) } else { Box::new(GzDecoder::new(source)) } }
    }
}

/// Reads a rendering without keeping it from being given up.
#[derive(Debug)]
struct Source {
    rendering: Arc<Rendering>,
    at: usize,
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.rendering.bytes();
        let Some(bytes) = bytes.as_ref() else { return Err(io::ErrorKind::TimedOut.into()) };
        let read = (&bytes[self.at..]).read(into)?;
        self.at += read;
        Ok(read)
    }
}

/// A body that is read while it is sent. If its rendering is given up it ends in an error and not as if it were whole.
pub(super) struct Chunks {
    from: Box<dyn Read + Send + Sync>,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // A copy: a part of the rendering would keep all of it.
        let mut chunk = Vec::with_capacity(CHUNK);
        Poll::Ready(match self.from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(chunk.into()))),
            Err(error) => Some(Err(error)),
        })
    }
}

/// CPU time for renderings: scrapes in reason have what they need at once; who asks without pause has a 50th of a core.
const RENDERED: Spending = Spending::new(Duration::from_millis(50), 50);
/// How long the next rendering waits at most.
const LONGEST: Duration = Duration::from_millis(400);

type Render<K> = dyn Fn(K, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// Who waits for a rendering of a kind that has not begun, and whether there is a task that makes them.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<oneshot::Sender<Arc<Rendering>>>,
    running: bool,
}

struct Shared<K> {
    render: Box<Render<K>>,
    queues: Mutex<HashMap<K, Queue>>,
    /// In the order in which they were made.
    kept: Mutex<VecDeque<Weak<Rendering>>>,
    spent: Mutex<Spending>,
}

/// Makes renderings of kinds.
pub(super) struct Renderings<K>(Arc<Shared<K>>);

impl<K: Copy + Eq + Hash + Send + Sync + 'static> Renderings<K> {
    /// `render` writes one of a kind; it may block.
    pub(super) fn new(render: impl Fn(K, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            render: Box::new(render),
            queues: Mutex::default(),
            kept: Mutex::default(),
            spent: Mutex::new(RENDERED),
        }))
    }

    /// One that is begun after this is called; none if it cannot be made.
    pub(super) async fn get(&self, kind: K) -> Option<Arc<Rendering>> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queues = self.0.queues();
            let queue = queues.entry(kind).or_default();
            queue.waiting.push(sender);
            // Apart from who asks, who may leave before others have what they wait for.
            if !std::mem::replace(&mut queue.running, true) {
                tokio::spawn(Arc::clone(&self.0).run(kind));
            }
        }
        receiver.await.ok()
    }
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> Shared<K> {
    fn queues(&self) -> MutexGuard<'_, HashMap<K, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is next, until nobody is left.
    fn next(&self, kind: K) -> Option<Vec<oneshot::Sender<Arc<Rendering>>>> {
        let mut queues = self.queues();
        let queue = queues.entry(kind).or_default();
        queue.waiting.retain(|it| !it.is_closed());
        queue.running = !queue.waiting.is_empty();
        queue.running.then(|| std::mem::take(&mut queue.waiting))
    }

    async fn run(self: Arc<Self>, kind: K) {
        loop {
            // Those that come meanwhile share the next.
            let rest = rest(&self.spent(), Instant::now());
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            let Some(waiting) = self.next(kind) else { return };
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.make(kind)).await {
                Ok(Ok(rendering)) => {
                    for it in waiting {
                        let _ = it.send(Arc::clone(&rendering));
                    }
                }
                Ok(Err(error)) => warn!(%error, "an answer could not be made"),
                Err(error) => warn!(%error, "an answer could not be made"),
            }
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spending> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, kind: K) -> io::Result<Arc<Rendering>> {
        let before = cpu_time();
        let made = self.write(kind);
        self.spent().spend(cpu_time().saturating_sub(before), Instant::now());
        made
    }

    fn write(&self, kind: K) -> io::Result<Arc<Rendering>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        (self.render)(kind, &mut encoder)?;
        let rendering = Arc::new(Rendering(Mutex::new(Some(encoder.finish()?.into()))));
        keep(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner), &rendering, KEPT);
        Ok(rendering)
    }
}

/// How long the next rendering waits.
fn rest(spent: &Spending, now: Instant) -> Duration {
    spent.wait(now).min(LONGEST)
}

/// Notes a new rendering, and gives up the oldest for as long as there are more than `most` bytes; never the new one.
fn keep(kept: &mut VecDeque<Weak<Rendering>>, new: &Arc<Rendering>, most: usize) {
    kept.retain(|it| it.strong_count() > 0);
    let sizes = kept.iter().filter_map(Weak::upgrade).map(|it| it.size());
    let mut sum = new.size() + sizes.sum::<usize>();
    while sum > most
        && let Some(oldest) = kept.pop_front()
    {
        let gone = oldest.upgrade().and_then(|it| it.bytes().take());
        sum -= gone.map_or(0, |it| it.len()).min(sum);
    }
    kept.push_back(Arc::downgrade(new));
}

#[cfg(test)]
mod tests;
