//! Positioned reads of the input, with limits. Knows nothing of ELF or Go.
//!
//! There is no mmap on purpose: a file that is truncated while mapped kills the reader with SIGBUS.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is held in memory at a time when a large region is searched.
pub(crate) const CHUNK: usize = 128 * 1024;

/// Where the bytes of an executable come from.
pub trait Source {
    /// The length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`; short input is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for File {
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Source::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buf)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
}

/// A source with its length asked once, since for a file every question is a system call, that counts what is read.
pub(crate) struct Fixed<S: Source> {
    src: S,
    len: u64,
    read: Cell<u64>,
}

impl<S: Source> Fixed<S> {
    pub(crate) fn new(src: S) -> Self {
        let len = src.len();
        Self { src, len, read: Cell::new(0) }
    }

    /// Bytes read so far, twice where they were read twice.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.get()
    }
}

impl<S: Source> Source for Fixed<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.set(self.read.get().saturating_add(buf.len() as u64));
        self.src.read_at(offset, buf)
    }
}

/// Reads `len` bytes, of which there may be at most `limit`. `Ok(None)` when the region is not inside the file or is
/// over the limit.
pub(crate) fn read_vec<S: Source>(src: &S, offset: u64, len: u64, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let Ok(wanted) = usize::try_from(len) else { return Ok(None) };
    if wanted > limit || offset.checked_add(len).is_none_or(|end| end > src.len()) {
        return Ok(None);
    }
    let mut buf = vec![0; wanted];
    src.read_at(offset, &mut buf)?;
    Ok(Some(buf))
}

/// Reads up to `len` bytes, fewer at the end of the file.
pub(crate) fn read_up_to<S: Source>(src: &S, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let there = src.len().saturating_sub(offset).min(len as u64);
    let mut buf = vec![0; usize::try_from(there).unwrap_or(0)];
    if !buf.is_empty() {
        src.read_at(offset, &mut buf)?;
    }
    Ok(buf)
}

/// The longest region that is searched, and all that a program may load. Go's linkers cannot make larger ones for these
/// architectures; a file with holes may say it has terabytes.
pub(crate) const MAX_STREAM: u64 = 1 << 30;

/// What a visitor of [`stream`] wants next.
pub(crate) enum Flow {
    Continue,
    Stop,
}

/// Visits a region of the file in chunks that overlap by `overlap` bytes, so that a pattern of up to `overlap + 1`
/// bytes is seen whole in at least one of them. The visitor gets the chunk's offset inside the region.
pub(crate) fn stream<S: Source>(
    src: &S,
    offset: u64,
    len: u64,
    overlap: usize,
    mut visit: impl FnMut(u64, &[u8]) -> Flow,
) -> io::Result<()> {
    let len = len.min(src.len().saturating_sub(offset)).min(MAX_STREAM);
    let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK + overlap)];
    let mut at = 0u64;
    while at < len {
        let take = usize::try_from(len - at).unwrap_or(usize::MAX).min(buf.len());
        let Some(chunk) = buf.get_mut(..take) else { break };
        src.read_at(offset + at, chunk)?;
        if matches!(visit(at, chunk), Flow::Stop) || at + take as u64 >= len {
            break;
        }
        at += (take - overlap).max(1) as u64;
    }
    Ok(())
}

/// A cached window over a region, for reads that mostly go forward (functab and the `_func`s it points to).
pub(crate) struct Window<'s, S: Source> {
    src: &'s S,
    start: u64,
    buf: Vec<u8>,
    rewinds: u32,
    reads: u32,
}

/// A region whose pointers jump back more often than this is hostile: each jump costs a chunk of reading.
const MAX_REWINDS: u32 = 256;
/// Chunks read, 512 MiB of them: function tables of the largest programs take some 30 MiB. Jumps forward through a file
/// with holes would otherwise cost a chunk for each function.
const MAX_READS: u32 = 4096;

impl<'s, S: Source> Window<'s, S> {
    pub(crate) fn new(src: &'s S) -> Self {
        Self { src, start: 0, buf: Vec::new(), rewinds: 0, reads: 0 }
    }

    /// The `len` bytes at a file offset; `Ok(None)` when they are not in the file, or reading jumped back too often.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len as u64).filter(|&end| end <= self.src.len()) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.buf.len() as u64 {
            if offset < self.start {
                self.rewinds = self.rewinds.saturating_add(1);
            }
            if self.rewinds > MAX_REWINDS || self.reads >= MAX_READS {
                return Ok(None);
            }
            self.reads += 1;
            self.buf = read_up_to(self.src, offset, CHUNK.max(len))?;
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(at.checked_add(len).and_then(|end| self.buf.get(at..end)))
    }
}

/// Little-endian integers at an offset of a slice, `None` past its end.
pub(crate) trait Le {
    fn u16_at(&self, at: usize) -> Option<u16>;
    fn u32_at(&self, at: usize) -> Option<u32>;
    fn u64_at(&self, at: usize) -> Option<u64>;
}

impl Le for [u8] {
    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn u64_at(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_shows_every_pattern_whole() {
        let mut data = vec![0u8; 3 * CHUNK];
        let at = CHUNK + 2;
        data[at..at + 8].copy_from_slice(b"12345678");
        let mut seen = Vec::new();
        stream(&data, 0, data.len() as u64, 7, |base, chunk| {
            seen.extend(memchr::memmem::find_iter(chunk, b"12345678").map(|i| base + i as u64));
            Flow::Continue
        })
        .unwrap();
        assert_eq!(seen, [at as u64]);
    }

    /// A file of holes that counts what is read of it.
    struct Holes(std::cell::Cell<u64>);

    impl Source for Holes {
        fn len(&self) -> u64 {
            1 << 50
        }

        fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.set(self.0.get() + buf.len() as u64);
            buf.fill(0);
            Ok(())
        }
    }

    #[test]
    fn files_of_holes_are_not_read_for_long() {
        let holes = Holes(std::cell::Cell::new(0));
        let mut window = Window::new(&holes);
        let answered = (0..100_000u64).filter(|i| window.get(i << 30, 8).unwrap().is_some()).count();
        assert_eq!(answered, MAX_READS as usize);
        assert!(holes.0.replace(0) <= u64::from(MAX_READS) * CHUNK as u64);
        stream(&holes, 0, u64::MAX, 7, |_, _| Flow::Continue).unwrap();
        assert!(holes.0.get() < MAX_STREAM + MAX_STREAM / 8, "{}", holes.0.get());
    }

    #[test]
    fn reads_outside_are_none_not_panics() {
        let data = vec![1u8, 2, 3];
        assert!(read_vec(&data, u64::MAX, 2, 10).unwrap().is_none());
        assert!(read_vec(&data, 0, 3, 2).unwrap().is_none());
        assert!(Window::new(&data).get(2, 2).unwrap().is_none());
        assert_eq!(Window::new(&data).get(1, 2).unwrap(), Some(&[2u8, 3][..]));
        assert_eq!(data.as_slice().u32_at(usize::MAX), None);
    }
}
