//! Takes connections in, for every server of this process: each has a place, which it may have to give to another. Knows nothing
//! of what is served.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, time::MissedTickBehavior};
use tracing::debug;

use super::{
    connection::Watched,
    places::{Place, Places},
};

/// Between looks for clients that keep the server waiting.
const SWEEP: Duration = Duration::from_secs(1);

/// Gives each connection to a task of its own, until it is dropped.
pub(crate) async fn listen<F>(listener: TcpListener, places: Places, serve: impl Fn(Watched, Place) -> F) -> Infallible
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sweeps.tick(), if !places.is_empty() => {
                places.sweep(Instant::now());
                continue;
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client is gone already: neither ends the server.
                debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = places.take(client.ip()) else {
            debug!(%client, "turned away: too many requests are being answered");
            continue;
        };
        places.serve(place, |place| {
            let stream = Watched::new(stream, &place);
            tokio::spawn(serve(stream, place)).abort_handle()
        });
    }
}
