//! Watches that go on for ever: an API server that is away is tried again, soon and then every few seconds.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures_util::StreamExt as _;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, utils::Backoff, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;
use tracing::{info, warn};

/// A watch is begun anew after this time, so that a connection that died silently is noticed.
const WATCH_SECONDS: u32 = 120;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Calls `each` with whatever happens to these objects.
pub(super) async fn follow<K>(what: &'static str, api: Api<K>, config: watcher::Config, mut each: impl FnMut(Event<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.timeout(WATCH_SECONDS).page_size(PAGE);
    let mut stream = pin!(watcher(api, config).backoff(Pause::default()));
    let mut down = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut down) {
                    info!(what, "watched again");
                }
                each(event);
            }
            Err(error) => {
                if !std::mem::replace(&mut down, true) {
                    warn!(what, error = line(&error), "cannot be watched: what is known stands");
                }
            }
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text.replace('\n', " ").chars().take(400).collect()
}

/// From a quarter of a second to four.
#[derive(Default)]
struct Pause {
    attempt: u32,
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(250) * (1 << self.attempt.min(4));
        self.attempt += 1;
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}
