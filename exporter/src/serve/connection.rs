//! One connection: tells its place what it is at, by what comes and goes beneath TLS and HTTP, and writes nothing before its turn.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::places::{Activity, Asked, Place};

/// A stream whose traffic is told of.
pub(crate) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Its turn, where it needs one to write.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Watched {
    /// Watches it from now on.
    pub(crate) fn new(stream: TcpStream, place: &Place) -> Self {
        let turn = place.turnstiles.clone().map(|it| Box::pin(it.others.pass(place.client)) as Pin<Box<_>>);
        Self { stream, activity: Arc::clone(&place.activity), turn }
    }

    /// What is written before a request has had its turn waits for one: a handshake, and the refusal of what is no request.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &mut self.turn else { return Poll::Ready(()) };
        if !self.activity.may_write() {
            ready!(turn.as_mut().poll(context));
            self.activity.enters();
        }
        self.turn = None;
        Poll::Ready(())
    }

    fn told(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.activity.stalled(),
            Poll::Ready(_) => self.activity.took(),
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, from);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body that is told of when it is at its end.
pub(crate) struct Answer<B> {
    body: B,
    _asked: Asked,
}

impl<B> Answer<B> {
    /// The answer to a request.
    pub(crate) fn new(body: B, asked: Asked) -> Self {
        Self { body, _asked: asked }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
