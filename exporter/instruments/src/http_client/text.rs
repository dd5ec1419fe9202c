//! Addresses and types of errors as they are shown.

use exporter_ebpf::{
    http_client::host_kind,
    key::{TEXT, Text, TextKey},
};

use crate::{Shown, Texts};

/// See [`crate::Described::text`]: `host:port`, and the error's type. The port is the scheme's where the URL has none.
pub(super) fn shown(key: &TextKey, texts: Texts<'_>) -> Option<Shown> {
    let text = texts(key)?;
    let (kind, host, error) = if key.kind >= host_kind::HTTP + host_kind::FAILED {
        let kind = key.kind - host_kind::FAILED;
        let host = texts(&TextKey { text: text.parent, kind, ..*key })?;
        (kind, host, read(&text))
    } else {
        (key.kind, text, None)
    };
    Some(Shown { text: with_port(&read(&host)?, kind), second: error, is_path: false })
}

fn read(text: &Text) -> Option<String> {
    let read = (text.read as usize).min(TEXT);
    if read == 0 {
        return None;
    }
    let mut shown = String::from_utf8_lossy(&text.text[..read]).into_owned();
    if text.len as usize > read {
        shown.push('…');
    }
    Some(shown)
}

fn with_port(host: &str, kind: u8) -> String {
    let port = match kind {
        _ if split(host).1.is_some() => return host.to_owned(),
        host_kind::HTTP => "80",
        host_kind::HTTPS => "443",
        _ => return host.to_owned(),
    };
    format!("{}:{port}", host.strip_suffix(':').unwrap_or(host))
}

/// `server_address` and `server_port` of what [`shown`] gives. An IPv6 address has no brackets (OpenTelemetry: `server.address`).
pub(super) fn address_and_port(text: &str) -> (&str, Option<&str>) {
    let (host, port) = split(text);
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// The host and the port of `URL.Host` (net/url/url.go: splitHostPort).
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((before, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => {
            (before, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &str, parent: u64) -> Text {
        let mut text = Text {
            len: of.len() as u32,
            read: of.len().min(127) as u32,
            parent,
            slashes: 0,
            below: 0,
            text: [0; TEXT],
        };
        let n = text.read as usize;
        text.text[..n].copy_from_slice(&of.as_bytes()[..n]);
        text
    }

    fn shown_of(host: &str, kind: u8) -> (String, Option<String>) {
        let key = TextKey { text: 1, target: 1, family: 0, kind, spare: 0 };
        let shown = shown(&key, &|_| Some(text(host, 0))).unwrap();
        let (address, port) = address_and_port(&shown.text);
        (address.to_owned(), port.map(str::to_owned))
    }

    #[test]
    fn a_port_that_is_not_there_is_the_scheme_s() {
        let of = |host, kind| {
            let (address, port) = shown_of(host, kind);
            format!("{address} {}", port.as_deref().unwrap_or("-"))
        };
        assert_eq!(of("a.example", host_kind::HTTP), "a.example 80");
        assert_eq!(of("a.example", host_kind::HTTPS), "a.example 443");
        assert_eq!(of("a.example:", host_kind::HTTPS), "a.example 443");
        assert_eq!(of("a.example:8080", host_kind::HTTPS), "a.example 8080");
        assert_eq!(of("a.example", host_kind::OTHER), "a.example -");
        assert_eq!(of("[2001:db8::1]", host_kind::HTTP), "2001:db8::1 80");
        assert_eq!(of("[::1]:81", host_kind::HTTP), "::1 81");
        assert_eq!(of("a.example:http", host_kind::OTHER), "a.example:http -");
    }

    #[test]
    fn an_error_s_type_stands_beside_the_address() {
        let key = TextKey { text: 9, target: 1, family: 0, kind: host_kind::HTTPS + host_kind::FAILED, spare: 0 };
        let texts = |key: &TextKey| match (key.text, key.kind) {
            (9, _) => Some(text("*net.OpError", 7)),
            (7, host_kind::HTTPS) => Some(text("a.example", 0)),
            _ => None,
        };
        let it = shown(&key, &texts).unwrap();
        assert_eq!((it.text.as_str(), it.second.as_deref()), ("a.example:443", Some("*net.OpError")));
        // A type without a name.
        let unnamed = |key: &TextKey| texts(key).map(|it| if it.parent == 7 { Text { read: 0, ..it } } else { it });
        assert_eq!(shown(&key, &unnamed).unwrap().second, None);
    }

    #[test]
    fn a_long_address_is_cut() {
        let long = "a".repeat(200);
        assert!(shown_of(&long, host_kind::OTHER).0.ends_with('…'));
    }
}
