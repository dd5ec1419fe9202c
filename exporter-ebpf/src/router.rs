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
    fn only_what_is_there_is_moved() {
        let one = Source { at: 0x40_0000, ..Source::NONE };
        let mut routers = Routers::NONE;
        routers.sources[1] = one;
        let moved = routers.moved(0x1000);
        assert_eq!((moved.sources[0].at, moved.sources[1].at), (0, 0x40_1000));
    }
}
