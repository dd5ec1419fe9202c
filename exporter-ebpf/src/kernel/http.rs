//! HTTP server requests: a start at the handler's call, an end where every normal way out passes, two map operations each.
//! A request is known by its goroutine: net/http calls the handler and ends the request on the same one (net/http/server.go:
//! conn.serve; h2_bundle.go: runHandler), and one goroutine serves one request at a time.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::uprobe,
    programs::ProbeContext,
};
use aya_log_ebpf::debug;
use exporter_ebpf::{
    event,
    histogram::bucket,
    http::{
        InFlight, PanicKey, Panicked, ROUTE_TEXT, RouteKey, RouteText, SeriesKey, SeriesValue, goroutine_key,
        route_kind,
    },
    loss::Reason,
    method,
    route::{Folder, MAX_PATH},
    target::{Http2Offsets, NONE, TargetConfig, request_words, target_slot},
};

use super::{
    maps::{INFLIGHT, PANICS, ROUTE_COUNT, ROUTES, SERIES, TARGET_SLOTS, TARGETS, add, lost, tell},
    memory::{GoString, read, read_bytes, zero},
    regs::Regs,
};

const BPF_NOEXIST: u64 = 1;

super::programs! {
    /// `net/http.serverHandler.ServeHTTP(rw ResponseWriter, req *Request)`: rw's data word is RCX, req RDI.
    http_start, http_start_multi => start(2, 3, 0);
    /// `golang.org/x/net/http2.(*serverConn).runHandler(rw *responseWriter, req *http.Request, ...)`.
    xnet_start, xnet_start_multi => start(1, 2, 1);
    /// `net/http.(*response).finishRequest()`.
    http1_end, http1_end_multi => http1_end_at();
    /// `net/http.(*http2responseWriter).handlerDone()`; `net/http/internal/http2.(*responseWriter).handlerDone()` from 1.27.
    http2_end, http2_end_multi => http2_end_at(|target| &target.h2);
    /// `golang.org/x/net/http2.(*responseWriter).handlerDone()`.
    xnet_end, xnet_end_multi => http2_end_at(|target| &target.xnet);
    /// `net/http.(*response).Hijack()`: the request ends as such; what the connection carries afterwards is not HTTP.
    http_hijack, http_hijack_multi => hijack_at();
    /// `runtime.gopanic` and `runtime.Goexit`: the goroutine may never come to the end of its request.
    http_panic, http_panic_multi => panic_at();
    /// `net/http.(*ServeMux).ServeHTTP(w ResponseWriter, r *Request)`: attached only where middleware hands a copy of the
    /// request to the mux, which then writes the pattern into the copy.
    http_mux, http_mux_multi => mux_at();
}

/// A status that could not be read. A plain number, where an `Option`'s payload would be read undefined: the verifier minds.
const UNREADABLE: u64 = u64::MAX;

#[inline(always)]
fn word(base: u64, offset: u16) -> u64 {
    read::<u64>(base, offset).unwrap_or(UNREADABLE)
}

#[inline(always)]
fn pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn target(pid: u32) -> Option<&'static TargetConfig> {
    if let Some(slot) = TARGET_SLOTS.get(target_slot(pid)) {
        if slot.pid == pid {
            return Some(slot);
        }
    }
    // SAFETY: user space replaces a value only to change limits; offsets of one process never change, so a torn read of a
    // value being replaced reads the same offsets.
    unsafe { TARGETS.get(&pid) }
}

#[inline(always)]
fn start(ctx: &ProbeContext, writer: usize, request: usize, outer: u64) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let key = goroutine_key(target.id, regs.g());
    // SAFETY: no preconditions.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let entry = InFlight { start_ns, writer: regs.arg(writer), request: regs.arg(request), routed: zero(), outer };
    let Some(slot) = INFLIGHT.get_ptr_mut(&key) else {
        if INFLIGHT.insert(&key, &entry, BPF_NOEXIST).is_err() {
            lost(target.id, Reason::InFlightFull);
        }
        return;
    };
    // SAFETY: from a look-up just above. Only this goroutine's own probes write its entry, and it is in this one; user space
    // removes entries that have been idle for a minute (see InFlight).
    let slot = unsafe { &mut *slot };
    if slot.writer == 0 {
        *slot = entry;
    } else {
        start_again(key, slot, &entry);
    }
}

/// The goroutine has not ended its earlier request.
#[inline(never)]
fn start_again(key: u64, old: &mut InFlight, entry: &InFlight) {
    if old.outer > entry.outer && old.writer == entry.writer {
        // x/net's runHandler, then serverHandler.ServeHTTP for the same request. The outer start stands.
        old.request = entry.request;
        old.outer = 0;
        return;
    }
    // The goroutine's address was reused, perhaps the writer's too: the earlier request ended in a panic. User space may have
    // settled it already.
    settle(key, old.start_ns);
    *old = *entry;
}

/// Counts the panicked request that began at `start_ns`, if user space has not. Of this and user space's sweep one alone
/// succeeds in removing the entry, and that one counts.
#[inline(always)]
fn settle(goroutine: u64, start_ns: u64) {
    let key = PanicKey { goroutine, start_ns };
    // SAFETY: copied before it is removed.
    let Some(panicked) = unsafe { PANICS.get(&key) }.copied() else { return };
    if PANICS.remove(&key).is_ok() {
        count(&panicked.series, panicked.duration_ns);
    }
}

/// The request that ends now; its entry is idle from here on. Rewriting an entry costs a third of removing it and inserting it
/// again for the next request of the connection.
#[inline(always)]
fn take(target: &TargetConfig, g: u64, writer: u64) -> Option<InFlight> {
    let slot = INFLIGHT.get_ptr_mut(&goroutine_key(target.id, g))?;
    // SAFETY: as in `start`.
    let slot = unsafe { &mut *slot };
    if slot.writer != writer {
        return None;
    }
    let entry = *slot;
    slot.writer = 0;
    Some(entry)
}

#[inline(always)]
fn http1_end_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else { return lost(target.id, Reason::NoStart) };
    let status = word(writer, target.response_status);
    end(ctx, target, &entry, entry.request, status, 200);
}

#[inline(always)]
fn http2_end_at(ctx: &ProbeContext, server: impl Fn(&TargetConfig) -> &Http2Offsets) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else { return lost(target.id, Reason::NoStart) };
    let (status, request) = http2_state(target, server(target), &entry);
    end(ctx, target, &entry, request, status, 200);
}

/// The status, and the address of the request if it is still there to be read (0 if not). The response writer holds a
/// `*http.Request` until the end, but for Go 1.27's, which holds a `ServerRequest`: nothing holds the `*http.Request` once
/// the handler has returned, and the garbage collector may have taken it. Both share the method's string, so if that is
/// still the same, the request is whole.
#[inline(always)]
fn http2_state(target: &TargetConfig, server: &Http2Offsets, entry: &InFlight) -> (u64, u64) {
    let Some(rws) = read::<u64>(entry.writer, server.writer_rws) else { return (UNREADABLE, 0) };
    let status = word(rws, server.rws_status);
    if server.server_request_method == NONE {
        return (status, entry.request);
    }
    let ours = word(entry.request, target.request_method);
    // The request is part of the state (Go 1.27: `req ServerRequest`).
    let theirs = word(rws.wrapping_add(u64::from(server.rws_req)), server.server_request_method);
    let whole = ours != UNREADABLE && ours == theirs;
    (status, if whole { entry.request } else { 0 })
}

#[inline(always)]
fn hijack_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else { return };
    let status = word(writer, target.response_status);
    end(ctx, target, &entry, entry.request, status, 101);
}

#[inline(always)]
fn mux_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let key = goroutine_key(target.id, regs.g());
    if let Some(entry) = INFLIGHT.get_ptr_mut(&key) {
        // SAFETY: from a look-up just above; only this goroutine's own probes write its entry.
        unsafe { (*entry).routed = regs.arg(3) };
    }
}

#[inline(always)]
fn panic_at(ctx: &ProbeContext) {
    let pid = pid();
    let Some(target) = target(pid) else { return };
    let regs = Regs::of(ctx);
    let key = goroutine_key(target.id, regs.g());
    // SAFETY: copied before use; only this goroutine's own probes write its entry.
    let Some(entry) = unsafe { INFLIGHT.get(&key) }.copied() else { return };
    if entry.writer == 0 {
        return;
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // HTTP/1 if the writer holds this very request where http.response does.
    let status = if read::<u64>(entry.writer, target.response_req) == Some(entry.request) {
        word(entry.writer, target.response_status)
    } else if target.h2.writer_rws != NONE {
        http2_state(target, &target.h2, &entry).0
    } else if target.xnet.writer_rws != NONE {
        http2_state(target, &target.xnet, &entry).0
    } else {
        UNREADABLE
    };
    // Nothing was written yet: the client gets no answer at all, which is the server's failure.
    let (mut series, route) = series(target, entry.request, entry.routed, status_code(status, 500));
    if SERIES.get_ptr(&series).is_none() {
        new_route(ctx, target, &mut series, &route);
    }
    let panicked = Panicked {
        series,
        duration_ns: now.wrapping_sub(entry.start_ns),
        goid: read::<u64>(regs.g(), target.g_goid).unwrap_or(0),
        pid,
        reserved: 0,
    };
    if PANICS.insert(&PanicKey { goroutine: key, start_ns: entry.start_ns }, &panicked, 0).is_err() {
        lost(target.id, Reason::PanicsFull);
    }
    tell(event::PANIC, pid);
}

/// Nothing written is `unwritten`: 200 at a normal end (net/http/server.go: finishRequest).
#[inline(always)]
fn status_code(status: u64, unwritten: u16) -> u16 {
    if status == 0 || status > 999 { unwritten } else { status as u16 }
}

#[inline(always)]
fn end(ctx: &ProbeContext, target: &TargetConfig, entry: &InFlight, request: u64, status: u64, unwritten: u16) {
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(entry.start_ns);
    if status == UNREADABLE {
        lost(target.id, Reason::Unreadable);
    }
    let (mut series, route) = series(target, request, entry.routed, status_code(status, unwritten));
    if series.status == 101 {
        match series.method {
            method::PREFACE => return,
            method::CONNECT => series.status = 200,
            _ => {}
        }
    }
    if let Some(value) = SERIES.get_ptr_mut(&series) {
        record(value, duration_ns);
        return;
    }
    new_route(ctx, target, &mut series, &route);
    count(&series, duration_ns);
}

/// What a request says of its method and route.
#[derive(Clone, Copy)]
struct Request {
    method: GoString,
    /// `Request.URL`; read from the request when it is needed where it is not known.
    url: u64,
    pattern: GoString,
    pat: u64,
}

/// Where a route's text is, and the ServeMux pattern that it must be the text of (0: none).
#[derive(Clone, Copy)]
struct Route {
    text: GoString,
    pat: u64,
}

/// Reads a request: in one go where its layout is the usual one, since a call costs more than the bytes (100 ns each here).
#[inline(always)]
fn request(target: &TargetConfig, address: u64) -> Option<Request> {
    if target.request_words != 0 {
        let mut request = MaybeUninit::uninit();
        if whole_request(address, &mut request) {
            // SAFETY: it says that it was written.
            return Some(unsafe { request.assume_init() });
        }
    }
    let method = read::<GoString>(address, target.request_method)?;
    let mut request = Request { method, url: 0, pattern: GoString::EMPTY, pat: 0 };
    if target.request_pat != NONE {
        request.pat = read::<u64>(address, target.request_pat).unwrap_or(0);
    }
    if target.request_pattern != NONE {
        request.pattern = read::<GoString>(address, target.request_pattern).unwrap_or(GoString::EMPTY);
    } else if request.pat != 0 {
        // Go 1.22 has the pattern, but not its text in the request.
        request.pattern = read::<GoString>(request.pat, target.pattern_str).unwrap_or(GoString::EMPTY);
    }
    if request.pattern.len == 0 {
        request.url = read::<u64>(address, target.request_url).unwrap_or(0);
    }
    Some(request)
}

/// By itself, so that the copy is on the stack only while it is read: a program and what it calls have 512 bytes of it on
/// kernels before 6.13.
#[inline(never)]
fn whole_request(address: u64, request: &mut MaybeUninit<Request>) -> bool {
    let Some(words) = read::<[u64; request_words::WORDS]>(address, 0) else { return false };
    request.write(Request {
        method: GoString { ptr: words[request_words::METHOD], len: words[request_words::METHOD + 1] },
        url: words[request_words::URL],
        pattern: GoString { ptr: words[request_words::PATTERN], len: words[request_words::PATTERN + 1] },
        pat: words[request_words::PAT],
    });
    true
}

/// The series that a request belongs to, and its route. Nothing is copied for a route known by address.
#[inline(always)]
fn series(target: &TargetConfig, address: u64, routed: u64, status: u16) -> (SeriesKey, Route) {
    let mut series = SeriesKey { route: 0, target: target.id, status, method: 0, route_kind: route_kind::NONE };
    let Some(mut from) = (if address == 0 { None } else { request(target, address) }) else {
        lost(target.id, Reason::Unreadable);
        return (series, Route { text: GoString::EMPTY, pat: 0 });
    };
    series.method = method_of(from.method.ptr, from.method.len) as u8;
    if routed != 0 {
        // The copy is held by nothing once the handler has returned; it is whole as long as it shares the method's string.
        if let Some(copy) = request(target, routed) {
            if copy.method.ptr == from.method.ptr {
                from = copy;
            }
        }
    }
    let route = route(target, &mut series, &from);
    (series, route)
}

/// Finds the route and where its text is.
#[inline(always)]
fn route(target: &TargetConfig, series: &mut SeriesKey, request: &Request) -> Route {
    if request.pat != 0 && request.pattern.len != 0 {
        // The text is the pattern's own: whether that holds is seen to where the series is new.
        series.route = request.pattern.ptr ^ (request.pattern.len << 48);
        series.route_kind = route_kind::PATTERN;
        return Route { text: request.pattern, pat: request.pat };
    }
    let mut text = request.pattern;
    let mut kind = route_kind::PATTERN_TEXT;
    if text.len == 0 {
        text = read::<GoString>(request.url, target.url_path).unwrap_or(text);
        kind = route_kind::PATH;
    }
    if text.len != 0 {
        hashed(target, series, text, kind);
    }
    Route { text, pat: 0 }
}

#[inline(always)]
fn hashed(target: &TargetConfig, series: &mut SeriesKey, text: GoString, kind: u8) {
    // Hidden, so that the compiler makes no copy of the function for one of its values: the verifier would take a copy anew
    // at each call.
    let fold = core::hint::black_box(u64::from(kind == route_kind::PATH));
    series.route = text_route(text.ptr, text.len, fold);
    series.route_kind = if series.route == 0 { route_kind::NONE } else { kind };
    if series.route == 0 {
        lost(target.id, Reason::Unreadable);
    }
}

/// The id of the method whose name is at `ptr`. Global and with plain numbers, as [`text_route`]: the verifier would follow each
/// of the dozen constants through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn method_of(ptr: u64, len: u64) -> u64 {
    if len == 0 || len > method::LONGEST as u64 {
        return 0;
    }
    // Eight bytes at once: a heap or read-only string of up to seven is never at the last byte of the address space. Where the
    // next page is not there, byte by byte.
    let bytes = match read::<u64>(ptr, 0) {
        Some(bytes) => bytes,
        None => {
            let mut bytes = [0_u8; 8];
            read_bytes(ptr, len, &mut bytes);
            u64::from_le_bytes(bytes)
        }
    };
    u64::from(method::id(bytes, len))
}

/// The route of a text: folded as a path where `fold` is not 0, else hashed as it is; 0 if it cannot be read. Global and with
/// plain numbers for arguments, so that the verifier takes it once, by itself, and knows nothing of its result: otherwise
/// each of the loop's 128 ways out is followed through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn text_route(ptr: u64, len: u64, fold: u64) -> u64 {
    let mut path = [0_u8; MAX_PATH + 1];
    let Some(read) = read_bytes(ptr, len, &mut path) else { return 0 };
    let mut folder = Folder::new();
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
fn new_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, route: &Route) {
    if route.pat != 0 {
        // ServeMux gives the request its pattern's own text (net/http/server.go: ServeMux.findHandler), which lives as long
        // as the mux, so that its address names the route. A handler may have put another there, which may be gone at once.
        let own = read::<GoString>(route.pat, target.pattern_str);
        if !own.is_some_and(|own| own.ptr == route.text.ptr && own.len == route.text.len) {
            hashed(target, series, route.text, route_kind::PATTERN_TEXT);
        }
    }
    insert_route(ctx, target, series, route.text);
}

/// Makes sure that a new series' route is one of the target's; past the limit it becomes the overflow route.
#[inline(never)]
fn insert_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, text: GoString) {
    if series.route_kind == route_kind::NONE {
        return;
    }
    let key = RouteKey { route: series.route, target: target.id, route_kind: u32::from(series.route_kind) };
    if ROUTES.get_ptr(&key).is_some() {
        return;
    }
    if series.route_kind == route_kind::PATH && (series.status == 404 || series.status == 405) {
        // A path that nothing answers to, or not by this method, is no route: scanners would fill the table with them.
        series.route = 0;
        series.route_kind = route_kind::NONE;
        return;
    }
    if ROUTE_COUNT.get_ptr(&target.id).is_none() {
        let _ = ROUTE_COUNT.insert(&target.id, &0, BPF_NOEXIST);
    }
    let count = ROUTE_COUNT.get_ptr_mut(&target.id);
    // SAFETY: from a look-up just above; a race lets a few routes more in than the limit, as many as there are CPUs at most.
    let room = count.is_some_and(|count| unsafe { *count } < u64::from(target.max_routes));
    let mut route = RouteText { len: text.len as u32, read: 0, text: [0; ROUTE_TEXT] };
    if room {
        route.read = read_bytes(text.ptr, text.len, &mut route.text).unwrap_or(0);
        match ROUTES.insert(&key, &route, BPF_NOEXIST) {
            Ok(()) => {
                if let Some(count) = count {
                    add(count, 1);
                }
                debug!(ctx, "target {} has a new route of {} bytes", target.id, route.len);
                return;
            }
            // Another CPU was first.
            Err(_) if ROUTES.get_ptr(&key).is_some() => return,
            Err(_) => {}
        }
    }
    series.route = 0;
    series.route_kind = route_kind::OVERFLOW;
    lost(target.id, Reason::RouteOverflow);
}

/// Counts one request.
#[inline(always)]
fn count(key: &SeriesKey, duration_ns: u64) {
    if let Some(value) = SERIES.get_ptr_mut(key) {
        record(value, duration_ns);
    } else {
        count_first(key, duration_ns);
    }
}

#[inline(always)]
fn record(value: *mut SeriesValue, duration_ns: u64) {
    let index = bucket(duration_ns);
    // SAFETY: from a map look-up; `bucket` never exceeds the array, and the mask shows it to the verifier: with 32 slots the
    // access would pass the end, so it is compared as well.
    unsafe {
        if index < exporter_ebpf::histogram::BUCKETS {
            add((&raw mut (*value).buckets).cast::<u64>().add(index), 1);
        }
        add(&raw mut (*value).sum_ns, duration_ns);
    }
}

#[inline(never)]
fn count_first(key: &SeriesKey, duration_ns: u64) {
    let _ = SERIES.insert(key, &SeriesValue::ZERO, BPF_NOEXIST);
    if let Some(value) = SERIES.get_ptr_mut(key) {
        record(value, duration_ns);
        return;
    }
    let overflow =
        SeriesKey { route: 0, target: key.target, status: 0, method: 0, route_kind: route_kind::SERIES_OVERFLOW };
    let _ = SERIES.insert(&overflow, &SeriesValue::ZERO, BPF_NOEXIST);
    match SERIES.get_ptr_mut(&overflow) {
        Some(value) => {
            record(value, duration_ns);
            lost(key.target, Reason::SeriesOverflow);
        }
        None => lost(key.target, Reason::SeriesFull),
    }
}

const _: () = assert!(ROUTE_TEXT == MAX_PATH + 1, "both buffers are read with one mask");
