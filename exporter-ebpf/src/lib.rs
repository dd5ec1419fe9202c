//! The contract between gopulse's kernel side and user space: map keys and values (`repr(C)`, no implicit padding), limits,
//! and the pure functions both sides must agree on (histogram bucket, method, first line, path folding). Everything here is plain Rust,
//! tested on the host; it knows neither eBPF helpers nor how user space loads the programs.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod durations;
pub mod event;
pub mod facts;
pub mod feature;
pub mod grpc;
pub mod grpc_server;
pub mod http;
pub mod http_client;
pub mod key;
pub mod line;
pub mod loss;
pub mod method;
pub mod probe;
pub mod route;
pub mod router;
pub mod share;
pub mod span;
pub mod target;
pub mod wait;

#[cfg(feature = "user")]
mod user {
    use crate::{durations, event, facts, http, key, loss, span, target, wait};

    // SAFETY: all are repr(C) structs of integers without implicit padding (the sizes are asserted beside them), so any
    // bytes are a value and all of a value's bytes may be read.
    unsafe impl aya::Pod for durations::Durations {}
    unsafe impl aya::Pod for event::Event {}
    unsafe impl aya::Pod for facts::Facts {}
    unsafe impl aya::Pod for http::Hijacked {}
    unsafe impl aya::Pod for http::HttpState {}
    unsafe impl aya::Pod for http::PanicKey {}
    unsafe impl aya::Pod for http::Panicked {}
    unsafe impl aya::Pod for http::Routed {}
    unsafe impl aya::Pod for key::SeriesKey {}
    unsafe impl aya::Pod for key::SeriesState {}
    unsafe impl aya::Pod for key::Text {}
    unsafe impl aya::Pod for key::TextKey {}
    unsafe impl aya::Pod for loss::LostKey {}
    unsafe impl aya::Pod for span::Span {}
    unsafe impl aya::Pod for target::TargetConfig {}
    unsafe impl aya::Pod for wait::BlockedAt {}
    unsafe impl aya::Pod for wait::BlockedAtKey {}
    unsafe impl aya::Pod for wait::Parked {}
    unsafe impl aya::Pod for wait::Stack {}
    unsafe impl aya::Pod for wait::Task {}
    unsafe impl aya::Pod for wait::Window {}
    unsafe impl aya::Pod for wait::WaitState {}
}
