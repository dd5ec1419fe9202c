//! What the kernel side is told of a program for its gRPC server calls.

use crate::{facts::Moved, target::NONE};

/// Functions that write a call's status before its handler has returned, with the closures that the compiler makes in them.
pub const EARLY: usize = 4;

/// Offsets and addresses in a program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcServer {
    /// Where the code of [`EARLY`] functions begins; 0: there is none.
    pub early: [u64; EARLY],
    /// How many bytes each has.
    pub early_len: [u32; EARLY],
    /// Codes under which a method that is not known is none of the server's, as bits.
    pub unknown: u32,
    /// `method` in the stream that the probes are given, or in the stream that this points to.
    pub method: u16,
    /// 1 where the first word of what the probes are given points to the stream with the method
    /// (`internal/transport.ServerStream` of grpc 1.69 to 1.76).
    pub points: u16,
    /// `Code` in the message of a status.
    pub code: u16,
    /// Always zero.
    pub reserved: [u16; 3],
}

impl GrpcServer {
    /// Of a program of which nothing is known.
    pub const NONE: Self = Self {
        early: [0; EARLY],
        early_len: [0; EARLY],
        unknown: 0,
        method: NONE,
        points: 0,
        code: NONE,
        reserved: [0; 3],
    };

    /// Whether a return address is in one of the [`EARLY`] functions.
    #[inline(always)]
    pub fn is_early(&self, caller: u64) -> bool {
        let mut i = 0;
        while i < EARLY {
            if self.early[i] != 0 && caller.wrapping_sub(self.early[i]) < self.early_len[i] as u64 {
                return true;
            }
            i += 1;
        }
        false
    }
}

impl Moved for GrpcServer {
    fn moved(self, by: u64) -> Self {
        Self { early: self.early.map(|at| at.moved(by)), ..self }
    }
}

const _: () = assert!(size_of::<GrpcServer>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_early_within_the_functions_alone() {
        let facts = GrpcServer { early: [0x1000, 0, 0x3000, 0], early_len: [0x10, 0, 0x20, 8], ..GrpcServer::NONE };
        let early = |caller| facts.moved(0x10_0000).is_early(caller);
        assert!(early(0x10_1000) && early(0x10_100f) && early(0x10_301f));
        for other in [0, 4, 0x10_0000, 0x10_0004, 0x10_1010, 0x10_0fff, 0x10_3020, 0x1000] {
            assert!(!early(other), "{other:#x}");
        }
    }
}
