//! What the kernel side and user space agree on for calls of google.golang.org/grpc, whichever end of them is measured.

/// The first number of a status that is none of `google.golang.org/grpc/codes` (0, `OK`, to 16, `UNAUTHENTICATED`).
pub const CODES: u16 = 17;
/// A number that is none of them: a program can give any.
pub const OTHER_CODE: u16 = CODES;
/// The memory with the status could not be read.
pub const UNREADABLE_CODE: u16 = CODES + 1;

/// `codes.ResourceExhausted`.
pub const RESOURCE_EXHAUSTED: u16 = 8;
/// `codes.Unimplemented`.
pub const UNIMPLEMENTED: u16 = 12;

/// The code of a status as it is kept.
#[inline(always)]
pub const fn kept(code: u32) -> u16 {
    if code < CODES as u32 { code as u16 } else { OTHER_CODE }
}

/// Whether a code is in a set of them, which has the bit of each.
#[inline(always)]
pub const fn is_among(code: u16, set: u32) -> bool {
    set & (1 << (code & 31)) != 0
}

/// How a method is known: [`crate::key::SeriesKey::text_kind`].
pub mod method_kind {
    use crate::key::text_kind::OWN;

    /// The method, without the slash before it; the text is a hash of it.
    pub const METHOD: u8 = OWN;
    /// One that the server does not have, or that is none: any client can make those up.
    pub const OTHER: u8 = OWN + 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_is_one_of_its_own() {
        assert_eq!((kept(0), kept(16), kept(17), kept(77), kept(u32::MAX)), (0, 16, 17, 17, 17));
        let set = 1 << UNIMPLEMENTED | 1 << RESOURCE_EXHAUSTED;
        let among: Vec<u16> = (0..=UNREADABLE_CODE).filter(|code| is_among(*code, set)).collect();
        assert_eq!(among, [RESOURCE_EXHAUSTED, UNIMPLEMENTED]);
    }
}
