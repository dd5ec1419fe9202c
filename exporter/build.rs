//! Finds the eBPF objects that `cargo xtask build` made, to be embedded in the binary. Without them (an editor's check, clippy
//! on a fresh clone) empty ones stand in: such a binary says at start that it was built without its programs.

use std::{env, fs, path::PathBuf};

const OBJECTS: [&str; 2] = ["gopulse-x86_64.o", "gopulse-aarch64.o"];

fn main() {
    println!("cargo::rerun-if-env-changed=GOPULSE_BPF_DIR");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let given = env::var_os("GOPULSE_BPF_DIR").map(PathBuf::from);
    for name in OBJECTS {
        let bytes = given.as_ref().map_or_else(Vec::new, |dir| {
            let path = dir.join(name);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask build`", path.display()))
        });
        fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
    }
    println!("cargo::rustc-env=GOPULSE_BPF_OBJECT_DIR={}", out.display());
}
