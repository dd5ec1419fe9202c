//! HTTP server requests: a start at the handler's call, an end where every normal way out passes, two map operations each.
//! A request is known by its goroutine: net/http calls the handler and ends the request on the same one (net/http/server.go:
//! conn.serve; h2_bundle.go: runHandler), and one goroutine serves one request at a time.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    event,
    http::{self, InFlight, TOLD, XNET, XNET_CALLED, request_key, status_code},
    key::SeriesKey,
    loss::Reason,
    method,
    probe::Probe,
    share::Table,
    span::Span,
    target::{Http2Offsets, NONE, TargetConfig, request_words},
};

use super::{
    below::{admit_below, below},
    hijack::settle_hijack,
    hit::{UNREADABLE, called, word},
    maps::{BPF_NOEXIST, INFLIGHT, REFUSED, lost, tell_once},
    memory::{GoString, read, zero},
    panic::settle_panic,
    request::{Subject, packed, same_word},
    route::{Route, new_route, series, series_at_router},
    routed::{Held, ask_routed},
    router::route_of,
    series::{HTTP_SERVER, admit, count, counted},
    share,
};

/// `net/http.serverHandler.ServeHTTP(rw ResponseWriter, req *Request)`: rw's data word is RCX, req RDI.
#[inline(always)]
pub(super) fn http_start(ctx: &ProbeContext) {
    start(ctx, Probe::HttpStart, 2, 3, 0);
}

/// `golang.org/x/net/http2.(*serverConn).runHandler(rw *responseWriter, req *http.Request, ...)`.
#[inline(always)]
pub(super) fn xnet_start(ctx: &ProbeContext) {
    start(ctx, Probe::XnetStart, 1, 2, XNET);
}

/// `net/http.(*http2responseWriter).handlerDone()`; `net/http/internal/http2.(*responseWriter).handlerDone()` from 1.27.
#[inline(always)]
pub(super) fn http2_end(ctx: &ProbeContext) {
    http2_end_at(ctx, Probe::Http2End, false, |target| &target.h2);
}

/// `golang.org/x/net/http2.(*responseWriter).handlerDone()`.
#[inline(always)]
pub(super) fn xnet_end(ctx: &ProbeContext) {
    http2_end_at(ctx, Probe::XnetEnd, false, |target| &target.xnet);
}

/// The same three, in programs whose routers come by [`super::router::route_seen`].
#[inline(always)]
pub(super) fn http1_end_routed(ctx: &ProbeContext) {
    http1_end_at(ctx, Probe::Http1EndRouted, true);
}

/// See [`http1_end_routed`].
#[inline(always)]
pub(super) fn http2_end_routed(ctx: &ProbeContext) {
    http2_end_at(ctx, Probe::Http2EndRouted, true, |target| &target.h2);
}

/// See [`http1_end_routed`].
#[inline(always)]
pub(super) fn xnet_end_routed(ctx: &ProbeContext) {
    http2_end_at(ctx, Probe::XnetEndRouted, true, |target| &target.xnet);
}

/// The span of a goroutine's request, by its [`request_key`].
#[inline(always)]
pub(super) fn in_flight(key: u64) -> Option<*mut InFlight> {
    INFLIGHT.get_ptr_mut(&key).map(<*mut Span>::cast)
}

#[inline(always)]
fn start(ctx: &ProbeContext, probe: Probe, writer: usize, request: usize, outer: u64) {
    let Some((target, regs)) = called(ctx, probe) else { return };
    let key = request_key(target.id, regs.g());
    // SAFETY: no preconditions.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let entry = InFlight { start_ns, writer: regs.arg(writer), request: regs.arg(request), routed: zero(), outer };
    let Some(slot) = in_flight(key) else {
        return start_first(target, key, &entry);
    };
    // SAFETY: from a look-up just above. Only this goroutine's own probes write its entry, and it is in this one. User space
    // removes idle entries: should it remove this one now, the request is told as lost at its end, as is that of a goroutine
    // that is given the entry's memory in the same moment.
    let slot = unsafe { &mut *slot };
    if slot.writer == 0 {
        *slot = entry;
    } else {
        start_again(target, key, slot, &entry);
    }
}

/// The goroutine has no entry yet.
#[inline(never)]
fn start_first(target: &TargetConfig, key: u64, entry: &InFlight) {
    if entry.outer == 0 && target.xnet.writer_rws != NONE {
        // SAFETY: copied before it is compared.
        let outer = unsafe { REFUSED.get(&key) }.copied();
        if outer == Some(entry.writer) {
            // x/net's runHandler was refused for the same request.
            return;
        }
    }
    // SAFETY: of one layout.
    let span = unsafe { &*core::ptr::from_ref(entry).cast::<Span>() };
    if !share::insert(Table::InFlight, target.id, || INFLIGHT.insert(&key, span, BPF_NOEXIST).is_ok()) {
        lost(target.id, Reason::InFlightFull);
        let outer = if entry.outer == 0 { 0 } else { entry.writer };
        let _ = REFUSED.insert(&key, &outer, 0);
        tell_once(event::IN_FLIGHT_FULL, target.pid);
    }
}

/// A request ended whose start is not in the map. `by_itself`: the server has answered it without a handler.
#[inline(always)]
fn no_start(target: &TargetConfig, g: u64, by_itself: bool) {
    if REFUSED.remove(&request_key(target.id, g)).is_err() && !by_itself {
        lost(target.id, Reason::NoStart);
    }
}

/// `(*response).sendExpectationFailed` is the one answer without a handler that ends as others do (net/http/server.go).
#[inline(never)]
fn no_start_http1(target: &TargetConfig, g: u64, writer: u64) {
    no_start(target, g, word(writer, target.response_status) == 417);
}

/// `new400Handler` (`serve400Handler` from 1.27) and `handleHeaderListTooLong` are no handlers of the program's (h2_bundle.go).
#[inline(never)]
fn no_start_http2(target: &TargetConfig, server: &Http2Offsets, g: u64, writer: u64) {
    let status = word(word(writer, server.writer_rws), server.rws_status);
    no_start(target, g, status == 400 || status == 431);
}

/// The goroutine has not ended its earlier request.
#[inline(never)]
fn start_again(target: &TargetConfig, key: u64, old: &mut InFlight, entry: &InFlight) {
    if old.outer == XNET && entry.outer == 0 && old.writer == entry.writer {
        // x/net's runHandler, then serverHandler.ServeHTTP for the same request. The outer start stands.
        old.request = entry.request;
        old.outer = XNET_CALLED;
        return;
    }
    // The goroutine's address was reused, perhaps the writer's too: the earlier request ended in a panic, in a hijack on another
    // goroutine, or unseen.
    if !settle_panic(key, old.start_ns) && !settle_hijack(target.id, old) && old.outer & TOLD == 0 {
        lost(target.id, Reason::EndNotSeen);
    }
    *old = *entry;
}

/// The request that ends now; its entry is idle from here on. Rewriting an entry costs a third of removing it and inserting it
/// again for the next request of the connection.
#[inline(always)]
pub(super) fn take(target: &TargetConfig, g: u64, writer: u64) -> Option<InFlight> {
    let slot = in_flight(request_key(target.id, g))?;
    // SAFETY: as in `start`.
    let slot = unsafe { &mut *slot };
    if slot.writer != writer {
        return None;
    }
    let entry = *slot;
    slot.writer = 0;
    Some(entry)
}

/// `net/http.(*response).finishRequest()`.
#[inline(always)]
pub(super) fn http1_end(ctx: &ProbeContext) {
    http1_end_at(ctx, Probe::Http1End, false);
}

#[inline(always)]
fn http1_end_at(ctx: &ProbeContext, probe: Probe, has_routers: bool) {
    let Some((target, regs)) = called(ctx, probe) else { return };
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else { return no_start_http1(target, regs.g(), writer) };
    let status = word(writer, target.response_status);
    if has_routers {
        let held = Held::by(target, entry.request);
        let route = route_of(target, entry.request, entry.routed, &held, entry.start_ns);
        if route != 0 {
            return end_at_router(target, entry.start_ns, &Subject::with_line(entry.request), status, route);
        }
    }
    let mut subject = http1_request(target, &entry);
    ask_routed(target, Held::by(target, entry.request), entry.start_ns, true, &mut subject);
    end(ctx, target, &entry, subject, status);
}

/// The request to ask: the copy that a mux was told of, where there is one. The response holds the request until it ends, and
/// with it the first line. Nothing holds the copy once it has been used last: while it shares the line's method or its target,
/// it is whole. Handlers replace either, but hardly both.
#[inline(always)]
pub(super) fn http1_request(target: &TargetConfig, entry: &InFlight) -> Subject {
    let shared = |offset: u64| same_word(entry.request.wrapping_add(offset), entry.routed.wrapping_add(offset)) != 0;
    let copied =
        entry.routed != 0 && (shared(u64::from(target.request_method)) || shared(8 * request_words::URI as u64));
    Subject::with_line(if copied { entry.routed } else { entry.request })
}

#[inline(always)]
fn http2_end_at(ctx: &ProbeContext, probe: Probe, has_routers: bool, server: impl Fn(&TargetConfig) -> &Http2Offsets) {
    let Some((target, regs)) = called(ctx, probe) else { return };
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else {
        return no_start_http2(target, server(target), regs.g(), writer);
    };
    if server(target).writer_rws == NONE {
        return lost(target.id, Reason::LayoutUnknown);
    }
    let (status, mut subject, held) = http2_state(target, server(target), &entry);
    if has_routers {
        let route = route_of(target, entry.request, entry.routed, &held, entry.start_ns);
        if route != 0 {
            return end_at_router(target, entry.start_ns, &subject, status, route);
        }
    }
    ask_routed(target, held, entry.start_ns, true, &mut subject);
    end(ctx, target, &entry, subject, status);
}

/// The status and the request to ask. The response writer's state holds the `*http.Request` until the end, but for Go 1.27's, which
/// holds a `ServerRequest`: there nothing holds the `*http.Request` once it has been used last, as nothing holds a copy that
/// a mux was told of, and the garbage collector may have given its memory to another. What shares the URL or the headers with
/// what is held is whole, since no other request has those. Texts would not do: HPACK's tables give one to many requests.
#[inline(always)]
pub(super) fn http2_state(target: &TargetConfig, server: &Http2Offsets, entry: &InFlight) -> (u64, Subject, Held) {
    let mut held = Held::by(target, entry.request);
    let Some(rws) = read::<u64>(entry.writer, server.writer_rws) else {
        return (UNREADABLE, Subject::of(0), held);
    };
    let status = word(rws, server.rws_status);
    let mut subject = Subject::of(entry.request);
    if server.server_request_url != NONE {
        // The request is part of the state (Go 1.27: `req ServerRequest`).
        let request = rws.wrapping_add(u64::from(server.rws_req));
        held.url = request.wrapping_add(u64::from(server.server_request_url));
        held.header = request.wrapping_add(u64::from(server.server_request_header));
        // The URL follows the method: most often the one look is enough.
        let [ptr, len, url] = read::<[u64; 3]>(request, server.server_request_method).unwrap_or([0; 3]);
        subject.method = packed(GoString { ptr, len });
        let whole = url != 0 && read::<u64>(entry.request, target.request_url) == Some(url);
        if !whole && !held.is_of(target, entry.request) {
            subject.ask(0);
        }
    }
    if entry.routed != 0 && held.is_of(target, entry.routed) {
        subject.ask(entry.routed);
    }
    (status, subject, held)
}

/// The series of a request that was answered, and its route.
#[inline(always)]
pub(super) fn answered(target: &TargetConfig, subject: &Subject, status: u64, unwritten: u16) -> (SeriesKey, Route) {
    if status == UNREADABLE {
        lost(target.id, Reason::Unreadable);
    }
    series(target, subject, status_code(status, unwritten))
}

/// Whether it is to be counted: an HTTP/2 connection's preface is not. `CONNECT` is not answered with 101.
#[inline(always)]
pub(super) fn is_request(series: &mut SeriesKey) -> bool {
    if series.code == 101 && series.verb == method::CONNECT {
        series.code = 200;
    }
    http::is_request(series)
}

#[inline(always)]
fn end(ctx: &ProbeContext, target: &TargetConfig, entry: &InFlight, subject: Subject, status: u64) {
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(entry.start_ns);
    let (mut series, mut route) = answered(target, &subject, status, 200);
    if !is_request(&mut series) {
        return;
    }
    // Where a mux was given a part of the path, its pattern belongs to the route.
    if subject.inner == 0 && counted::<HTTP_SERVER>(&series, duration_ns) {
        return;
    }
    let rest = below(target, &subject, &mut series, &mut route);
    if counted::<HTTP_SERVER>(&rest.series(&series), duration_ns) {
        return;
    }
    new_route(ctx, target, &mut series, &route);
    admit_below(target, &mut series, &rest, subject.inner);
    admit::<HTTP_SERVER>(&mut series);
    count::<HTTP_SERVER>(&series, duration_ns);
}

/// The end of a request whose route a router has told.
#[inline(always)]
fn end_at_router(target: &TargetConfig, start_ns: u64, subject: &Subject, status: u64, route: u64) {
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(start_ns);
    if status == UNREADABLE {
        lost(target.id, Reason::Unreadable);
    }
    let mut series = series_at_router(target, subject, status_code(status, 200), route);
    if !is_request(&mut series) || counted::<HTTP_SERVER>(&series, duration_ns) {
        return;
    }
    admit::<HTTP_SERVER>(&mut series);
    count::<HTTP_SERVER>(&series, duration_ns);
}
