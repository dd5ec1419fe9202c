//! Routers: the pattern that one has matched, noted with the request that its goroutine serves, or for whoever serves it. Knows no
//! router by name, and nothing of when a request begins or ends.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use exporter_ebpf::{
    feature::Feature,
    http::{request_key, route_kind},
    key::{Family, SeriesKey, Text},
    route::{MAX_PATH, WHOLE_PATH},
    router::{
        ANY, BEHIND, Beginning, IS_ROUTE, MAX_PARTS, MAX_ROUTERS, NOWHERE, PAST_THE_LIMIT, Source, and_part, flags,
        is_zero, literal, route_behind, written,
    },
    target::{NONE, TargetConfig},
};

use super::{
    below::count,
    hit::measured,
    http::in_flight,
    maps::{FACTS, HTTP_STATES},
    memory::{Buffer, GoString, read, read_bytes, zero},
    mux::same_path,
    regs::Regs,
    request::{packed, same_word, unpacked},
    route::text_route,
    routed::{Held, keep_route, take_route},
    series::HTTP_SERVER,
    texts::{has_room, is_known, put},
};

/// Contexts that the one which a router has may be of, the innermost first: that of the connection's request is among them.
const CONTEXTS: usize = 4;
/// Of a `context.Context` that is made of another: the other's data word. So it is in `valueCtx`, `cancelCtx` and, but for Go 1.20,
/// `timerCtx` (context/context.go), whose first field is the other, an interface.
const PARENT_CONTEXT: u16 = 8;

/// Where one of the program's [`Source`]s is.
#[inline(always)]
pub(super) fn route_seen(ctx: &ProbeContext) {
    let Some(target) = measured(Feature::Http) else { return };
    let Some(facts) = FACTS.get(target.id) else { return };
    let regs = Regs::of(ctx);
    let at = regs.place().0;
    let mut source = Source::NONE;
    let mut i = 0;
    while i < MAX_ROUTERS {
        let one = &facts.routers.sources[i];
        if one.at == at {
            source = *one;
            break;
        }
        i += 1;
    }
    let holder = regs.named(source.holder);
    if source.at == 0 || holder == 0 {
        return;
    }
    let mut request = regs.named(source.request);
    if source.request == NOWHERE {
        request = read::<u64>(holder, source.request_at).unwrap_or(0);
    }
    seen(target, regs.g(), &source, holder, request);
}

/// What a router has matched.
struct Matched {
    /// Address of the strings that the pattern is made of.
    strings: u64,
    /// How many.
    count: u64,
    /// What was taken off the path before, [`packed`]; 0: nothing.
    prefix: u64,
    /// See [`written`].
    written: u64,
}

#[inline(never)]
fn seen(target: &TargetConfig, g: u64, source: &Source, holder: u64, request: u64) {
    let mut of = holder;
    if source.pointer != NONE {
        of = read::<u64>(holder, source.pointer).unwrap_or(0);
    }
    let mut matched =
        Matched { strings: of.wrapping_add(u64::from(source.text)), count: 1, prefix: 0, written: written::WHOLE };
    if source.flags & flags::PARTS != 0 {
        [matched.strings, matched.count] = read::<[u64; 2]>(of, source.text).unwrap_or([0; 2]);
        matched.written = written::PARTS;
    }
    let pattern = if of == 0 { 0 } else { pattern_of(matched.strings, matched.count) };
    if pattern == 0 {
        return;
    }
    let paths = u64::from(target.request_url) | u64::from(target.url_path) << 16;
    if source.flags & flags::OR_PATH != 0 && is_path(matched.strings, request, paths) != 0 {
        return;
    }
    // SAFETY: from a look-up in this expression; only this goroutine's own probes write its entry.
    let own = in_flight(request_key(target.id, g)).map(|entry| unsafe { &mut *entry });
    let Some(entry) = own.filter(|entry| entry.writer != 0) else {
        let route = admit_route(target, route_behind(0, pattern), &matched);
        return note(target, request, source.flags, route);
    };
    if source.flags & flags::CONTEXT == 0 && !is_same(target, entry.request, request) {
        return;
    }
    // What is within a router is done before it, and says more than a pattern that takes all.
    if source.flags & flags::DONE != 0 && entry.routed & IS_ROUTE != 0 && takes_all(&matched) {
        return;
    }
    let mut prefix = 0;
    if source.flags & flags::CUT != 0 {
        matched.prefix = cut_by_path(target, entry.request, &matched);
    } else if source.flags & flags::CONTEXT == 0 {
        matched.prefix = cut_before(entry.request, request, paths);
    }
    let cut = unpacked(matched.prefix);
    if cut.len != 0 {
        prefix = text_route(cut.ptr, cut.len, 1, WHOLE_PATH, 0);
    }
    entry.routed = admit_route(target, route_behind(prefix, pattern), &matched);
}

/// Whether a router was given a request or a copy of it. A handler may give a router requests of its own making, too. By itself for its stack.
#[inline(never)]
fn is_same(target: &TargetConfig, one: u64, other: u64) -> bool {
    let header = u64::from(target.request_header);
    same_word(one.wrapping_add(header), other.wrapping_add(header)) != 0 || same_path(target, one, other) != 0
}

/// The hash of a pattern that is made of strings; 0 where there is none, or where it is none: those of paths begin with a slash. Global, as
/// [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pattern_of(strings: u64, count: u64) -> u64 {
    if count == 0 || count > MAX_PARTS as u64 {
        return 0;
    }
    let mut hash = 0;
    let mut i = 0;
    while i < MAX_PARTS {
        if i as u64 >= count {
            break;
        }
        let part = read::<GoString>(strings, 16 * i as u16).unwrap_or(GoString::EMPTY);
        if i == 0 && (part.len == 0 || read::<u8>(part.ptr, 0) != Some(b'/')) {
            return 0;
        }
        if part.len != 0 {
            let next = text_route(part.ptr, part.len, 0, 0, 0);
            if next == 0 {
                return 0;
            }
            hash = and_part(hash, next);
        }
        i += 1;
    }
    hash
}

/// Whether the last of the strings has a `*`.
#[inline(always)]
fn takes_all(matched: &Matched) -> bool {
    let last = matched.strings.wrapping_add(16 * matched.count.wrapping_sub(1));
    let last = read::<GoString>(last, 0).unwrap_or(GoString::EMPTY);
    count(last.ptr, last.len, b'*'.into()) != 0
}

/// 1 where a string is a part of a request's own path: echo until 4.10 has that in the pattern's place where nothing matches. With
/// [`exporter_ebpf::target::TargetConfig::request_url`] and `url_path`. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_path(string: u64, request: u64, offsets: u64) -> u64 {
    let text = read::<u64>(string, 0).unwrap_or(0);
    let url = read::<u64>(request, offsets as u16).unwrap_or(0);
    let path = (offsets >> 16) as u16;
    // net/url.URL: Path, then RawPath.
    let [of_path, _, of_raw] = read::<[u64; 3]>(url, path).unwrap_or([0; 3]);
    u64::from(text == of_path || text == of_raw)
}

/// What stands in an outer request's path before that of an inner one, [`packed`]; 0 where they begin alike, or are of others. `http.StripPrefix`
/// leaves what is left where it is. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn cut_before(outer: u64, inner: u64, offsets: u64) -> u64 {
    let path = |request| {
        let url = read::<u64>(request, offsets as u16).unwrap_or(0);
        read::<GoString>(url, (offsets >> 16) as u16).unwrap_or(GoString::EMPTY)
    };
    let (whole, own) = (path(outer), path(inner));
    let cut = whole.len.wrapping_sub(own.len);
    if own.len == 0 || cut == 0 || cut > MAX_PATH as u64 || own.ptr.wrapping_sub(whole.ptr) != cut {
        return 0;
    }
    if read::<u8>(own.ptr, 0) != Some(b'/') || read::<u8>(whole.ptr, 0) != Some(b'/') {
        return 0;
    }
    packed(GoString { ptr: whole.ptr, len: cut })
}

/// The same where the inner request is not known, by the pattern and the outer path: what is too much of that, if the pattern's beginning follows
/// it. Chi's parameters have no slashes in them.
#[inline(never)]
fn cut_by_path(target: &TargetConfig, outer: u64, matched: &Matched) -> u64 {
    let url = read::<u64>(outer, target.request_url).unwrap_or(0);
    let path = read::<GoString>(url, target.url_path).unwrap_or(GoString::EMPTY);
    let first = read::<GoString>(matched.strings, 0).unwrap_or(GoString::EMPTY);
    let bytes = read::<u64>(first.ptr, 0).unwrap_or(0);
    let mut before = ANY;
    if !takes_all(matched) {
        let in_pattern = slashes_of(matched.strings, matched.count, last_byte(path));
        before = count(path.ptr, path.len, b'/'.into()).wrapping_sub(in_pattern);
        // Nothing is too much, or too little is there.
        if before.wrapping_sub(1) >= MAX_PATH as u64 {
            return 0;
        }
    }
    let len = before_pattern(path.ptr, path.len, bytes, literal(bytes, first.len), before);
    packed(GoString { ptr: path.ptr, len })
}

#[inline(always)]
fn last_byte(string: GoString) -> u64 {
    read::<u8>(string.ptr.wrapping_add(string.len).wrapping_sub(1), 0).unwrap_or(0).into()
}

/// How many slashes a pattern's paths have, of several strings, each but the last with a `*` at its end for what the next says. A path that does not
/// end in a slash is that of a mounted router's root itself. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slashes_of(strings: u64, number: u64, path_ends_in: u64) -> u64 {
    let mut slashes = 0_u64;
    let mut i = 0;
    while i < MAX_PARTS {
        if i as u64 >= number {
            break;
        }
        let part = read::<GoString>(strings, 16 * i as u16).unwrap_or(GoString::EMPTY);
        slashes = slashes.wrapping_add(count(part.ptr, part.len, b'/'.into()));
        let stands_for_rest = is_zero(last_byte(part) ^ u64::from(b'*'));
        let is_root = is_zero(part.len ^ 1) & (is_zero(path_ends_in ^ u64::from(b'/')) ^ 1) & u64::from(i > 0);
        slashes = slashes.wrapping_sub(stands_for_rest).wrapping_sub(is_root);
        i += 1;
    }
    slashes
}

/// Bytes of a path before what begins with a literal, see [`Beginning`]. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn before_pattern(ptr: u64, len: u64, bytes: u64, mask: u64, before: u64) -> u64 {
    let mut path = Buffer::cleared();
    let path = path.bytes();
    if mask == 0 || len == 0 || len > (MAX_PATH - BEHIND) as u64 || read_bytes(ptr, len, path).is_none() {
        return 0;
    }
    // What was not read is 0.
    let mut beginning = Beginning::new();
    let mut i = 0;
    while i < MAX_PATH {
        beginning.push(i as u64, path[i], bytes, mask, before);
        i += 1;
    }
    beginning.bytes_before()
}

/// The route, once it is among its target's; else what says that there is no room.
#[inline(always)]
fn admit_route(target: &TargetConfig, route: u64, matched: &Matched) -> u64 {
    let mut key = SeriesKey::of(Family::HttpServer, target.id, 0);
    key.text = route;
    key.text_kind = route_kind::ROUTER;
    if is_known(&key) || (has_room::<HTTP_SERVER>(target) && put_pattern(&key, matched)) {
        return route;
    }
    PAST_THE_LIMIT
}

/// Of a string, as much is copied at one time.
const PIECE: u64 = 63;

/// A text, and room for the end of a piece that does not fit.
#[repr(C)]
struct Wide {
    text: Text,
    beyond: [u64; 8],
}

/// Puts the pattern's text among the target's.
#[inline(never)]
fn put_pattern(key: &SeriesKey, matched: &Matched) -> bool {
    // SAFETY: of one size, and any words are such a value. Word by word, see `Buffer`.
    let mut wide = unsafe { core::mem::transmute::<[u64; size_of::<Wide>() / 8], Wide>([zero(); _]) };
    let prefix = unpacked(matched.prefix);
    let mut read_so_far = append(&mut wide, 0, prefix);
    wide.text.slashes = read_so_far;
    let mut len = prefix.len;
    let mut i = 0;
    while i < MAX_PARTS {
        if i as u64 >= matched.count {
            break;
        }
        let part = read::<GoString>(matched.strings, 16 * i as u16).unwrap_or(GoString::EMPTY);
        read_so_far = append(&mut wide, read_so_far, part);
        len = len.wrapping_add(part.len);
        i += 1;
    }
    wide.text.len = len as u32;
    wide.text.read = read_so_far as u32;
    wide.text.parent = matched.written;
    put::<HTTP_SERVER>(key, &wide.text)
}

/// Puts a string behind the first `at` bytes of a text; how many there are then.
#[inline(always)]
fn append(wide: &mut Wide, at: u64, string: GoString) -> u64 {
    let at = append_piece(wide, at, string);
    if string.len <= PIECE {
        return at;
    }
    append_piece(wide, at, GoString { ptr: string.ptr.wrapping_add(PIECE), len: string.len - PIECE })
}

#[inline(always)]
fn append_piece(wide: &mut Wide, at: u64, string: GoString) -> u64 {
    const MASK: u64 = MAX_PATH as u64;
    // Masked for the verifier, see `read_bytes`.
    let offset = core::hint::black_box(at) & MASK;
    let len = core::hint::black_box(if string.len > PIECE { PIECE } else { string.len }) & PIECE;
    let text = core::ptr::from_mut(wide).cast::<u8>().wrapping_add(core::mem::offset_of!(Text, text));
    // SAFETY: the text and what follows it have room for a piece that begins at its last byte.
    unsafe { bpf_probe_read_user(text.wrapping_add(offset as usize).cast(), len as u32, string.ptr as *const _) };
    let behind = offset + len;
    if behind > MASK { MASK } else { behind }
}

const _: () = assert!(
    MAX_PATH == 127 && core::mem::offset_of!(Wide, beyond) == size_of::<Text>() && size_of::<[u64; 8]>() as u64 > PIECE
);

/// Notes a route for a request that another goroutine serves: by the headers that copies of it share, or by its context and those which that
/// is made of.
#[inline(never)]
fn note(target: &TargetConfig, of: u64, how: u64, route: u64) {
    if how & flags::CONTEXT == 0 {
        return keep_route(target, read::<u64>(of, target.request_header).unwrap_or(0), route, 1);
    }
    if how & flags::BY_POINTER != 0 {
        let cancel = read::<u64>(of, 0).unwrap_or(0);
        keep_route(target, read::<u64>(cancel, PARENT_CONTEXT).unwrap_or(0), route, 0);
    }
    let mut context = of;
    let mut i = 0;
    while i < CONTEXTS {
        // They count as one.
        keep_route(target, context, route, u64::from(i == 0));
        context = read::<u64>(context, PARENT_CONTEXT).unwrap_or(0);
        i += 1;
    }
}

/// The route that a router has found for a request that ends, see [`IS_ROUTE`]; 0 where none has.
#[inline(always)]
pub(super) fn route_of(target: &TargetConfig, request: u64, routed: u64, held: &Held, start_ns: u64) -> u64 {
    if routed & IS_ROUTE != 0 {
        return routed;
    }
    let Some(state) = HTTP_STATES.get_ptr(target.id) else { return 0 };
    // SAFETY: from a look-up just above.
    if unsafe { (*state).routed_since_ns } == 0 {
        return 0;
    }
    let route = take_route(target, read::<u64>(held.header, 0).unwrap_or(0), start_ns);
    let context = FACTS.get(target.id).map_or(NONE, |facts| facts.routers.request_context);
    if route != 0 || context == NONE || !held.is_of(target, request) {
        return route;
    }
    take_route(target, read::<u64>(request, context).unwrap_or(0), start_ns)
}
