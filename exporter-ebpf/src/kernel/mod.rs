//! The programs, by what they watch.

mod http;
mod maps;
mod memory;
mod process;
mod regs;
