//! A response body that is written while it is sent: a blocking writer on one side, a bounded queue of chunks between.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Frame};
use tokio::{sync::mpsc, time::Instant};

/// Bytes of a chunk.
const CHUNK: usize = 32 * 1024;
/// Chunks that wait for the client at most.
const WAITING: usize = 4;

/// The reader's end.
pub(super) struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

/// The writer's end.
pub(super) struct Sink {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
    deadline: Instant,
    runtime: tokio::runtime::Handle,
}

/// A body and what fills it. A client that has not taken everything within `limit` is cut off.
pub(super) fn channel(limit: Duration) -> (Sink, Chunks) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let sink = Sink {
        chunks: sender,
        pending: BytesMut::new(),
        deadline: Instant::now() + limit,
        runtime: tokio::runtime::Handle::current(),
    };
    (sink, Chunks { chunks: receiver })
}

/// Lets `fill` write the body. If it fails, the body ends in an error and not as if it were whole. Blocks.
pub(super) fn write(mut sink: Sink, gzip: bool, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let result = if gzip {
        let mut encoder = GzEncoder::new(&mut sink, Compression::fast());
        fill(&mut encoder).and_then(|()| encoder.finish().map(drop))
    } else {
        fill(&mut sink)
    };
    match result.and_then(|()| sink.flush()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = sink.chunks.try_send(Err(io::Error::new(error.kind(), "the metrics could not be written")));
            Err(error)
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = self.pending.split().freeze();
        let sent = self.runtime.block_on(tokio::time::timeout_at(self.deadline, self.chunks.send(Ok(chunk))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
