//! The machine's own Go, for tests that can do without.

use xtask::go::{self, Toolchain};

/// The machine's own toolchain. Without one, says in a line that begins with `skipped: ` that the test of this name leaves
/// itself out; `cargo xtask test` counts such lines.
pub(crate) fn own_go(test: &str) -> Option<Toolchain> {
    let toolchain = go::installed();
    if toolchain.is_none() {
        // The test runner may have begun a line of its own.
        println!("\nskipped: {test} needs Go");
    }
    toolchain
}
