//! The series that a request belongs to: its method and route, read from the program's own structs, and the counts that it
//! adds to. Knows nothing of when a request begins or ends.

use core::mem::MaybeUninit;

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use exporter_ebpf::{
    histogram::{BUCKETS, bucket},
    http::{ROUTE_TEXT, RouteKey, RouteText, SeriesKey, SeriesValue, route_kind},
    line::Line,
    loss::Reason,
    method,
    route::{Folder, MAX_PATH},
    target::{NONE, TargetConfig, request_words},
};

use super::{
    maps::{BPF_NOEXIST, HTTP_STATES, ROUTES, SERIES, add, add_time, lost},
    memory::{GoString, read, read_bytes},
};

/// What is asked for a request's method and route.
pub(super) struct Subject {
    /// An `http.Request` of it; 0 where all are gone.
    pub(super) address: u64,
    /// Whether its strings are parts of an HTTP/1 request's first line.
    pub(super) has_line: bool,
    /// Its method, where the server itself holds it; otherwise empty.
    pub(super) method: GoString,
}

impl Subject {
    /// A request of which nothing else is known.
    pub(super) const fn of(address: u64) -> Self {
        Self { address, has_line: false, method: GoString::EMPTY }
    }
}

/// What a request says of its method and route.
#[derive(Clone, Copy)]
struct Request {
    /// As it was on the wire where that can be told. A length of [`BEFORE`]: it stands before the address.
    method: GoString,
    /// The same of `RequestURI`; empty where it was not read.
    target: GoString,
    /// Address of `Proto`; 0 where it was not read.
    version: u64,
    pattern: GoString,
    pat: u64,
}

const BEFORE: u64 = u64::MAX;

/// Where a route's text is.
#[derive(Clone, Copy)]
pub(super) struct Route {
    text: GoString,
    /// The ServeMux pattern that it must be the text of (0: none).
    pat: u64,
}

/// Reads a request: in one go where its layout is the usual one, since a call costs more than the bytes (100 ns each here).
#[inline(always)]
fn request(target: &TargetConfig, address: u64) -> Option<Request> {
    let mut request = MaybeUninit::uninit();
    if usize::from(target.request_words) == request_words::ALL && whole_request(address, &mut request) {
        // SAFETY: it says that it was written.
        return Some(unsafe { request.assume_init() });
    }
    let mut request = if target.request_words != 0 && request_head(address, &mut request) {
        // SAFETY: as above.
        unsafe { request.assume_init() }
    } else {
        Request {
            method: read::<GoString>(address, target.request_method)?,
            target: GoString::EMPTY,
            version: 0,
            pattern: GoString::EMPTY,
            pat: 0,
        }
    };
    if target.request_pat != NONE {
        request.pat = read::<u64>(address, target.request_pat).unwrap_or(0);
    }
    if target.request_pattern != NONE {
        request.pattern = read::<GoString>(address, target.request_pattern).unwrap_or(GoString::EMPTY);
    } else if request.pat != 0 {
        // Go 1.22 has the pattern, but not its text in the request.
        request.pattern = read::<GoString>(request.pat, target.pattern_str).unwrap_or(GoString::EMPTY);
    }
    Some(request)
}

#[inline(always)]
const fn string(words: &[u64], at: usize) -> GoString {
    GoString { ptr: words[at], len: words[at + 1] }
}

/// By itself, so that the copy is on the stack only while it is read: a program and what it calls have 512 bytes of it on
/// kernels before 6.13.
#[inline(never)]
fn whole_request(address: u64, request: &mut MaybeUninit<Request>) -> bool {
    let Some(words) = read::<[u64; request_words::ALL]>(address, 0) else { return false };
    request.write(Request {
        method: string(&words, request_words::METHOD),
        target: string(&words, request_words::URI),
        version: words[request_words::PROTO],
        pattern: string(&words, request_words::PATTERN),
        pat: words[request_words::PAT],
    });
    true
}

/// As [`whole_request`], where what follows the head has another layout.
#[inline(never)]
fn request_head(address: u64, request: &mut MaybeUninit<Request>) -> bool {
    let Some(words) = read::<[u64; request_words::HEAD]>(address, 0) else { return false };
    request.write(Request {
        method: string(&words, request_words::METHOD),
        target: string(&words, request_words::URI),
        version: words[request_words::PROTO],
        pattern: GoString::EMPTY,
        pat: 0,
    });
    true
}

/// Sets the method and the target right by the first line: handlers put others in their place. By itself for the registers.
#[inline(never)]
fn set_right(request: &mut Request) {
    let line = Line {
        method: request.method.ptr,
        method_len: request.method.len,
        target: request.target.ptr,
        target_len: request.target.len,
        version: request.version,
    };
    if line.method_was_replaced() {
        request.method = GoString { ptr: line.target, len: BEFORE };
    } else {
        (request.target.ptr, request.target.len) = line.target();
    }
}

/// The series that a request belongs to, and its route. Nothing is copied for a route known by address. Of a request that is
/// gone only the method may be known.
#[inline(always)]
pub(super) fn series(target: &TargetConfig, subject: &Subject, status: u16) -> (SeriesKey, Route) {
    let mut series = SeriesKey { route: 0, target: target.id, status, method: 0, route_kind: route_kind::NONE };
    let from = if subject.address == 0 { None } else { request(target, subject.address) };
    let Some(mut from) = from else {
        lost(target.id, Reason::Unreadable);
        series.method = method_of(subject.method.ptr, subject.method.len) as u8;
        return (series, Route { text: GoString::EMPTY, pat: 0 });
    };
    if subject.has_line {
        set_right(&mut from);
    } else if subject.method.len != 0 {
        from.method = subject.method;
    }
    series.method = method_of(from.method.ptr, from.method.len) as u8;
    let route = route(target, &mut series, subject.address, &from);
    (series, route)
}

/// Finds the route and where its text is.
#[inline(always)]
fn route(target: &TargetConfig, series: &mut SeriesKey, address: u64, request: &Request) -> Route {
    let literal = request.pattern.ptr.wrapping_sub(target.literals_from) < target.literals_len;
    if request.pat != 0 && request.pattern.len != 0 && literal {
        // The text is the pattern's own: new_route() verifies this when the series is first seen. One that was made at run time
        // is freed with its mux, and its address is given to another: it is known by its text.
        series.route = request.pattern.ptr ^ (request.pattern.len << 48);
        series.route_kind = route_kind::PATTERN;
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

/// The path as it was on the wire, which handlers do not rewrite as they do `URL.Path`; that where the target has escapes, or is
/// of another form than `/path?query`.
#[inline(always)]
fn path(target: &TargetConfig, request: u64, of: GoString) -> GoString {
    let len = if of.len == 0 { 0 } else { plain_path(of.ptr, of.len) };
    if len != 0 {
        return GoString { ptr: of.ptr, len };
    }
    let url = read::<u64>(request, target.request_url).unwrap_or(0);
    read::<GoString>(url, target.url_path).unwrap_or(GoString::EMPTY)
}

/// The length of the path at the beginning of a request's target; 0 where it is none, or is not as it stands there. Global, as
/// [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_path(ptr: u64, len: u64) -> u64 {
    let mut target = [0_u8; MAX_PATH + 1];
    let Some(read) = read_bytes(ptr, len, &mut target) else { return 0 };
    if target[0] != b'/' {
        return 0;
    }
    let mut i = 0;
    while i < MAX_PATH && i < read as usize {
        match target[i] {
            b'?' => return i as u64,
            b'%' => return 0,
            _ => i += 1,
        }
    }
    len
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
    series.route = text_route(text.ptr, text.len, fold);
    series.route_kind = if series.route == 0 { route_kind::NONE } else { kind };
    if series.route == 0 {
        lost(target.id, Reason::Unreadable);
    }
}

/// The id of the method whose name is at `ptr`, or ends before the space before it. Global and with plain numbers, as [`text_route`]: the verifier would follow each
/// of the dozen constants through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn method_of(ptr: u64, len: u64) -> u64 {
    if len == BEFORE {
        // Where the page before is not there, the line begins on this one.
        let on_page = ptr & 0xfff;
        let bytes = match read::<u64>(ptr.wrapping_sub(8), 0) {
            None if on_page < 8 => read::<u64>(ptr - on_page, 0).map(|bytes| bytes << ((64 - 8 * on_page) & 63)),
            bytes => bytes,
        };
        return bytes.map_or(0, |bytes| u64::from(method::id_before(bytes)));
    }
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

/// 1 where the words at both addresses can be read, and are the same and not 0. By itself for its stack, see [`whole_request`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_word(one: u64, other: u64) -> u64 {
    let one = read::<u64>(one, 0);
    u64::from(one.is_some_and(|one| one != 0) && one == read::<u64>(other, 0))
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
pub(super) fn new_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, route: &mut Route) {
    if route.pat != 0 {
        // ServeMux gives the request its pattern's own text (net/http/server.go: ServeMux.findHandler), which lives as long
        // as the mux, so that its address names the route. A handler may have put another there, which may be gone at once.
        let own = read::<GoString>(route.pat, target.pattern_str);
        if !own.is_some_and(|own| own.ptr == route.text.ptr && own.len == route.text.len) {
            hashed(target, series, route.text, route_kind::PATTERN_TEXT);
        }
    }
    insert_route(ctx, target, series, route);
}

/// Whether a route that is new is none: a path that nothing answers to, or not by this method, since scanners would fill the table
/// with them; and one that ServeMux redirects to the same path with a slash, of which it does not tell the pattern. Up to Go 1.25
/// it puts the path that it redirects to where the pattern belongs (net/http/server.go: ServeMux.findHandler).
#[inline(always)]
fn is_no_route(target: &TargetConfig, series: &SeriesKey, text: GoString) -> bool {
    let redirected = series.status == 301 && target.request_pat != NONE;
    match series.route_kind {
        route_kind::PATH => redirected || series.status == 404 || series.status == 405,
        route_kind::PATTERN_TEXT => redirected && ends_in_slash(text),
        _ => false,
    }
}

/// Makes sure that a new series' route is one of the target's; past the limit it becomes the overflow route.
#[inline(never)]
fn insert_route(ctx: &ProbeContext, target: &TargetConfig, series: &mut SeriesKey, from: &Route) {
    let text = from.text;
    if series.route_kind == route_kind::NONE {
        return;
    }
    let key = RouteKey { route: series.route, target: target.id, route_kind: u32::from(series.route_kind) };
    if ROUTES.get_ptr(&key).is_some() {
        return;
    }
    if is_no_route(target, series, text) {
        series.route = 0;
        series.route_kind = route_kind::NONE;
        return;
    }
    // SAFETY: from a map look-up.
    let count = HTTP_STATES.get_ptr_mut(target.id).map(|state| unsafe { &raw mut (*state).routes });
    // SAFETY: from a look-up just above; a race lets a few routes more in than the limit, as many as there are CPUs at most.
    let room = count.is_some_and(|count| unsafe { *count } < u64::from(target.max_routes));
    let mut route = RouteText { len: text.len as u32, read: 0, parent: 0, slashes: 0, below: 0, text: [0; ROUTE_TEXT] };
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

/// Makes sure that a series has its entry. Past the target's limit, or that of all, it becomes the target's overflow series.
#[inline(never)]
pub(super) fn admit(series: &mut SeriesKey, max_series: u32) {
    if SERIES.get_ptr(series).is_some() {
        return;
    }
    if let Some(state) = HTTP_STATES.get_ptr_mut(series.target) {
        // SAFETY: from a look-up just above; a race lets a few series more in than the limit, as many as there are CPUs at most.
        unsafe {
            if (*state).series < u64::from(max_series) && SERIES.insert(series, &SeriesValue::ZERO, BPF_NOEXIST).is_ok()
            {
                add(&raw mut (*state).series, 1);
                return;
            }
        }
    }
    // Another CPU may have been first.
    if SERIES.get_ptr(series).is_none() {
        *series = SeriesKey::overflow(series.target);
    }
}

/// Counts one request of a series that was admitted.
#[inline(never)]
pub(super) fn count(key: &SeriesKey, duration_ns: u64) {
    if let Some(value) = SERIES.get_ptr_mut(key) {
        record(value, duration_ns);
    } else if let Some(state) = HTTP_STATES.get_ptr_mut(key.target) {
        // SAFETY: from a look-up just above.
        record(unsafe { &raw mut (*state).overflow }, duration_ns);
        lost(key.target, Reason::SeriesOverflow);
    }
}

#[inline(always)]
pub(super) fn record(value: *mut SeriesValue, duration_ns: u64) {
    let index = bucket(duration_ns);
    // SAFETY: from a map look-up; `bucket` never exceeds the array, and the mask shows it to the verifier: with 32 slots the
    // access would pass the end, so it is compared as well.
    unsafe {
        if index < BUCKETS {
            add((&raw mut (*value).buckets).cast::<u64>().add(index), 1);
        }
        add_time(&raw mut (*value).sum_ns, duration_ns);
    }
}

const _: () = assert!(ROUTE_TEXT == MAX_PATH + 1, "both buffers are read with one mask");
