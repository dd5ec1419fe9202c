//! The name of a loaded eBPF program, which `/proc` does not tell: two calls of `bpf(2)`. One of the places where `unsafe` is
//! allowed; a crate for it would make every start of `cargo xtask` wait for its build.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// Where `struct bpf_prog_info` has the name (include/uapi/linux/bpf.h), 16 bytes with the ending zero.
const NAME: std::ops::Range<usize> = 64..80;

/// The members of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The members of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The name of a program by its id.
pub(super) fn name(id: u32) -> Result<String> {
    let mut attr = GetId { id, next_id: 0, open_flags: 0 };
    // SAFETY: the attribute is of the kernel's layout and size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw mut attr, size_of::<GetId>()) };
    let fd = checked(fd).with_context(|| format!("cannot open eBPF program {id}"))?;
    // SAFETY: the kernel has just made this descriptor for this process.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u8; NAME.end];
    let mut attr = GetInfo { fd: fd.as_raw_fd() as u32, len: info.len() as u32, info: info.as_mut_ptr() as u64 };
    // SAFETY: as above, and it names a buffer of as many bytes as it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<GetInfo>()) };
    checked(result).with_context(|| format!("cannot ask for eBPF program {id}"))?;
    let name = info[NAME].split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn checked(result: libc::c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
