//! Routes below a pattern that takes all paths below it. Knows nothing of how a request is read, nor of when it begins or ends.

use exporter_ebpf::{
    http::{is_redirect, joined_to, route_kind, routes_below},
    key::{SeriesKey, TextKey},
    route::{MAX_PATH, MAX_SEGMENTS, WHOLE_PATH},
    target::TargetConfig,
};

use super::{
    joined::{admit_joined, inner_pattern, inner_prefix, offsets, route_of_both},
    maps::{TEXTS, add},
    memory::{Buffer, GoString, read, read_bytes},
    request::{Subject, packed, unpacked, wire_path},
    route::{Route, text_route},
    series::HTTP_SERVER,
    texts::{has_room, is_known, put_text},
};

/// What a path has below a pattern that takes all paths below it.
pub(super) struct Below {
    /// The route of both; 0: none.
    pub(super) route: u64,
    /// The rest of the path, [`packed`].
    text: u64,
    /// The route of both, or of the pattern, and the pattern of a mux that was given what follows; 0: none.
    pub(super) joined: u64,
    /// Of the same: [`exporter_ebpf::http::joined_to`]; with [`SLASHES`], how many slashes of the path are before the rest.
    pub(super) joined_to: u64,
}

/// Beside [`Below::joined_to`], in one word with it for the stack.
const SLASHES: u32 = 48;
/// Of the same word, what [`exporter_ebpf::http::joined_to`] makes.
const JOINED_TO: u64 = (1 << SLASHES) - 1;

impl Below {
    pub(super) const NOTHING: Self = Self { route: 0, text: 0, joined: 0, joined_to: 0 };

    /// The same series below the pattern; the pattern's own where nothing is below.
    #[inline(always)]
    pub(super) fn series(&self, of: &SeriesKey) -> SeriesKey {
        match (self.joined, self.route) {
            (0, 0) => *of,
            (0, route) => SeriesKey { text: route, text_kind: route_kind::BELOW, ..*of },
            (route, _) => SeriesKey { text: route, text_kind: route_kind::JOINED, ..*of },
        }
    }
}

/// Of a series that is new: makes its route [`route_kind::SUBTREE`] where its pattern takes all paths below it, and finds what is
/// below. No series has such a pattern's address, so that requests of others never come here once they are known.
#[inline(always)]
pub(super) fn below(target: &TargetConfig, of: &Subject, series: &mut SeriesKey, route: &mut Route) -> Below {
    unknown_series(series);
    *route = Route { text: route.text.unknown(), pat: unknown(route.pat) };
    let below = find_below(target, of, series, route);
    unknown_series(series);
    Below {
        route: unknown(below.route),
        text: unknown(below.text),
        joined: unknown(below.joined),
        joined_to: unknown(below.joined_to),
    }
}

#[inline(always)]
fn find_below(target: &TargetConfig, of: &Subject, series: &mut SeriesKey, route: &mut Route) -> Below {
    let inner = if of.inner == 0 { 0 } else { inner_pattern(of.inner, offsets(target)) };
    // Of the path, what stands before that pattern.
    let prefix = if inner == 0 { 0 } else { inner_prefix(of.inner, offsets(target)) };
    let mut below = if matches!(series.text_kind, route_kind::PATTERN | route_kind::PATTERN_TEXT) {
        let redirected = is_redirect(series.code) && series.text_kind == route_kind::PATTERN_TEXT;
        let slashes = if redirected { 0 } else { subtree(route.text.ptr, route.text.len) };
        if slashes == 0 {
            return Below::NOTHING;
        }
        series.text = text_route(route.text.ptr, route.text.len, 0, 0, 0);
        series.text_kind = route_kind::SUBTREE;
        let path = if prefix != 0 { prefix } else { wire_path(of.tagged, path_offsets(target)) };
        let path = unpacked(path);
        let at = after_slashes(path.ptr, path.len, slashes);
        let text = GoString { ptr: path.ptr.wrapping_add(at), len: path.len.wrapping_sub(at) };
        let rest = text_route(text.ptr, text.len, 1, series.text, slashes);
        Below { route: rest, text: packed(text), joined: 0, joined_to: slashes << SLASHES }
    } else {
        Below::NOTHING
    };
    if prefix == 0 {
        return below;
    }
    let (prefix, inner) = (unpacked(prefix), unpacked(inner));
    let hash = text_route(inner.ptr, inner.len, 0, 0, 0);
    let mut before = below.route;
    if before != 0 {
        below.joined_to |= joined_to(route_kind::BELOW, 0);
    } else if series.text_kind == route_kind::SUBTREE {
        before = series.text;
        below.joined_to |= joined_to(route_kind::SUBTREE, count(prefix.ptr, prefix.len, b'/'.into()));
    } else {
        before = text_route(prefix.ptr, prefix.len, 1, WHOLE_PATH, 0);
        series.text = before;
        series.text_kind = route_kind::PREFIX;
        *route = Route { text: prefix, pat: 0 };
        below.joined_to |= joined_to(route_kind::PREFIX, 0);
    }
    below.joined = route_of_both(before, below.joined_to & JOINED_TO, hash);
    below
}

/// For [`wire_path`].
#[inline(always)]
fn path_offsets(target: &TargetConfig) -> u64 {
    u64::from(target.request_words) | u64::from(target.request_url) << 16 | u64::from(target.url_path) << 32
}

/// How many slashes a pattern has that takes all paths below it (`/api/`, `/files/{path...}`); 0 for others, and where so many
/// segments are not kept. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn subtree(ptr: u64, len: u64) -> u64 {
    if len == 0 || len > MAX_PATH as u64 {
        return 0;
    }
    let end = ptr.wrapping_add(len);
    let takes_all = match read::<u8>(end.wrapping_sub(1), 0) {
        Some(b'/') => true,
        Some(b'}') => read::<u32>(end.wrapping_sub(4), 0) == Some(u32::from_le_bytes(*b"...}")),
        _ => false,
    };
    let slashes = if takes_all { count(ptr, len, b'/'.into()) } else { 0 };
    if slashes < u64::from(MAX_SEGMENTS) { slashes } else { 0 }
}

/// How often a text has a byte, in the first [`MAX_PATH`]; 0 where it cannot be read. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn count(ptr: u64, len: u64, of: u64) -> u64 {
    let mut text = Buffer::cleared();
    let text = text.bytes();
    if len == 0 || read_bytes(ptr, len, text).is_none() {
        return 0;
    }
    // What was not read is 0.
    let mut found = 0;
    let mut i = 0;
    while i < MAX_PATH {
        found += is(text[i], of as u8);
        i += 1;
    }
    found
}

/// 1 or 0, without a branch.
#[inline(always)]
fn is(byte: u8, of: u8) -> u64 {
    u64::from(byte ^ of).wrapping_sub(1) >> 63
}

/// Where in a path that begins which follows so many slashes; the path's length where there is nothing. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn after_slashes(ptr: u64, len: u64, slashes: u64) -> u64 {
    let mut path = Buffer::cleared();
    let path = path.bytes();
    if len == 0 || read_bytes(ptr, len, path).is_none() {
        return len;
    }
    // What was not read is 0. Bytes are counted until the last slash.
    let (mut left, mut at) = (slashes, 0);
    let mut i = 0;
    while i < MAX_PATH {
        at += left.wrapping_neg() >> 63;
        left = left.wrapping_sub(is(path[i], b'/') & (left.wrapping_neg() >> 63));
        i += 1;
    }
    if left == 0 && at < len { at } else { len }
}

/// Makes the series of a pattern one below it, if that is among the target's routes or may become one: not where the answer says
/// that there is nothing, or to ask elsewhere. And the series of either that of the two and the pattern of `inner`.
#[inline(always)]
pub(super) fn admit_below(target: &TargetConfig, series: &mut SeriesKey, below: &Below, inner: u64) {
    if below.route != 0 {
        insert_below(target, series, below.route, below.text, below.joined_to >> SLASHES);
    }
    if below.joined != 0 {
        admit_joined(target, series, below.joined, below.joined_to & JOINED_TO, inner);
    }
}

/// With plain numbers, which are not on its caller's stack.
#[inline(never)]
fn insert_below(target: &TargetConfig, series: &mut SeriesKey, route: u64, text: u64, slashes: u64) {
    if series.text_kind != route_kind::SUBTREE {
        return;
    }
    let key = SeriesKey { text: route, text_kind: route_kind::BELOW, ..*series };
    if is_known(&key) || (has_room_below(target, series) && put_below(series, &key, unpacked(text), slashes)) {
        *series = key;
    }
}

#[inline(always)]
fn put_below(pattern: &SeriesKey, key: &SeriesKey, text: GoString, slashes: u64) -> bool {
    let put = put_text::<HTTP_SERVER>(key, text.ptr, text.len, pattern.text, slashes);
    if put && let Some(siblings) = siblings(pattern) {
        // SAFETY: from a look-up just above.
        unsafe { add(siblings, 1) };
    }
    put
}

/// How many routes there are below a pattern.
#[inline(always)]
fn siblings(pattern: &SeriesKey) -> Option<*mut u64> {
    let pattern = TextKey { kind: route_kind::SUBTREE, ..pattern.text_key() };
    // SAFETY: from a map look-up.
    TEXTS.get_ptr_mut(&pattern).map(|pattern| unsafe { &raw mut (*pattern).below })
}

#[inline(always)]
fn has_room_below(target: &TargetConfig, pattern: &SeriesKey) -> bool {
    // SAFETY: from a look-up just above; races let a few more in, as many as there are CPUs at most.
    let is_few = |siblings: *mut u64| unsafe { *siblings < routes_below(target.max_routes) };
    let answered = !is_redirect(pattern.code) && !matches!(pattern.code, 404 | 405);
    answered && has_room::<HTTP_SERVER>(target) && siblings(pattern).is_some_and(is_few)
}

/// The same word. The verifier knows nothing of what a global function returns, so that states that differ in this word alone are
/// one to it: otherwise it follows each through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unknown(word: u64) -> u64 {
    let mut word = word;
    // SAFETY: a move of a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) word, options(nomem, nostack)) };
    word
}

impl GoString {
    #[inline(always)]
    fn unknown(self) -> Self {
        Self { ptr: unknown(self.ptr), len: unknown(self.len) }
    }
}

/// The same series, see [`unknown`].
#[inline(always)]
fn unknown_series(series: &mut SeriesKey) {
    let rest = u64::from(series.target) | u64::from(series.family) << 16 | u64::from(series.text_kind) << 24;
    let rest = unknown(rest | u64::from(series.code) << 32 | u64::from(series.verb) << 48);
    *series = SeriesKey {
        text: unknown(series.text),
        target: rest as u16,
        family: (rest >> 16) as u8,
        text_kind: (rest >> 24) as u8,
        code: (rest >> 32) as u16,
        verb: (rest >> 48) as u8,
        spare: 0,
    };
}
