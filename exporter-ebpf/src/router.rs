//! What the kernel side is told of the routers in a program: where each comes by with the pattern that it has matched, and how to read that.
//! A router is a few numbers here; nothing names one.

use crate::{facts::Moved, target::NONE};

/// Most routers of one program.
pub const MAX_ROUTERS: usize = 6;
/// Most strings that one pattern is made of: a router that mounts others has one for each level.
pub const MAX_PARTS: usize = 8;

/// In a word where [`crate::http::InFlight::routed`] has an address otherwise: it is the route of a router's pattern. No address of a program has
/// it.
pub const IS_ROUTE: u64 = 1 << 63;
/// Such a route, of a pattern for which the target had no room.
pub const PAST_THE_LIMIT: u64 = IS_ROUTE;

/// No register.
pub const NOWHERE: u8 = u8::MAX;
/// In the place of an argument word: the closure's context register (cmd/compile/abi-internal.md: RDX, on arm64 R26).
pub const CLOSURE: u8 = 16;

/// Where a router comes by. Offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Address in the process of the instruction under the probe; 0: there is no such router.
    pub at: u64,
    /// Which integer argument word there has the holder of the pattern, or [`CLOSURE`].
    pub holder: u8,
    /// Which has the `*http.Request`; [`NOWHERE`] where the holder has it.
    pub request: u8,
    /// Of the holder: a pointer to what has the pattern; [`NONE`] where it is the holder itself.
    pub pointer: u16,
    /// Of that: the pattern, a string; with [`flags::PARTS`] a slice of strings.
    pub text: u16,
    /// Of the holder: the `*http.Request`; with [`flags::CONTEXT`] the data word of its `context.Context`.
    pub request_at: u16,
    /// See [`flags`].
    pub flags: u64,
}

/// Bits of [`Source::flags`].
pub mod flags {
    /// The pattern is a slice of strings, one for each level, the innermost last.
    pub const PARTS: u64 = 1;
    /// The holder knows the request's context, and not the request.
    pub const CONTEXT: u64 = 2;
    /// The router comes by when it is done, what is within it before. Otherwise it comes by once it has matched, and what is within it
    /// after.
    pub const DONE: u64 = 4;
    /// Where nothing matches, the request's own path is in the pattern's place.
    pub const OR_PATH: u64 = 8;
    /// Something may be taken off the path before it, and the request is not known that is left: the paths are compared.
    pub const CUT: u64 = 16;
    /// Go 1.20, whose `timerCtx` begins with a pointer to the `cancelCtx` that others begin with (context/context.go).
    pub const BY_POINTER: u64 = 32;
}

impl Source {
    /// No router.
    pub const NONE: Self =
        Self { at: 0, holder: 0, request: NOWHERE, pointer: NONE, text: NONE, request_at: NONE, flags: 0 };
}

/// The routers of a program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routers {
    /// Where they come by.
    pub sources: [Source; MAX_ROUTERS],
    /// `net/http.Request.ctx`, the interface's data word; [`NONE`] where no source needs it.
    pub request_context: u16,
    /// Always zero.
    pub reserved: [u16; 3],
}

impl Routers {
    /// Of a program without any.
    pub const NONE: Self = Self { sources: [Source::NONE; MAX_ROUTERS], request_context: NONE, reserved: [0; 3] };
}

impl Moved for Routers {
    fn moved(mut self, by: u64) -> Self {
        for source in &mut self.sources {
            source.at = source.at.moved(by);
        }
        self
    }
}

/// The route of a pattern with this hash that follows what was taken off the path, whose folded hash is `prefix`; 0: nothing was.
#[inline(always)]
pub const fn route_behind(prefix: u64, pattern: u64) -> u64 {
    let both =
        if prefix == 0 { pattern } else { (pattern ^ prefix.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    both | IS_ROUTE | 1
}

/// Of a pattern whose first bytes, little endian, are `bytes`: those that a path must begin with, as a mask; none where that is
/// not known. `len` is the pattern's.
#[inline(always)]
pub const fn literal(bytes: u64, len: u64) -> u64 {
    let (mut mask, mut goes_on, mut i) = (0, 1, 0_u64);
    while i < 8 {
        let byte = bytes >> (8 * i) & 0xff;
        goes_on &= (is_zero(byte ^ b'{' as u64) | is_zero(byte ^ b'*' as u64)) ^ 1;
        // Not beyond its end.
        goes_on &= i.wrapping_sub(len) >> 63;
        mask |= (goes_on.wrapping_neg() & 0xff) << (8 * i);
        i += 1;
    }
    mask
}

/// 1 or 0, without a branch.
#[inline(always)]
pub const fn is_zero(word: u64) -> u64 {
    ((word | word.wrapping_neg()) >> 63) ^ 1
}

/// In the place of a number of slashes: whichever fits first.
pub const ANY: u64 = u64::MAX;

/// Finds in a path, byte by byte, the slash where a pattern begins: so many slashes are before it, and a literal follows. Without a
/// branch, which the verifier would follow both ways at each byte.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    window: u64,
    slashes: u64,
    found: u64,
    at: u64,
}

/// Bytes behind a path's that are to be pushed, zero.
pub const BEHIND: usize = 7;

impl Default for Beginning {
    fn default() -> Self {
        Self::new()
    }
}

impl Beginning {
    /// Nothing was pushed.
    #[inline(always)]
    pub const fn new() -> Self {
        Self { window: 0, slashes: 0, found: 0, at: 0 }
    }

    /// Takes the next byte, which is the `i`th. The pattern's first bytes are `literal`, as far as `mask` says, and there are `before`
    /// slashes before it, or [`ANY`].
    #[inline(always)]
    pub const fn push(&mut self, i: u64, byte: u8, literal: u64, mask: u64, before: u64) {
        self.window = self.window >> 8 | (byte as u64) << 56;
        let is_slash = is_zero(self.window & 0xff ^ b'/' as u64);
        let fits = is_zero((self.window ^ literal) & mask) & (is_zero(self.slashes ^ before) | is_zero(!before));
        let here = is_slash & fits & (self.found ^ 1);
        self.at |= i.wrapping_sub(BEHIND as u64) & here.wrapping_neg();
        self.found |= here;
        self.slashes += is_slash;
    }

    /// Bytes before the slash; 0 where there is none.
    #[inline(always)]
    pub const fn bytes_before(self) -> u64 {
        self.at
    }
}

/// The hash of strings, by that of those before and of the next.
#[inline(always)]
pub const fn and_part(before: u64, next: u64) -> u64 {
    (before.rotate_left(29) ^ next).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How a router's pattern is written: [`crate::key::Text::parent`] of a text that is [`crate::http::route_kind::ROUTER`].
pub mod written {
    /// As it is shown.
    pub const WHOLE: u64 = 0;
    /// In [`super::flags::PARTS`], one after another.
    pub const PARTS: u64 = 1;
}

const _: () = assert!(size_of::<Source>() == 24 && size_of::<Routers>() == 24 * MAX_ROUTERS + 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_no_addresses_and_other_prefixes_make_others() {
        let mut seen = std::collections::BTreeSet::new();
        for prefix in 0..50_u64 {
            for pattern in 1..50_u64 {
                let route = route_behind(prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15), and_part(0, pattern));
                assert!(route & IS_ROUTE != 0 && route != PAST_THE_LIMIT);
                seen.insert(route);
            }
        }
        // The lowest bit and the highest are set in all.
        assert_eq!(seen.len(), 50 * 49);
    }

    #[test]
    fn parts_are_told_apart_by_where_they_end() {
        assert_ne!(and_part(and_part(0, 7), 9), and_part(and_part(0, 9), 7));
        assert_ne!(and_part(0, 7), and_part(and_part(0, 7), 7));
    }

    #[test]
    fn what_was_taken_off_is_what_is_before_the_pattern() {
        let cut = |path: &str, pattern: &str, before| {
            let mut first = [0; 8];
            let len = pattern.len().min(8);
            first[..len].copy_from_slice(&pattern.as_bytes()[..len]);
            let bytes = u64::from_le_bytes(first);
            let mask = literal(bytes, pattern.len() as u64);
            let mut beginning = Beginning::new();
            for (i, byte) in path.bytes().chain([0; BEHIND]).enumerate() {
                beginning.push(i as u64, byte, bytes, mask, before);
            }
            path[..beginning.bytes_before() as usize].to_owned()
        };
        for (path, pattern, before, prefix) in [
            ("/svc/a/users/7", "/users/{id}", 2, "/svc/a"),
            ("/svc/a/users/7", "/{user}", 3, "/svc/a/users"),
            ("/users/7", "/users/{id}", 0, ""),
            ("/svc/a/", "/", 2, "/svc/a"),
            ("/svc/a/files/x/y", "/files/*", ANY, "/svc/a"),
            ("/files/x/files/y", "/files/*", ANY, ""),
            ("/api/api/x", "/api/x", 1, "/api"),
            // The path was rewritten in some other way.
            ("/a/b/", "/a/b", 1, ""),
            ("/svc/us", "/users", 1, ""),
        ] {
            assert_eq!(cut(path, pattern, before), prefix, "{path} {pattern}");
        }
    }

    #[test]
    fn only_what_is_there_is_moved() {
        let one = Source { at: 0x40_0000, ..Source::NONE };
        let mut routers = Routers::NONE;
        routers.sources[1] = one;
        let moved = routers.moved(0x1000);
        assert_eq!((moved.sources[0].at, moved.sources[1].at), (0, 0x40_1000));
    }
}
