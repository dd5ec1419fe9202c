//! What calls of google.golang.org/grpc have in common, whichever end of them is measured: the status.

use exporter_ebpf::grpc::{UNREADABLE_CODE, kept};

use super::memory::read;

/// The code of a `*internal/status.Status`, whose one word is the message with the code: none is `OK`, and so is one without a message
/// (internal/status/status.go: `Code`).
#[inline(never)]
pub(super) fn code_of(status: u64, offset: u16) -> u16 {
    if status == 0 {
        return 0;
    }
    match read::<u64>(status, 0) {
        Some(0) => 0,
        Some(message) => read::<u32>(message, offset).map_or(UNREADABLE_CODE, kept),
        None => UNREADABLE_CODE,
    }
}
