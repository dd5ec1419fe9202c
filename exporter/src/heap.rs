//! The C library's allocator, told to keep little: the agent allocates much at start and when it reads an executable, and next
//! to nothing between. `unsafe` is allowed for the two calls.
#![allow(unsafe_code)]

/// At most so many arenas: each keeps what it once had. Threads that share one and work all the time wait for each other.
pub(crate) fn keep_arenas(most: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting without preconditions, made before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, most.into());
    }
}

/// Gives memory that is free back to the kernel.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; thread safe.
    unsafe {
        libc::malloc_trim(0);
    }
}
