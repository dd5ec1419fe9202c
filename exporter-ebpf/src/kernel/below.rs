//! Routes below a pattern that takes all paths below it. Knows nothing of how a request is read, nor of when it begins or ends.

use exporter_ebpf::{
    http::{ROUTE_TEXT, RouteKey, RouteText, SeriesKey, is_redirect, route_kind, routes_below},
    route::{MAX_PATH, MAX_SEGMENTS},
    target::TargetConfig,
};

use super::{
    maps::{BPF_NOEXIST, HTTP_STATES, ROUTES, add},
    memory::{GoString, read, read_bytes},
    request::{unpacked, wire_path},
    series::{Route, text_route},
};

/// What a path has below a pattern that takes all paths below it.
pub(super) struct Below {
    /// The route of both; 0: none.
    route: u64,
    /// The rest of the path.
    text: GoString,
    /// Slashes of the path before it.
    slashes: u64,
}

impl Below {
    pub(super) const NOTHING: Self = Self { route: 0, text: GoString::EMPTY, slashes: 0 };

    /// The same series below the pattern; the pattern's own where nothing is below.
    #[inline(always)]
    pub(super) fn series(&self, of: &SeriesKey) -> SeriesKey {
        match self.route {
            0 => *of,
            route => SeriesKey { route, route_kind: route_kind::BELOW, ..*of },
        }
    }
}

/// Of a series that is new: makes its route [`route_kind::SUBTREE`] where its pattern takes all paths below it, and finds what is
/// below. No series has such a pattern's address, so that requests of others never come here once they are known.
#[inline(always)]
pub(super) fn below(target: &TargetConfig, of: u64, series: &mut SeriesKey, route: &mut Route) -> Below {
    unknown_series(series);
    *route = Route { text: route.text.unknown(), pat: unknown(route.pat) };
    let below = find_below(target, of, series, route);
    unknown_series(series);
    Below { route: unknown(below.route), text: below.text.unknown(), slashes: unknown(below.slashes) }
}

#[inline(always)]
fn find_below(target: &TargetConfig, of: u64, series: &mut SeriesKey, route: &Route) -> Below {
    let redirected = is_redirect(series.status) && series.route_kind == route_kind::PATTERN_TEXT;
    if redirected || !matches!(series.route_kind, route_kind::PATTERN | route_kind::PATTERN_TEXT) {
        return Below::NOTHING;
    }
    let slashes = subtree(route.text.ptr, route.text.len);
    if slashes == 0 {
        return Below::NOTHING;
    }
    series.route = text_route(route.text.ptr, route.text.len, 0, 0, 0);
    series.route_kind = route_kind::SUBTREE;
    let offsets =
        u64::from(target.request_words) | u64::from(target.request_url) << 16 | u64::from(target.url_path) << 32;
    let path = unpacked(wire_path(of, offsets));
    let at = after_slashes(path.ptr, path.len, slashes);
    let text = GoString { ptr: path.ptr.wrapping_add(at), len: path.len.wrapping_sub(at) };
    Below { route: text_route(text.ptr, text.len, 1, series.route, slashes), text, slashes }
}

/// How many slashes a pattern has that takes all paths below it (`/api/`, `/files/{path...}`); 0 for others, and where so many
/// segments are not kept. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn subtree(ptr: u64, len: u64) -> u64 {
    if len == 0 || len > MAX_PATH as u64 {
        return 0;
    }
    let end = ptr.wrapping_add(len);
    let takes_all = match read::<u8>(end.wrapping_sub(1), 0) {
        Some(b'/') => true,
        Some(b'}') => read::<u32>(end.wrapping_sub(4), 0) == Some(u32::from_le_bytes(*b"...}")),
        _ => false,
    };
    let mut text = [0_u8; MAX_PATH + 1];
    if !takes_all || read_bytes(ptr, len, &mut text).is_none() {
        return 0;
    }
    // What was not read is 0.
    let mut slashes = 0;
    let mut i = 0;
    while i < MAX_PATH {
        slashes += is_slash(text[i]);
        i += 1;
    }
    if slashes < u64::from(MAX_SEGMENTS) { slashes } else { 0 }
}

/// 1 or 0, without a branch.
#[inline(always)]
fn is_slash(byte: u8) -> u64 {
    u64::from(byte ^ b'/').wrapping_sub(1) >> 63
}

/// Where in a path that begins which follows so many slashes; the path's length where there is nothing. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn after_slashes(ptr: u64, len: u64, slashes: u64) -> u64 {
    let mut path = [0_u8; MAX_PATH + 1];
    if len == 0 || read_bytes(ptr, len, &mut path).is_none() {
        return len;
    }
    // What was not read is 0. Bytes are counted until the last slash.
    let (mut left, mut at) = (slashes, 0);
    let mut i = 0;
    while i < MAX_PATH {
        at += left.wrapping_neg() >> 63;
        left = left.wrapping_sub(is_slash(path[i]) & (left.wrapping_neg() >> 63));
        i += 1;
    }
    if left == 0 && at < len { at } else { len }
}

/// Makes the series of a pattern one below it, if that is among the target's routes or may become one: not where the answer says
/// that there is nothing, or to ask elsewhere.
#[inline(never)]
pub(super) fn admit_below(target: &TargetConfig, series: &mut SeriesKey, below: &Below) {
    if below.route == 0 || series.route_kind != route_kind::SUBTREE {
        return;
    }
    let key = RouteKey { route: below.route, target: target.id, route_kind: u32::from(route_kind::BELOW) };
    if ROUTES.get_ptr(&key).is_none() && !insert_below(target, series, below, &key) {
        return;
    }
    series.route = below.route;
    series.route_kind = route_kind::BELOW;
}

#[inline(always)]
fn insert_below(target: &TargetConfig, series: &SeriesKey, below: &Below, key: &RouteKey) -> bool {
    if is_redirect(series.status) || matches!(series.status, 404 | 405) {
        return false;
    }
    let pattern = RouteKey { route: series.route, target: target.id, route_kind: u32::from(route_kind::SUBTREE) };
    let Some(pattern) = ROUTES.get_ptr_mut(&pattern) else { return false };
    let Some(state) = HTTP_STATES.get_ptr_mut(target.id) else { return false };
    // SAFETY: from look-ups just above; races let a few more in, as many as there are CPUs at most.
    let (count, siblings) = unsafe { (&raw mut (*state).routes, &raw mut (*pattern).below) };
    // SAFETY: as above.
    if unsafe { *count >= u64::from(target.max_routes) || *siblings >= routes_below(target.max_routes) } {
        return false;
    }
    let mut route = RouteText {
        len: below.text.len as u32,
        read: 0,
        parent: series.route,
        slashes: below.slashes,
        below: 0,
        text: [0; ROUTE_TEXT],
    };
    route.read = read_bytes(below.text.ptr, below.text.len, &mut route.text).unwrap_or(0);
    if ROUTES.insert(key, &route, BPF_NOEXIST).is_ok() {
        add(count, 1);
        add(siblings, 1);
        return true;
    }
    // Another CPU was first, or the map is full.
    ROUTES.get_ptr(key).is_some()
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
    let rest = u64::from(series.target) | u64::from(series.status) << 32;
    let rest = unknown(rest | u64::from(series.method) << 48 | u64::from(series.route_kind) << 56);
    *series = SeriesKey {
        route: unknown(series.route),
        target: rest as u32,
        status: (rest >> 32) as u16,
        method: (rest >> 48) as u8,
        route_kind: (rest >> 56) as u8,
    };
}
