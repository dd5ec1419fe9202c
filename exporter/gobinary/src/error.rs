//! Why a file could not be inspected, each in one line that says what was wrong and what to do.

use std::io;

use crate::version::GoVersion;

/// An error of [`crate::GoBinary::open`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// No ELF magic.
    #[error("not an ELF file (it starts with {start}): give a Linux executable")]
    NotElf {
        /// The first bytes, in hex.
        start: String,
    },
    /// The file ends before something that its headers promise.
    #[error("truncated: the {part} ends at offset {end:#x}, the file has {len:#x} bytes: copy it again in full")]
    Truncated {
        /// What is missing.
        part: &'static str,
        /// Where it would end.
        end: u64,
        /// Where the file ends.
        len: u64,
    },
    /// A header contradicts itself.
    #[error("malformed: {what}: not an executable that Linux would run as Go")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// ELFCLASS32.
    #[error("a 32-bit executable: only 64-bit amd64 and arm64 programs can be measured")]
    ThirtyTwoBit,
    /// ELFDATA2MSB.
    #[error("a big-endian executable: only little-endian amd64 and arm64 programs can be measured")]
    BigEndian,
    /// Neither amd64 nor arm64.
    #[error("built for machine {0} of the ELF list: only amd64 (62) and arm64 (183) programs can be measured")]
    UnsupportedMachine(u16),
    /// An object file or a core dump.
    #[error("an ELF file of type {0}, not an executable or a shared object")]
    NotExecutable(u16),
    /// No trace of Go.
    #[error("not a Go program: it has neither Go build information nor a Go function table")]
    NotGo,
    /// The UPX packer.
    #[error("packed with UPX: unpack it with upx -d, the packed file cannot be inspected")]
    PackedWithUpx,
    /// A Go without the register ABI.
    #[error(
        "built with {found}: needs Go {needed} or newer on this architecture, older ones pass arguments on the stack"
    )]
    TooOld {
        /// The version found.
        found: GoVersion,
        /// The oldest supported.
        needed: &'static str,
    },
    /// The register ABI was switched off (GOEXPERIMENT of Go 1.17).
    #[error("built with {0}: without the register ABI arguments are passed on the stack, which is not measured")]
    NoRegisters(GoVersion),
    /// No function table where there must be one.
    #[error("built with {0}, but no Go function table (.gopclntab) was found: it may be packed or encrypted")]
    NoPclntab(GoVersion),
    /// A function table of an unknown kind.
    #[error("its function table has the unknown magic {0:#010x}: a Go newer than this program knows, or an obfuscator")]
    UnknownPclntab(u32),
}
