//! Reads of the measured program's memory. Nothing is ever written. Addresses and lengths come from the program and are
//! hostile: a read that fails gives `None`, and no read is longer than its buffer.

use aya_ebpf::helpers::{bpf_probe_read_user, generated};

/// A Go string header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct GoString {
    pub(crate) ptr: u64,
    pub(crate) len: u64,
}

impl GoString {
    pub(crate) const EMPTY: Self = Self { ptr: 0, len: 0 };
}

/// The value at `base + offset`.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, offset: u16) -> Option<T> {
    // SAFETY: the helper checks the address; every T used here is plain data, any bytes of which are a value.
    unsafe { bpf_probe_read_user((base.wrapping_add(u64::from(offset))) as *const T) }.ok()
}

/// Reads the first `len` bytes at `ptr`, at most `MASK`, into `buffer`, whose size must be `MASK` + 1 (a power of two): the
/// verifier wants to see the bound. Returns how many.
#[inline(always)]
pub(crate) fn read_bytes<const SIZE: usize>(ptr: u64, len: u64, buffer: &mut [u8; SIZE]) -> Option<u32> {
    let mask = SIZE as u64 - 1;
    let wanted = if len > mask { mask } else { len };
    // The compiler knows the value is in bounds and would drop a plain mask; the verifier needs it.
    let wanted = core::hint::black_box(wanted) & mask;
    // SAFETY: the destination is SIZE bytes long and `wanted` is at most SIZE - 1.
    let failed = unsafe { generated::bpf_probe_read_user(buffer.as_mut_ptr().cast(), wanted as u32, ptr as *const _) };
    (failed == 0).then_some(wanted as u32)
}

/// Zero, hidden from the compiler: it makes a call of `memset` of two zero words side by side, which writes them byte by byte.
#[inline(always)]
pub(crate) fn zero() -> u64 {
    let zero;
    // SAFETY: sets one register.
    unsafe { core::arch::asm!("{0} = 0", out(reg) zero, options(nomem, nostack, pure)) };
    zero
}

/// 128 bytes of zero, word by word: of an array of bytes the compiler makes a call of `memset`, which has a place on the stack of its
/// own, and a loop for the verifier.
pub(crate) struct Buffer([u64; 16]);

impl Buffer {
    #[inline(always)]
    pub(crate) fn cleared() -> Self {
        Self([zero(); 16])
    }

    #[inline(always)]
    pub(crate) const fn bytes(&mut self) -> &mut [u8; 128] {
        // SAFETY: of one size, and any bytes are words.
        unsafe { &mut *self.0.as_mut_ptr().cast() }
    }
}
