//! The kernel side of gopulse. One file per kind of program; this one only names them.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
// A kernel program is unsafe throughout: it reads another program's memory and shares maps with other CPUs. Each place says
// what makes it sound.

mod kernel;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Programs call helpers that are GPL only (`bpf_probe_read_user`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
