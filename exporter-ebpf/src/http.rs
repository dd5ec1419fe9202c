//! Keys and values of the HTTP server's own maps, and how it reads the spans of its lane.

use crate::{
    key::SeriesKey,
    span::{Lane, Span, span_key},
};

/// Most panicked requests that wait to be settled.
pub const MAX_PANICS: u32 = 4_096;
/// Most hijacks on other goroutines than the connection's that wait to be settled.
pub const MAX_HIJACKS: u32 = 4_096;
/// Requests refused by a full `INFLIGHT` whose end is still recognised (the size of the `REFUSED` map).
pub const MAX_REFUSED: u32 = 8_192;
/// Requests that muxes were given on other goroutines, or with a part of the path (the size of the `ROUTED` map).
pub const MAX_ROUTED: u32 = 16_384;
/// Of those, how many of one target may come within [`ROUTED_WINDOW_NS`] without the end of a request that they are of: no program
/// drives out what others have there.
pub const ROUTED_OF_ONE: u64 = MAX_ROUTED as u64 / 4;
/// See [`ROUTED_OF_ONE`].
pub const ROUTED_WINDOW_NS: u64 = 1_000_000_000;

/// The `status` of a series for what a response writer holds: `unwritten` where that is nothing or no number that net/http
/// writes (net/http/server.go: checkWriteHeaderCode), and 0 for all outside of 100 to 599 together.
#[inline(always)]
pub const fn status_code(status: u64, unwritten: u16) -> u16 {
    if status == 0 || status > 999 {
        unwritten
    } else if status < 100 || status > 599 {
        0
    } else {
        status as u16
    }
}

/// A [`Span`] of the lane [`crate::span::Lane::HttpServer`]: a request that a goroutine is serving, or the last one that it has
/// served.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// When the handler was called, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// Address of the response writer (`*http.response`, `*http2responseWriter`); 0 while no request is being served.
    pub writer: u64,
    /// Address of the `*http.Request` that the handler was given.
    pub request: u64,
    /// Address of the copy of it that a ServeMux was given, where middleware made one; or the route of a router's pattern, see
    /// [`crate::router::IS_ROUTE`]; otherwise 0.
    pub routed: u64,
    /// [`XNET`] from x/net's `runHandler` on, [`XNET_CALLED`] once `serverHandler.ServeHTTP` was called within it (two starts, one
    /// request), 0 for requests of net/http; and [`TOLD`] and [`GOES_ON`].
    pub outer: u64,
}

/// The key of the span of the request that a goroutine serves.
#[inline(always)]
pub const fn request_key(target: u32, g: u64) -> u64 {
    span_key(target, g, Lane::HttpServer)
}

impl From<Span> for InFlight {
    #[inline(always)]
    fn from(span: Span) -> Self {
        let Span { start_ns, open: writer, words: [request, routed, outer] } = span;
        Self { start_ns, writer, request, routed, outer }
    }
}

/// A request of golang.org/x/net/http2.
pub const XNET: u64 = 1;
/// The same, of which the inner start was seen too.
pub const XNET_CALLED: u64 = 2;
/// Added to either once the request was told as lost, or is among the panicked ones, so that nobody takes it for lost when its end is
/// not seen.
pub const TOLD: u64 = 4;
/// Added where the connection is about to be taken over and the request goes on as one of HTTP/2: that one counts.
pub const GOES_ON: u64 = 8;

/// Key of `PANICS`: one request of a goroutine. With the start in it, whoever removes an entry removes no later one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PanicKey {
    /// As in `INFLIGHT`.
    pub goroutine: u64,
    /// [`InFlight::start_ns`].
    pub start_ns: u64,
}

/// Value of `PANICS`: what a panicked request is to be counted as, should its goroutine not end it normally.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// The series it belongs to.
    pub series: SeriesKey,
    /// From the handler's call to the panic, nanoseconds.
    pub duration_ns: u64,
    /// The goroutine's id at the panic; another id at the same address is another goroutine.
    pub goid: u64,
    /// Process id.
    pub pid: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Value of `HIJACKS`: what a request is to be counted as whose connection was taken over on another goroutine than the one that
/// its entry is of. The key is its response writer, as an [`crate::key::address_key`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hijacked {
    /// The series it belongs to.
    pub series: SeriesKey,
    /// When, `CLOCK_MONOTONIC` nanoseconds. A request with this writer that began later is another.
    pub at_ns: u64,
}

/// Value of `ROUTED`: requests that muxes were given, by the address of their headers as an [`crate::key::address_key`]: copies of a request
/// share its headers (net/http: Request.WithContext, StripPrefix), whatever goroutine they are on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Address of the `http.Request` that the first mux was given.
    pub first: u64,
    /// The same of the last; or the route of a router's pattern, see [`crate::router::IS_ROUTE`].
    pub last: u64,
    /// When the first was, `CLOCK_MONOTONIC` nanoseconds. A request that began later is another.
    pub at_ns: u64,
}

/// How a series' route is known: [`SeriesKey::text_kind`].
pub mod route_kind {
    use crate::key::text_kind::OWN;
    pub use crate::key::text_kind::{NONE, OVERFLOW, SERIES_OVERFLOW};

    /// A ServeMux pattern that is a literal; the route is the string's address and length, mixed.
    pub const PATTERN: u8 = OWN;
    /// A pattern that a router wrote into `Request.Pattern`, or that was made at run time; the route is a hash of its text.
    pub const PATTERN_TEXT: u8 = OWN + 1;
    /// Folded from the URL's path; the route is [`crate::route::Folder`]'s hash.
    pub const PATH: u8 = OWN + 2;
    /// A pattern that takes all paths below it, by itself; the route is a hash of its text.
    pub const SUBTREE: u8 = OWN + 3;
    /// Such a pattern and the rest of the path, folded; the route is [`crate::route::Folder`]'s hash of both.
    pub const BELOW: u8 = OWN + 4;
    /// What was taken off a path before it came to a mux, folded, by itself; the route is [`crate::route::Folder`]'s hash.
    pub const PREFIX: u8 = OWN + 5;
    /// One of the three above, and the pattern of a mux that was given the rest of the path; the route is a hash of both.
    pub const JOINED: u8 = OWN + 6;
    /// The pattern of a router that is no ServeMux, and before it what was taken off the path, folded; the route is
    /// [`crate::router::route_behind`]'s hash of both.
    pub const ROUTER: u8 = OWN + 7;
}

/// Whether what ended is a request to count, and not the preface of an HTTP/2 connection in the clear.
#[inline(always)]
pub const fn is_request(series: &SeriesKey) -> bool {
    series.code != 101 || series.verb != crate::method::PREFACE
}

/// Element of the `HTTP_STATES` array, by target id: what the kernel side keeps of a target's requests beside their series.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpState {
    /// Of the target's routes, paths that were first answered with a status that [`turns_away`].
    pub turned_away: u64,
    /// Since when `routed` counts, `CLOCK_MONOTONIC` nanoseconds; 0 while the target has had nothing in `ROUTED`.
    pub routed_since_ns: u64,
    /// Entries that were made in `ROUTED` since, less those whose request has ended: an `i64`.
    pub routed: u64,
}

/// Routes that one pattern may have below it, of as many as its target may have: a tree of files never takes them all.
#[inline(always)]
pub const fn routes_below(max_routes: u32) -> u64 {
    if max_routes / 4 > 1 { max_routes as u64 / 4 } else { 1 }
}

/// Whether a status is one that a ServeMux redirects with to the path that it would rather have been asked for: 301 up to Go 1.25, 307
/// from 1.26 on (net/http/server.go: ServeMux.findHandler).
#[inline(always)]
pub const fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 307 | 308)
}

/// Whether a status may be that of middleware, to whatever path a client makes up: a redirect to a login, 401, 403 and their like.
#[inline(always)]
pub const fn turns_away(status: u16) -> bool {
    status >= 300 && status < 500
}

/// What a route that is [`route_kind::JOINED`] is joined to: its kind; and where that is [`route_kind::SUBTREE`], how many
/// slashes of it are before the one that the pattern stands for.
#[inline(always)]
pub const fn joined_to(kind: u8, slashes: u64) -> u64 {
    (kind as u64) << 32 | slashes
}

const _: () = assert!(
    size_of::<InFlight>() == size_of::<Span>()
        && size_of::<PanicKey>() == 16
        && size_of::<Panicked>() == 40
        && size_of::<Hijacked>() == 24
        && size_of::<Routed>() == 24
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middleware_redirects_and_refuses() {
        assert!((0..1000).filter(|status| is_redirect(*status)).eq([301, 307, 308]));
        assert!((0..1000).filter(|status| turns_away(*status)).eq(300..500));
    }

    #[test]
    fn a_pattern_never_has_all_routes_below_it() {
        assert_eq!(routes_below(100), 25);
        assert_eq!(routes_below(1), 1);
    }

    #[test]
    fn there_are_as_many_statuses_as_http_has() {
        let statuses = |from: u64, to: u64| (from..=to).map(|status| status_code(status, 200));
        assert!(statuses(100, 599).eq(100..=599));
        assert!(statuses(600, 999).chain(statuses(1, 99)).all(|status| status == 0));
        for none in [0, 1000, 1 << 16, u64::MAX] {
            assert_eq!(status_code(none, 500), 500);
        }
    }
}
