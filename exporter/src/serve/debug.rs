//! /debug/blocked: what is asked for in the query, and the answer in the format asked for. /debug/lock: for how long the agent's
//! own lock was held.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue},
};

use super::{Body, later, text, whole};
use crate::{
    agent::{Agent, Ask, Hold, NoProfile},
    profile,
};

/// Seconds where the query does not say how many.
const SECONDS: u64 = 10;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pprof,
    Folded,
}

/// Answers.
pub(super) async fn blocked(agent: &Agent, query: &str) -> Response<Body> {
    let (ask, format) = match parse(query) {
        Ok(asked) => asked,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    let profile = match agent.profile(ask).await {
        Ok(profile) => profile,
        Err(NoProfile::Wrong(why)) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        Err(NoProfile::Unknown(why)) => return text(StatusCode::NOT_FOUND, format!("{why}\n")),
        Err(NoProfile::Busy) => {
            return text(StatusCode::TOO_MANY_REQUESTS, "another profile is being taken: try again when it is done\n");
        }
        Err(NoProfile::TooMany(wait)) => {
            return later("profiles cost what is measured: so many in a minute and no more, try again later\n", wait);
        }
        Err(NoProfile::Failed(why)) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    };
    if format == Format::Folded {
        return text(StatusCode::OK, profile::folded(&profile));
    }
    match profile::pprof(&profile) {
        Ok(bytes) => {
            let mut response = whole(StatusCode::OK, Bytes::from(bytes));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"blocked.pb.gz\""));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the profile could not be written: {error}\n")),
    }
}

/// The longest hold of the lock on the agent's state since this was last asked: seconds, seconds that its thread ran meanwhile, and
/// where in the code it was. Empty where there was none.
pub(super) fn lock(agent: &Agent) -> Response<Body> {
    let line = |it: Hold| format!("{} {} {}\n", it.took.as_secs_f64(), it.worked.as_secs_f64(), it.by);
    text(StatusCode::OK, agent.longest_hold().map_or_else(String::new, line))
}

/// Names of Kubernetes objects need no percent encoding, and nothing else is taken.
fn parse(query: &str) -> Result<(Ask, Format), String> {
    let mut ask = Ask { time: Duration::from_secs(SECONDS), ..Ask::default() };
    let mut format = Format::Pprof;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || value.parse::<u64>().map_err(|_| format!("{key} must be a whole number"));
        match key {
            "pid" => ask.pid = Some(u32::try_from(number()?).map_err(|_| "pid is too large".to_owned())?),
            "namespace" => ask.namespace = Some(value.to_owned()),
            "pod" => ask.pod = Some(value.to_owned()),
            "container" => ask.container = Some(value.to_owned()),
            "seconds" => ask.time = Duration::from_secs(number()?),
            "format" if value == "pprof" => format = Format::Pprof,
            "format" if value == "folded" => format = Format::Folded,
            "format" => return Err("format is pprof or folded".into()),
            _ => return Err("the query takes pid, namespace, pod, container, seconds and format".into()),
        }
    }
    Ok((ask, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let (ask, format) = parse("namespace=shop&pod=cart-0&seconds=3&format=folded").unwrap();
        assert_eq!((ask.namespace.as_deref(), ask.pod.as_deref()), (Some("shop"), Some("cart-0")));
        assert_eq!((ask.time, format), (Duration::from_secs(3), Format::Folded));
        assert_eq!(parse("pid=7").unwrap().0.time, Duration::from_secs(SECONDS));
        for wrong in ["pid=x", "pid=4294967296", "seconds=-1", "format=svg", "pids=7"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
