//! Code of a program's functions, and the places in it that are probed. Knows nothing of how functions were found.

use super::GoBinary;
use crate::elf::Arch;
use crate::function::Function;
use crate::loads;
use crate::sites::{self, Site, SiteError};

impl GoBinary {
    /// The code of a function, with the padding behind it where its size includes that.
    pub fn code(&self, function: &Function) -> Result<&[u8], SiteError> {
        self.code.get(&function.addr).map(AsRef::as_ref).ok_or_else(|| SiteError::NoCode(function.name.clone()))
    }

    /// The start of a function, past its stack check: it fires once a call, with the argument registers whole.
    pub fn entry_site(&self, function: &Function) -> Result<Site, SiteError> {
        let found = sites::entry(self.arch, self.code(function)?)?;
        self.site(function, found)
    }

    /// The branch of a function's stack check, where the check is of the usual form: `jbe` (amd64), `b.ls` (arm64). Every
    /// kernel emulates it, on amd64 without the write to the stack that a push takes. It is passed at each call with the
    /// argument registers whole, but also where the stack must grow first or the goroutine is to be preempted: the branch
    /// is then taken, which the flags tell at the hit, and the call comes by again from the function's first byte.
    pub fn check_site(&self, function: &Function) -> Option<Site> {
        let found = sites::check(self.arch, self.code(function).ok()?)?;
        self.site(function, found).ok()
    }

    /// Every RET of a function. An error when there may be other ways out, which nothing would then see.
    pub fn return_sites(&self, function: &Function) -> Result<Vec<Site>, SiteError> {
        let found = sites::returns(self.arch, self.code(function)?)?;
        found.into_iter().map(|found| self.site(function, found)).collect()
    }

    /// The branch behind the one call through a pointer in a function whose error is looked at next, as behind `rt.RoundTrip(req)`:
    /// `jne` (amd64), `cbnz` (arm64), which every kernel emulates. Each return of the callee passes it once, with the first result
    /// and the error's type still in the first two registers. An error where there is not exactly one such call.
    pub fn after_call_site(&self, function: &Function) -> Result<Site, SiteError> {
        let found = sites::after_call(self.arch, self.code(function)?)?;
        self.site(function, found)
    }

    /// Whether a wanted function calls another directly, by its address; none where its code was not kept, or the two are so far
    /// apart that on arm64 the linker may have put another jump in between (cmd/link/internal/arm64, `trampoline`).
    pub fn calls(&self, caller: &Function, callee: &Function) -> Option<bool> {
        const NEAR: u64 = 100 << 20;
        if self.arch == Arch::Arm64 && caller.addr.abs_diff(callee.addr) > NEAR {
            return None;
        }
        let code = self.code(caller).ok()?;
        let distance = callee.addr.wrapping_sub(caller.addr).cast_signed();
        Some(sites::calls(self.arch, code).iter().any(|(to, _)| *to == distance))
    }

    /// The one call of another function in a function: `call` (amd64), `bl` (arm64), which every kernel emulates or simulates, with the
    /// callee's arguments in their registers. An error where there is not exactly one.
    pub fn call_site(&self, caller: &Function, callee: &Function) -> Result<Site, SiteError> {
        let distance = callee.addr.wrapping_sub(caller.addr).cast_signed();
        let calls = sites::calls(self.arch, self.code(caller)?);
        let mut found: Vec<_> = calls.into_iter().filter(|(to, _)| *to == distance).map(|(_, found)| found).collect();
        match (found.len(), found.pop()) {
            (1, Some(call)) => self.site(caller, call),
            (count, _) => Err(SiteError::NotOneCall(count)),
        }
    }

    /// The offset of the first field of 4 bytes that a wanted function reads of a struct that it has a pointer to; none where it reads
    /// none, or its code was not kept.
    pub fn first_field_read(&self, function: &Function) -> Option<u32> {
        loads::first_of_4_bytes(self.arch, self.code(function).ok()?)
    }

    /// The file offset that uprobes on a link-time code address are attached by.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.code_segments.iter().find_map(|&(start, offset, size)| {
            let inside = vaddr.checked_sub(start).filter(|&inside| inside < size)?;
            offset.checked_add(inside)
        })
    }

    fn site(&self, function: &Function, found: sites::Found) -> Result<Site, SiteError> {
        let vaddr = function.addr.saturating_add(u64::from(found.offset));
        let file_offset = self.file_offset(vaddr).ok_or_else(|| SiteError::NoCode(function.name.clone()))?;
        Ok(Site {
            vaddr,
            file_offset,
            function_offset: found.offset,
            instruction: found.text,
            cost: sites::cost::KernelFeatures::oldest(self.arch).cost(found.kind),
            kind: found.kind,
        })
    }
}
