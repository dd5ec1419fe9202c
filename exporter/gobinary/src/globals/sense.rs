//! What must stand in the file where a variable starts with a value: a last check of an address that code gave.

use super::Global;
use crate::elf::Elf;
use crate::error::Error;
use crate::source::{Le, Source};

/// Size classes of Go 1.17 to 1.27 (runtime/sizeclasses.go, since 1.25 internal/runtime/gc/sizeclasses.go).
const SIZE_CLASSES: usize = 68;
const LARGEST_CLASS: u16 = 32768;
/// The first stack of a goroutine (runtime/stack.go, fixedStack), until the garbage collector measures.
const FIRST_STACK: u32 = 2048;
/// `waitReasonGCAssistMarking` is 1 in every release (runtime/runtime2.go).
const FIRST_REASON: &[u8] = b"GC assist marking";

/// Whether the variable's first value makes sense. True for those that start as zero.
pub(super) fn checks<S: Source>(elf: &Elf<S>, global: Global, address: u64) -> Result<bool, Error> {
    Ok(match global {
        Global::ClassToSize => elf.read(address, 2 * SIZE_CLASSES)?.is_some_and(|bytes| {
            let sizes: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two)).collect();
            sizes.is_sorted_by(|a, b| a < b) && sizes.first() == Some(&0) && sizes.last() == Some(&LARGEST_CLASS)
        }),
        Global::StartingStackSize => {
            elf.read(address, 4)?.and_then(|bytes| bytes.u32_at(0)).is_some_and(|size| size == FIRST_STACK)
        }
        Global::WaitReasonStrings => {
            let second = address.saturating_add(16);
            let len = elf.read(second.saturating_add(8), 8)?.and_then(|bytes| bytes.u64_at(0));
            if len == Some(FIRST_REASON.len() as u64)
                && let Some(text) = elf.pointer(second)?
            {
                elf.read(text, FIRST_REASON.len())?.as_deref() == Some(FIRST_REASON)
            } else {
                false
            }
        }
        _ => true,
    })
}
