//! By what the kernel side knows series and their texts. A new kind of series is one line of `families!`. Knows nothing of how a
//! series' labels read.

use crate::{
    durations::{Durations, REQUESTS, Scale, WAITS},
    share::Table,
};

/// Declares the families: the scale of their histograms, and the table in which targets have shares of them.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident: $scale:ident, $table:ident;)*) => {
        /// Series of one kind, which have the same labels: a metric.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Family {
            $($(#[$doc])* $family,)*
        }

        impl Family {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$family),*];

            /// The bounds of its histograms.
            #[inline(always)]
            pub const fn scale(self) -> &'static Scale {
                match self {
                    $(Self::$family => const { &$scale },)*
                }
            }

            /// Of which table its series take room.
            #[inline(always)]
            pub const fn table(self) -> Table {
                match self {
                    $(Self::$family => Table::$table,)*
                }
            }
        }
    };
}

families! {
    /// HTTP server requests. The text is the route, the code the status, the verb the method.
    HttpServer: REQUESTS, Series;
    /// Goroutines that were blocked, from `gopark` until they run again. The code is the runtime's wait reason.
    Blocking: WAITS, Waits;
    /// Stops of the world, from the beginning of a stop until it runs again. The code is the runtime's reason.
    Stw: WAITS, Waits;
    /// Threads in the run queue, from being runnable until they have a CPU.
    RunQueue: WAITS, Waits;
    /// HTTP client requests. The text is the server's address, the code the status, the verb the method.
    HttpClient: REQUESTS, Series;
    /// gRPC server calls. The text is the method, the code the status.
    GrpcServer: REQUESTS, Series;
}

/// How many families there are.
pub const FAMILIES: usize = Family::ALL.len();

/// Most series over all targets of families whose texts come from outside (the default of their part of the `SERIES` map).
pub const MAX_SERIES: u32 = 16_384;
/// Most series over all targets of the others (their part of that map).
pub const MAX_WAITS: u32 = 16_384;
/// Most texts over all targets (the size of the `TEXTS` map).
pub const MAX_TEXTS: u32 = 8_192;

impl Family {
    /// The family with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// How a text is known, for all families. Each family has more of its own, from [`text_kind::OWN`] on.
pub mod text_kind {
    /// There is none, or it is not known.
    pub const NONE: u8 = 0;
    /// Past the target's limit of texts.
    pub const OVERFLOW: u8 = 1;
    /// Past the limit of series: code and verb are not kept either.
    pub const SERIES_OVERFLOW: u8 = 2;
    /// The first of a family's own.
    pub const OWN: u8 = 3;
}

/// Key of `SERIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// The text, as `text_kind` says: a hash of it, or where it is; 0 for kinds without one.
    pub text: u64,
    /// The target's id.
    pub target: u16,
    /// A [`Family`] as its number.
    pub family: u8,
    /// One of [`text_kind`], or of the family's own.
    pub text_kind: u8,
    /// What came of it, by numbers of the family's own.
    pub code: u16,
    /// What was asked for, by numbers of the family's own.
    pub verb: u8,
    /// Always zero.
    pub spare: u8,
}

impl SeriesKey {
    /// A series without a text.
    #[inline(always)]
    pub const fn of(family: Family, target: u32, code: u16) -> Self {
        Self {
            text: 0,
            target: target as u16,
            family: family as u8,
            text_kind: text_kind::NONE,
            code,
            verb: 0,
            spare: 0,
        }
    }

    /// The key of a family's overflow series of a target. It is no key of `SERIES`: the series is in [`SeriesState`].
    #[inline(always)]
    pub const fn overflow(family: Family, target: u32) -> Self {
        Self { text_kind: text_kind::SERIES_OVERFLOW, ..Self::of(family, target, 0) }
    }

    /// Whether it is one of those.
    pub const fn is_overflow(&self) -> bool {
        self.text_kind == text_kind::SERIES_OVERFLOW
    }

    /// Its text.
    #[inline(always)]
    pub const fn text_key(&self) -> TextKey {
        TextKey { text: self.text, target: self.target, family: self.family, kind: self.text_kind, spare: 0 }
    }
}

/// Element of the `SERIES_STATES` array, by target id: what is kept of a target's series beside them. An array, so that overflow
/// series have their place however full the map of series is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesState {
    /// By family, the overflow series: what is past the target's share of series, or past the room of all.
    pub overflow: [Durations; FAMILIES],
    /// By family, entries of the target in `TEXTS`.
    pub texts: [u64; FAMILIES],
}

impl SeriesState {
    /// A target of which nothing was counted.
    pub const ZERO: Self = Self { overflow: [Durations::ZERO; FAMILIES], texts: [0; FAMILIES] };
}

/// Key of `TEXTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextKey {
    /// As in [`SeriesKey`].
    pub text: u64,
    /// The target's id.
    pub target: u16,
    /// As in [`SeriesKey`].
    pub family: u8,
    /// [`SeriesKey::text_kind`].
    pub kind: u8,
    /// Always zero.
    pub spare: u32,
}

/// An address in a target's memory, of something that is on a multiple of 8 bytes as all of Go's heap objects with pointers are. One has
/// 48 bits on amd64 and arm64 (runtime/malloc.go: heapAddrBits), so the target's id takes the upper 16. The lower 3 are 0: see
/// [`crate::span::span_key`].
#[inline(always)]
pub const fn address_key(target: u32, address: u64) -> u64 {
    ((target as u64) << 48) | (address & ADDRESS)
}

/// The target's id in an [`address_key`].
pub const fn target_of(key: u64) -> u32 {
    (key >> 48) as u32
}

/// The address in an [`address_key`].
pub const fn address_of(key: u64) -> u64 {
    key & ADDRESS
}

const ADDRESS: u64 = 0xffff_ffff_fff8;

/// Bytes of a text that are kept.
pub const TEXT: usize = 128;

/// Value of `TEXTS`: what a series' text is. Aligned to words, so that the kernel side clears one word by word: byte by byte, the
/// verifier takes 132 rounds of a loop.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Length of the whole text in the target's memory; only [`TEXT`] bytes of it are here.
    pub len: u32,
    /// How many bytes of `text` were read; 0 where the memory could not be read.
    pub read: u32,
    /// Of a route [`crate::http::route_kind::BELOW`] a pattern: the route of that pattern, which is [`crate::http::route_kind::SUBTREE`]. Of
    /// one that is [`crate::http::route_kind::JOINED`]: the route of what comes before it. Of a router's: [`crate::router::written`].
    pub parent: u64,
    /// Of the first: slashes of the path that the pattern stands for; the text is what follows them. Of the second:
    /// [`crate::http::joined_to`]. Of a router's: how many bytes at the beginning are a path.
    pub slashes: u64,
    /// Of a pattern: routes below it.
    pub below: u64,
    /// The bytes.
    pub text: [u8; TEXT],
}

/// A key of something that belongs to a target.
pub trait OfTarget {
    /// The target's id.
    fn target(&self) -> u32;
}

impl OfTarget for SeriesKey {
    #[inline(always)]
    fn target(&self) -> u32 {
        self.target.into()
    }
}

impl OfTarget for TextKey {
    #[inline(always)]
    fn target(&self) -> u32 {
        self.target.into()
    }
}

const _: () = assert!(
    size_of::<SeriesKey>() == 16
        && size_of::<TextKey>() == 16
        && size_of::<Text>() == 32 + TEXT
        && size_of::<SeriesState>() == FAMILIES * (size_of::<Durations>() + 8)
        && crate::target::MAX_TARGETS <= u16::MAX as u32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_number() {
        for (i, family) in Family::ALL.iter().enumerate() {
            assert_eq!((*family as usize, Family::of_number(i as u8)), (i, Some(*family)));
        }
        assert_eq!(Family::of_number(FAMILIES as u8), None);
    }

    #[test]
    fn an_overflow_series_is_like_no_other() {
        for family in Family::ALL {
            let overflow = SeriesKey::overflow(*family, 7);
            assert!(overflow.is_overflow() && !SeriesKey::of(*family, 7, 0).is_overflow());
            assert_eq!((overflow.target(), overflow.text_key().target()), (7, 7));
        }
    }
}
