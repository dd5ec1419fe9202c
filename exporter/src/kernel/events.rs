//! The event ring: processes that begin and end, goroutines that panic. `unsafe` is allowed for the one call by which tokio
//! takes a descriptor.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use exporter_ebpf::event::Event;
use tokio::io::unix::AsyncFd;

/// The reader's end of the ring.
pub(crate) struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        let map = ebpf.take_map("EVENTS").ok_or("map EVENTS is not in the object")?;
        Ok(Self { ring: RingBuf::try_from(map).map_err(|error| error.to_string())? })
    }

    /// Waits for events and hands them over. Needs a tokio runtime.
    pub(crate) fn stream(self) -> io::Result<EventStream> {
        // SAFETY: the descriptor is a duplicate that the AsyncFd owns: nothing else closes it.
        let ready = unsafe { AsyncFd::register(self.ring.as_fd().try_clone_to_owned()?) }.map_err(io::Error::from)?;
        Ok(EventStream { ring: self.ring, ready })
    }
}

/// Most events of a batch: whoever makes them faster than they are read must not fill the memory, or keep all else waiting.
const BATCH: usize = 1024;

/// Events as they come.
pub(crate) struct EventStream {
    ready: AsyncFd<OwnedFd>,
    ring: RingBuf<MapData>,
}

impl EventStream {
    /// The next events: at least one, and no more than [`BATCH`].
    pub(crate) async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.ready.readable().await?;
            let mut events = Vec::new();
            while events.len() < BATCH {
                let Some(item) = self.ring.next() else {
                    guard.clear_ready();
                    break;
                };
                events.extend(parse(&item));
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// What the kernel side logs, by aya-log; it goes where all logging goes.
pub(crate) struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// To be taken before the programs are loaded, which need its map.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        EbpfLogger::init(ebpf).map(Self).map_err(|error| format!("the kernel side's log: {error}"))
    }

    /// Hands lines on as they come. Never ends on its own. Needs a tokio runtime.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        // SAFETY: the descriptor is a duplicate that the AsyncFd owns: nothing else closes it.
        let ready = unsafe { AsyncFd::register(self.0.as_fd().try_clone_to_owned()?) }.map_err(io::Error::from)?;
        loop {
            let mut guard = ready.readable().await?;
            self.0.flush();
            guard.clear_ready();
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Event> {
    Some(Event {
        kind: u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?),
        pid: u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?),
        at_ns: u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?),
    })
}
