//! Build ids out of ELF notes. Knows nothing of what they are used for.

use crate::elf::Elf;
use crate::error::Error;
use crate::source::{Le, Source, read_up_to};

const MAX_NOTES: usize = 64 * 1024;
const GNU_BUILD_ID: u32 = 3;
const GO_BUILD_ID: u32 = 4;

/// The GNU build id in hex, or else Go's own as text.
pub(crate) fn build_id<S: Source>(elf: &Elf<S>) -> Result<Option<String>, Error> {
    let mut regions: Vec<(u64, u64)> =
        elf.segments.iter().filter(|s| s.is_note()).map(|s| (s.offset, s.file_size)).collect();
    regions.extend(
        [".note.gnu.build-id", ".note.go.buildid"]
            .iter()
            .filter_map(|name| elf.section(name))
            .map(|s| (s.offset, s.size)),
    );
    let mut go = None;
    for (offset, size) in regions {
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_NOTES);
        let bytes = read_up_to(&elf.src, offset, len)?;
        for (owner, kind, value) in Notes(&bytes) {
            if owner == b"GNU\0" && kind == GNU_BUILD_ID && !value.is_empty() && value.len() <= 64 {
                use std::fmt::Write as _;
                return Ok(Some(value.iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })));
            }
            if owner == b"Go\0\0" && kind == GO_BUILD_ID && !value.is_empty() && value.len() <= 512 {
                go = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
            }
        }
    }
    Ok(go)
}

struct Notes<'b>(&'b [u8]);

impl<'b> Iterator for Notes<'b> {
    type Item = (&'b [u8], u32, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = (self.0.u32_at(0)? as usize, self.0.u32_at(4)? as usize);
        let kind = self.0.u32_at(8)?;
        let aligned = |n: usize| n.checked_next_multiple_of(4);
        let name_end = 12usize.checked_add(name)?;
        let value_start = aligned(name_end)?;
        let value_end = value_start.checked_add(value)?;
        let item = (self.0.get(12..name_end)?, kind, self.0.get(value_start..value_end)?);
        self.0 = self.0.get(aligned(value_end)?..).unwrap_or(&[]);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_end_where_the_bytes_do() {
        let mut bytes = Vec::new();
        for word in [4u32, 3, 4] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"Go\0\0abc\0");
        assert_eq!(Notes(&bytes).collect::<Vec<_>>(), [(&b"Go\0\0"[..], 4, &b"abc"[..])]);
        let hostile = [0xff; 40];
        assert_eq!(Notes(&hostile).count(), 0);
    }
}
