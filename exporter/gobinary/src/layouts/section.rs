//! `.debug_*` sections, decompressed. Knows nothing of what is in them.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::elf::{Elf, SHF_COMPRESSED};
use crate::error::Error;
use crate::source::{Le, Source, read_up_to};

/// What became of a section.
pub(super) enum Loaded {
    Bytes(Vec<u8>),
    Absent,
    Bad(String),
}

/// Loads `.debug_NAME`, or `.zdebug_NAME` as old linkers wrote it, decompressed.
pub(super) fn load<S: Source>(elf: &Elf<S>, name: &str, limit: u64) -> Result<Loaded, Error> {
    let (plain, old) = (format!(".debug_{name}"), format!(".zdebug_{name}"));
    let too_large = |size: u64| {
        let mib = |n: u64| n >> 20;
        Loaded::Bad(format!(
            "the program's DWARF is too large to read ({plain} {} MiB, limit {})",
            mib(size),
            mib(limit)
        ))
    };
    let (section, header) = match (elf.section(&plain), elf.section(&old)) {
        (Some(s), _) if s.flags & SHF_COMPRESSED != 0 => (s, 24),
        (Some(s), _) => {
            if s.size > limit {
                return Ok(too_large(s.size));
            }
            return Ok(Loaded::Bytes(read_up_to(&elf.src, s.offset, usize::try_from(s.size).unwrap_or(0))?));
        }
        (None, Some(s)) => (s, 12),
        (None, None) => return Ok(Loaded::Absent),
    };
    let head = read_up_to(&elf.src, section.offset, header)?;
    let size = if header == 24 {
        if head.u32_at(0) != Some(1) {
            return Ok(Loaded::Bad(format!("{plain} is compressed by something other than zlib")));
        }
        head.u64_at(8).unwrap_or(u64::MAX)
    } else {
        if !head.starts_with(b"ZLIB") {
            return Ok(Loaded::Bad(format!("{old} has no ZLIB header")));
        }
        head.u64_at(4).map_or(u64::MAX, u64::swap_bytes)
    };
    if size > limit {
        return Ok(too_large(size));
    }
    let reader = SectionReader {
        src: &elf.src,
        at: section.offset + header as u64,
        left: section.size.saturating_sub(header as u64),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    match ZlibDecoder::new(std::io::BufReader::with_capacity(64 * 1024, reader)).take(size).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 == size => Ok(Loaded::Bytes(bytes)),
        Ok(_) => Ok(Loaded::Bad(format!("{plain} is shorter than it says"))),
        Err(error) => Ok(Loaded::Bad(format!("{plain} cannot be decompressed: {error}"))),
    }
}

struct SectionReader<'s, S: Source> {
    src: &'s S,
    at: u64,
    left: u64,
}

impl<S: Source> Read for SectionReader<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(part) = buf.get_mut(..take) else { return Ok(0) };
        self.src.read_at(self.at, part)?;
        self.at += take as u64;
        self.left -= take as u64;
        Ok(take)
    }
}
