//! Segments and sections.

use super::constants::{PF_W, PF_X, PT_LOAD, PT_NOTE};

/// A PT_LOAD, PT_NOTE or PT_DYNAMIC segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) file_size: u64,
    pub(crate) mem_size: u64,
}

impl Segment {
    pub(crate) fn is_load(&self) -> bool {
        self.kind == PT_LOAD
    }

    pub(crate) fn is_note(&self) -> bool {
        self.kind == PT_NOTE
    }

    pub(crate) fn executable(&self) -> bool {
        self.flags & PF_X != 0
    }

    pub(crate) fn writable(&self) -> bool {
        self.flags & PF_W != 0
    }
}

/// A section header that has a name.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) addr: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
}
