//! The series that a request belongs to: its method and route. Knows nothing of when a request begins or ends.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use exporter_ebpf::{
    http::{is_redirect, route_kind, routes_below, turns_away},
    key::{Family, SeriesKey},
    loss::Reason,
    route::{Folder, MAX_PATH, WHOLE_PATH},
    router::PAST_THE_LIMIT,
    target::{NONE, TargetConfig},
};

use super::{
    maps::{HTTP_STATES, add, lost},
    memory::{Buffer, GoString, read, read_bytes},
    request::{Request, Subject, method_of, path, request, set_right, unpacked},
    series::HTTP_SERVER,
    texts::{has_room, is_known, put_text},
};

/// Where a route's text is.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) text: GoString,
    /// The ServeMux pattern that it must be the text of (0: none).
    pub(super) pat: u64,
}

/// The series that a request belongs to, and its route. Nothing is copied for a route known by address. Of a request that is
/// gone only the method may be known.
#[inline(always)]
pub(super) fn series(target: &TargetConfig, subject: &Subject, status: u16) -> (SeriesKey, Route) {
    let (mut series, from) = series_of_method(target, subject, status);
    let Some(from) = from else { return (series, Route { text: GoString::EMPTY, pat: 0 }) };
    let route = route(target, &mut series, subject.address(), &from);
    (series, route)
}

/// The same of a request whose route a router has told, see [`exporter_ebpf::router::IS_ROUTE`].
#[inline(always)]
pub(super) fn series_at_router(target: &TargetConfig, subject: &Subject, status: u16, route: u64) -> SeriesKey {
    let (mut series, _) = series_of_method(target, subject, status);
    if route == PAST_THE_LIMIT {
        past_the_limit(&mut series);
    } else {
        series.text = route;
        series.text_kind = route_kind::ROUTER;
    }
    series
}

/// The series of a request without its route, and what the request says of itself.
#[inline(always)]
fn series_of_method(target: &TargetConfig, subject: &Subject, status: u16) -> (SeriesKey, Option<Request>) {
    let mut series = SeriesKey::of(Family::HttpServer, target.id, status);
    let from = if subject.address() == 0 { None } else { request(target, subject.address()) };
    let Some(mut from) = from else {
        lost(target.id, Reason::Unreadable);
        series.verb = method_of(unpacked(subject.method).ptr, unpacked(subject.method).len) as u8;
        return (series, None);
    };
    if subject.has_line() {
        set_right(&mut from);
    } else if subject.method != 0 {
        from.method = unpacked(subject.method);
    }
    series.verb = method_of(from.method.ptr, from.method.len) as u8;
    (series, Some(from))
}

/// Finds the route and where its text is.
#[inline(always)]
fn route(target: &TargetConfig, series: &mut SeriesKey, address: u64, request: &Request) -> Route {
    let literal = request.pattern.ptr.wrapping_sub(target.literals_from) < target.literals_len;
    if request.pat != 0 && request.pattern.len != 0 && literal {
        // The text is the pattern's own: new_route() verifies this when the series is first seen. One that was made at run time
        // is freed with its mux, and its address is given to another: it is known by its text.
        series.text = request.pattern.ptr ^ (request.pattern.len << 48);
        series.text_kind = route_kind::PATTERN;
        return Route { text: request.pattern, pat: request.pat };
    }
    if request.pattern.len != 0 {
        hashed(target, series, request.pattern, route_kind::PATTERN_TEXT);
        return Route { text: request.pattern, pat: 0 };
    }
    let text = path(target, address, request.target);
    if text.len != 0 {
        hashed(target, series, text, route_kind::PATH);
    }
    Route { text, pat: 0 }
}

/// By itself for its stack, see [`whole_request`].
#[inline(never)]
fn ends_in_slash(text: GoString) -> bool {
    text.len != 0 && read::<u8>(text.ptr.wrapping_add(text.len - 1), 0) == Some(b'/')
}

#[inline(always)]
fn hashed(target: &TargetConfig, series: &mut SeriesKey, text: GoString, kind: u8) {
    // Hidden, so that the compiler makes no copy of the function for one of its values: the verifier would take a copy anew
    // at each call.
    let fold = core::hint::black_box(u64::from(kind == route_kind::PATH));
    series.text = text_route(text.ptr, text.len, fold, WHOLE_PATH, 0);
    series.text_kind = if series.text == 0 { route_kind::NONE } else { kind };
    if series.text == 0 {
        lost(target.id, Reason::Unreadable);
    }
}

/// The route of a text: folded as a path where `fold` is not 0, else hashed as it is; 0 if it cannot be read. A path can be what
/// follows so many slashes of one, see [`Folder::below`]. Global and with
/// plain numbers for arguments, so that the verifier takes it once, by itself, and knows nothing of its result: otherwise
/// each of the loop's 128 ways out is followed through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn text_route(ptr: u64, len: u64, fold: u64, hash: u64, slashes: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let mut path = Buffer::cleared();
    let path = path.bytes();
    let Some(read) = read_bytes(ptr, len, path) else { return 0 };
    let mut folder = Folder::below(hash, slashes as u32);
    let mut plain = len;
    let mut i = 0;
    while i < MAX_PATH {
        if i >= read as usize {
            break;
        }
        let byte = path[i];
        folder.push(byte);
        plain = (plain ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    if fold == 0 { plain | 1 } else { folder.finish(len <= MAX_PATH as u64) }
}

/// Sees to the route of a series that is new. What it calls, it calls one after another: their stacks must not add up.
#[inline(always)]
pub(super) fn new_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, route: &Route) {
    if route.pat != 0 && series.text_kind == route_kind::PATTERN {
        // ServeMux gives the request its pattern's own text (net/http/server.go: ServeMux.findHandler), which lives as long
        // as the mux, so that its address names the route. A handler may have put another there, which may be gone at once.
        let own = read::<GoString>(route.pat, target.pattern_str);
        if !own.is_some_and(|own| own.ptr == route.text.ptr && own.len == route.text.len) {
            hashed(target, series, route.text, route_kind::PATTERN_TEXT);
        }
    }
    insert_route(ctx, target, series, route.text.ptr, route.text.len);
}

/// Whether a route that is new is none: a path that nothing answers to, or not by this method, since scanners would fill the table
/// with them; and one that ServeMux redirects to the same path with a slash, or without superfluous ones, of which it does not tell
/// the pattern. Up to Go 1.25, and for `CONNECT`, it puts the path that it redirects to where the pattern belongs
/// (net/http/server.go: ServeMux.findHandler).
#[inline(always)]
fn is_no_route(target: &TargetConfig, series: &SeriesKey, text: GoString) -> bool {
    let redirected = is_redirect(series.code) && target.request_pat != NONE;
    match series.text_kind {
        route_kind::PATH => redirected || series.code == 404 || series.code == 405,
        route_kind::PATTERN_TEXT => redirected && ends_in_slash(text),
        _ => false,
    }
}

/// Makes sure that a new series' route is one of the target's; past the limit it becomes the overflow route.
#[inline(never)]
fn insert_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, text: u64, len: u64) {
    if series.text_kind == route_kind::NONE || is_known(series) {
        return;
    }
    if is_no_route(target, series, GoString { ptr: text, len }) {
        series.text = 0;
        series.text_kind = route_kind::NONE;
        return;
    }
    // Any client can make up paths that middleware answers.
    let turned_away = series.text_kind == route_kind::PATH && turns_away(series.code);
    let may = has_room::<HTTP_SERVER>(target) && (!turned_away || has_room_for_turned_away(target));
    if may && put_text::<HTTP_SERVER>(series, text, len, 0, 0) {
        if turned_away && let Some(state) = HTTP_STATES.get_ptr_mut(target.id) {
            // SAFETY: from a look-up just above.
            unsafe { add(&raw mut (*state).turned_away, 1) };
        }
        debug!(ctx, "target {} has a new route of {} bytes", target.id, len);
        return;
    }
    past_the_limit(series);
}

/// Whether it may have another of a path that middleware may have answered.
#[inline(always)]
fn has_room_for_turned_away(target: &TargetConfig) -> bool {
    let most = routes_below(target.max_routes);
    // SAFETY: as in `has_room`.
    HTTP_STATES.get_ptr(target.id).is_some_and(|state| unsafe { (*state).turned_away } < most)
}

/// A series whose route finds no room.
#[inline(always)]
pub(super) fn past_the_limit(series: &mut SeriesKey) {
    series.text = 0;
    series.text_kind = route_kind::OVERFLOW;
    lost(series.target.into(), Reason::RouteOverflow);
}
