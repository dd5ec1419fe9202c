//! Content negotiation: the format and the encoding a client asks for (RFC 9110, 12.5; Prometheus, content_negotiation.md).

use hyper::{
    HeaderMap,
    header::{ACCEPT, ACCEPT_ENCODING},
};

use crate::metrics::Format;

/// The supported format of the highest `q`; text 0.0.4 as the last resort.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let mut best = (0.0, Format::Text);
    for (media, parameters, q) in entries(headers, ACCEPT.as_str()) {
        let version = parameters.iter().find(|(name, _)| *name == "version").map(|(_, value)| *value);
        let format = match (media, version) {
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Format::OpenMetrics,
            ("text/plain", None | Some("0.0.4")) | ("*/*" | "text/*", _) => Format::Text,
            _ => continue,
        };
        if q > best.0 {
            best = (q, format);
        }
    }
    best.1
}

/// Whether gzip may be sent.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    entries(headers, ACCEPT_ENCODING.as_str()).any(|(coding, _, q)| coding.eq_ignore_ascii_case("gzip") && q > 0.0)
}

type Entry<'h> = (&'h str, Vec<(&'h str, &'h str)>, f32);

fn entries<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = Entry<'h>> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(
        |entry| {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let q = parameters.iter().find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
            (media, parameters, q)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        format(&headers)
    }

    #[test]
    fn the_highest_supported_q_wins() {
        // What Prometheus 3 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accept(prometheus), Format::OpenMetrics);
        assert_eq!(accept("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1"), Format::Text);
        assert_eq!(accept("application/vnd.google.protobuf;q=1,text/plain;q=0.2"), Format::Text);
        assert_eq!(accept("image/png"), Format::Text);
        assert_eq!(accept("*/*"), Format::Text);
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn gzip_is_sent_when_asked_for() {
        let asks = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            gzip(&headers)
        };
        assert!(asks("gzip") && asks("deflate, GZIP;q=0.5"));
        assert!(!asks("gzip;q=0") && !asks("identity") && !gzip(&HeaderMap::new()));
    }
}
