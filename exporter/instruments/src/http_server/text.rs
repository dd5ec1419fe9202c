//! Routes as they are shown: what was read of a pattern or a path made into an `http_route`.

use exporter_ebpf::{
    http::route_kind,
    key::{TEXT, Text, TextKey},
    route,
    router::written,
};

use crate::{Shown, Texts};

/// See [`crate::Described::text`].
pub(super) fn shown(key: &TextKey, texts: Texts<'_>) -> Option<Shown> {
    let text = texts(key)?;
    let get = |kind, route| texts(&TextKey { text: route, kind, ..*key });
    let label = match key.kind {
        route_kind::ROUTER => label_of_router(&text)?,
        route_kind::BELOW => label_below(&get(route_kind::SUBTREE, text.parent)?, &text)?,
        route_kind::JOINED => {
            let kind = (text.slashes >> 32) as u8;
            let before = get(kind, text.parent)?;
            let before = match kind {
                route_kind::BELOW => label_below(&get(route_kind::SUBTREE, before.parent)?, &before)?,
                route_kind::SUBTREE => up_to(&label_of(kind, &before)?, text.slashes as u32)?.to_owned(),
                _ => label_of(kind, &before)?,
            };
            joined(&before, &label_of(route_kind::JOINED, &text)?)
        }
        kind => label_of(kind, &text)?,
    };
    Some(Shown { text: label, second: None, is_path: matches!(key.kind, route_kind::PATH | route_kind::BELOW) })
}

/// As it is shown, so that routes that look the same are one.
fn label_of(kind: u8, text: &Text) -> Option<String> {
    let read = (text.read as usize).min(TEXT);
    if read == 0 {
        return None;
    }
    let bytes = &text.text[..read];
    let whole = text.len as usize <= read;
    if matches!(kind, route_kind::PATH | route_kind::PREFIX) {
        let mut out = [0; 2 * TEXT];
        return Some(String::from_utf8_lossy(route::template(bytes, whole, &mut out)).into_owned());
    }
    let pattern = String::from_utf8_lossy(bytes);
    let mut pattern = without_method(&pattern).to_owned();
    if !whole {
        pattern.push('…');
    }
    Some(pattern)
}

/// Of a router's pattern, behind what was taken off the path.
fn label_of_router(text: &Text) -> Option<String> {
    let read = (text.read as usize).min(TEXT);
    let (prefix, pattern) = text.text[..read].split_at((text.slashes as usize).min(read));
    let mut out = [0; 2 * TEXT];
    let prefix = if prefix.is_empty() { &[] } else { route::template(prefix, true, &mut out) };
    let mut label = String::from_utf8_lossy(pattern).into_owned();
    if text.parent == written::PARTS {
        label = of_parts(&label);
    }
    label.insert_str(0, &String::from_utf8_lossy(prefix));
    if text.len as usize > read {
        label.push('…');
    }
    if label.is_empty() { None } else { Some(label) }
}

/// The patterns of all levels as one, as chi's own `RoutePattern` has it (context.go, 5.0.1 on): what stands for the rest of the path gives
/// way to that rest.
fn of_parts(parts: &str) -> String {
    let mut all = parts.to_owned();
    while all.contains("/*/") {
        all = all.replace("/*/", "/");
    }
    if all == "/" {
        return all;
    }
    let all = all.strip_suffix("//").unwrap_or(&all);
    all.strip_suffix('/').unwrap_or(all).to_owned()
}

/// Of a route below a pattern: the pattern's prefix, and what follows it in the path.
fn label_below(pattern: &Text, rest: &Text) -> Option<String> {
    let pattern = label_of(route_kind::SUBTREE, pattern)?;
    let prefix = &pattern[..=pattern.rfind('/')?];
    let read = (rest.read as usize).min(TEXT);
    let mut out = [0; 2 * TEXT];
    let whole = rest.len as usize <= read;
    let rest = route::template_below(rest.slashes as u32, &rest.text[..read], whole, &mut out);
    Some(format!("{prefix}{}", String::from_utf8_lossy(rest)))
}

/// A pattern before its slash that so many are before.
fn up_to(pattern: &str, slashes: u32) -> Option<&str> {
    let (end, _) = pattern.match_indices('/').nth(slashes as usize)?;
    Some(&pattern[..end])
}

/// Of the pattern of a mux that is given what follows `before` in the path. Its host, if it has one, is of the whole.
fn joined(before: &str, pattern: &str) -> String {
    let (host, path) = pattern.split_at(pattern.find('/').unwrap_or(0));
    let host = if before.starts_with('/') { host } else { "" };
    format!("{host}{before}{path}")
}

/// A pattern is `[METHOD ][HOST]/[PATH]` (net/http/pattern.go, Go 1.22); the method is a label of its own.
fn without_method(pattern: &str) -> &str {
    match pattern.split_once([' ', '\t']) {
        Some((method, rest)) if !method.contains('/') => rest.trim_start(),
        _ => pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TEXT: Text = Text { len: 0, read: 0, parent: 0, slashes: 0, below: 0, text: [0; TEXT] };

    fn text(of: &str) -> Text {
        let mut text = Text { len: of.len() as u32, read: of.len().min(127) as u32, ..NO_TEXT };
        let n = text.read as usize;
        text.text[..n].copy_from_slice(&of.as_bytes()[..n]);
        text
    }

    #[test]
    fn patterns_lose_their_method_and_keep_their_host() {
        for (pattern, label) in [
            ("GET /items/{id}", "/items/{id}"),
            ("/items/", "/items/"),
            ("POST  example.com/x", "example.com/x"),
            ("/with space", "/with space"),
            ("example.com/a b", "example.com/a b"),
        ] {
            assert_eq!(label_of(route_kind::PATTERN, &text(pattern)).unwrap(), label);
        }
    }

    #[test]
    fn the_rest_of_a_path_takes_the_place_of_the_patterns_end() {
        for (pattern, slashes, rest, label) in [
            ("/", 1, "articles/7", "/articles/{id}"),
            ("GET /api/v1/", 3, "query", "/api/v1/query"),
            ("example.com/files/{path...}", 2, "a/b", "example.com/files/a/b"),
            ("/users/{id}/", 3, "orders/7/x/y/z/9/10", "/users/{id}/orders/{id}/x/y/z/**"),
        ] {
            assert_eq!(label_below(&text(pattern), &Text { slashes, ..text(rest) }).unwrap(), label);
        }
    }

    #[test]
    fn the_pattern_of_an_inner_mux_follows_what_was_taken_off() {
        for (before, slashes, pattern, label) in [
            ("/api/v1/", 2, "GET /users/{id}", "/api/v1/users/{id}"),
            ("GET /t/{tenant}/", 2, "/users/", "/t/{tenant}/users/"),
            ("/api/v1/", 1, "/v1/users", "/api/v1/users"),
            ("/files/{path...}", 1, "/{name}", "/files/{name}"),
            ("example.com/api/", 1, "example.com/x", "example.com/api/x"),
            ("/api/", 1, "POST example.com/x", "example.com/api/x"),
        ] {
            let before = label_of(route_kind::SUBTREE, &text(before)).unwrap();
            let pattern = label_of(route_kind::JOINED, &text(pattern)).unwrap();
            assert_eq!(joined(up_to(&before, slashes).unwrap(), &pattern), label);
        }
        assert_eq!(up_to("/a", 1), None);
    }

    #[test]
    fn patterns_of_routers() {
        let of = |prefix: &str, pattern: &str, parent| {
            let of = text(&format!("{prefix}{pattern}"));
            label_of_router(&Text { parent, slashes: prefix.len() as u64, ..of })
        };
        for (prefix, pattern, label) in [
            ("", "/users/:id/", "/users/:id/"),
            ("", "/", "/"),
            ("/api/v1", "/files/*path", "/api/v1/files/*path"),
            ("/t/4711", "/{id:[0-9]+}", "/t/{id}/{id:[0-9]+}"),
        ] {
            assert_eq!(of(prefix, pattern, written::WHOLE).unwrap(), label);
        }
        for (prefix, parts, label) in [
            ("", "/api/*/v1/*/orders/{id}", "/api/v1/orders/{id}"),
            ("", "/mnt/*", "/mnt/*"),
            ("", "/api/*/", "/api"),
            ("", "/a/*/*/b/", "/a/b"),
            ("", "/", "/"),
            ("/svc/a", "/users/{id}", "/svc/a/users/{id}"),
        ] {
            assert_eq!(of(prefix, parts, written::PARTS).unwrap(), label);
        }
        assert_eq!(of("", "", written::WHOLE), None);
        let long = Text { len: 200, ..text(&format!("/{}", "a".repeat(140))) };
        assert!(label_of_router(&long).unwrap().ends_with('…'));
    }

    #[test]
    fn long_and_unreadable_texts() {
        let long = format!("/{}", "a".repeat(200));
        assert!(label_of(route_kind::PATTERN, &text(&long)).unwrap().ends_with('…'));
        assert_eq!(label_of(route_kind::PATH, &text(&long)).unwrap(), "/**");
        assert_eq!(label_of(route_kind::PATTERN, &Text { len: 9, ..NO_TEXT }), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let mut bad = text("/abc");
        bad.text[1] = 0xff;
        assert_eq!(label_of(route_kind::PATH, &bad).unwrap(), "/\u{fffd}bc");
    }
}
