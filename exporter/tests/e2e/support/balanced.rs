//! Constant load on whichever pods can take it, as a Service's proxy would spread it: so many requests a second, and one that fails
//! is sent to another pod. What was answered is counted: that is the true load.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Threads that send: as many that answers may take a tenth of a second on a machine that others burn.
const SENDERS: u32 = 12;
const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(2);
/// A pod that failed is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// Sends until it is dropped.
pub(crate) struct Balanced {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pods: Mutex<Arc<[SocketAddr]>>,
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Balanced {
    /// So many requests a second, once there are pods.
    pub(crate) fn start(requests_per_second: f64) -> Self {
        let shared = Arc::<Shared>::default();
        let pause = Duration::from_secs_f64(f64::from(SENDERS) / requests_per_second);
        let sender = |number: u32| {
            let shared = shared.clone();
            thread::spawn(move || send(&shared, pause, pause * number / SENDERS))
        };
        let senders = (0..SENDERS).map(sender).collect();
        Self { shared, senders }
    }

    /// The pods that can take requests now.
    pub(crate) fn set_pods(&self, pods: Vec<SocketAddr>) {
        *self.shared.pods.lock().expect("nobody panics with it") = pods.into();
    }

    /// How many requests have been answered.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            let _ = sender.join();
        }
    }
}

fn send(shared: &Shared, pause: Duration, first: Duration) {
    let mut connections: HashMap<SocketAddr, BufReader<TcpStream>> = HashMap::new();
    let mut failed: HashMap<SocketAddr, Instant> = HashMap::new();
    let mut turn = 0;
    let mut due = Instant::now() + first;
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pause;
        // What could not be sent in time is not sent all at once.
        due = due.max(Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(due));
        let pods = shared.pods.lock().expect("nobody panics with it").clone();
        connections.retain(|address, _| pods.contains(address));
        failed.retain(|_, at| at.elapsed() < LEFT_ALONE);
        for _ in 0..pods.len() {
            turn += 1;
            let address = pods[turn % pods.len()];
            if failed.contains_key(&address) {
                continue;
            }
            if ask(&mut connections, address).is_some() {
                shared.answered.fetch_add(1, Ordering::Relaxed);
                break;
            }
            connections.remove(&address);
            failed.insert(address, Instant::now());
        }
    }
}

/// One request, answered in full.
fn ask(connections: &mut HashMap<SocketAddr, BufReader<TcpStream>>, address: SocketAddr) -> Option<()> {
    if let std::collections::hash_map::Entry::Vacant(entry) = connections.entry(address) {
        let stream = TcpStream::connect_timeout(&address, CONNECT).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        stream.set_nodelay(true).ok()?;
        entry.insert(BufReader::new(stream));
    }
    let connection = connections.get_mut(&address)?;
    connection.get_mut().write_all(b"GET /hello HTTP/1.1\r\nHost: shop\r\n\r\n").ok()?;
    let mut line = String::new();
    let mut length = 0;
    loop {
        line.clear();
        if connection.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()
}
