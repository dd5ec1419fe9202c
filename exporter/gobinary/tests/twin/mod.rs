//! The program of the full matrix, built by a Go release, for an architecture, in a way.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::go::{self, Program, Toolchain};
use xtask::util;

use super::Way;

/// The last minor release whose race detector for arm64 is not shipped for amd64. Of those, the only one whose toolchain for
/// arm64 the module proxy served when this was written.
const SERVED_FOR_ARM64: u32 = 20;

/// The program's module.
pub(crate) const MODULE: &str = "reader";
const PROGRAM: &str = r#"package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.Path) })
	go http.ListenAndServeTLS("127.0.0.1:0", "", "", nil)
	fmt.Println(http.ListenAndServe("127.0.0.1:0", nil))
}
"#;

/// Builds one program, or says loudly why not.
pub(crate) fn build(toolchain: &Toolchain, arch: &str, (way, cgo, arguments): Way) -> PathBuf {
    let mut environment = vec![("GOARCH", arch)];
    environment.extend(cgo.map(|value| ("CGO_ENABLED", value)));
    let compiler = if arch == "arm64" { "aarch64-linux-gnu-gcc" } else { "x86_64-linux-gnu-gcc" };
    if cgo == Some("1") && arch != host() {
        environment.push(("CC", compiler));
    }
    let with = (arguments.contains(&"-race") && arch != host()).then(|| with_race_runtime(toolchain, arch));
    if let Some(root) = &with {
        environment.push(("GOROOT", root.to_str().expect("the checkout's path is text")));
        // Go 1.19's module index fails on a toolchain whose files lie in the module cache.
        environment.push(("GODEBUG", "goindex=0"));
    }
    let variant = format!("{}-{arch}", way.replace(' ', "_"));
    let program = Program { name: MODULE, variant: &variant, source: PROGRAM, arguments, environment: &environment };
    go::build_program(toolchain, &program)
        .unwrap_or_else(|error| panic!("is a C compiler for {arch} there ({compiler})? {error:#}"))
}

/// This machine's architecture, by its name in Go.
pub(crate) fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The root of a toolchain for this machine that can build with the race detector for the other architecture: until Go 1.20 what
/// is linked in then is shipped with the other's toolchain alone.
fn with_race_runtime(toolchain: &Toolchain, arch: &str) -> PathBuf {
    use std::os::unix::fs::symlink;
    let go = &toolchain.version;
    let roots = util::target().join("go/roots");
    let goroot = roots.join(format!("go{go}-race-{arch}"));
    if goroot.is_dir() {
        return goroot;
    }
    fs::create_dir_all(&roots).unwrap();
    let own = util::output(toolchain.command(&roots).args(["env", "GOROOT"])).unwrap_or_else(|e| panic!("{e:#}"));
    let own = PathBuf::from(own);
    let runtime = own.join("src/runtime/race").join(format!("race_linux_{arch}.syso"));
    if runtime.is_file() {
        return own;
    }
    // Go before 1.21 knows nothing of toolchains as modules.
    let newest = go::RELEASES[go::RELEASES.len() - 1];
    let newest = go::toolchain(newest.version).unwrap_or_else(|e| panic!("{e:#}"));
    // It is C, and the release's own Go is what is looked at: where a module proxy does not serve the other architecture's
    // toolchain of this release, another's does.
    let mut refusals = String::new();
    let served = [go.as_str(), go::release(SERVED_FOR_ARM64).expect("it is listed").version];
    let served = served.into_iter().find_map(|release| {
        let module = format!("golang.org/toolchain@v0.0.1-go{release}.linux-{arch}");
        let mut go = newest.command(&roots);
        let output = go.args(["mod", "download", "-json", &module]).output().expect("the go command runs");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let dir = answer.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.strip_suffix("\","));
        refusals += &answer;
        dir.map(|dir| Path::new(dir).join("src/runtime/race"))
    });
    let other = served.unwrap_or_else(|| panic!("no race detector for {arch} and go{go}: {refusals}"));
    // Links to everything but the way down to the one folder that differs.
    let partial = goroot.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let mut below = PathBuf::new();
    for step in ["src", "runtime", "race"] {
        fs::create_dir_all(partial.join(&below)).unwrap();
        for entry in fs::read_dir(own.join(&below)).unwrap().map(Result::unwrap).filter(|it| it.file_name() != step) {
            symlink(entry.path(), partial.join(&below).join(entry.file_name())).unwrap();
        }
        below.push(step);
    }
    copy_tree(&own.join(&below), &partial.join(&below));
    copy_tree(&other, &partial.join(&below));
    fs::rename(&partial, &goroot).unwrap();
    goroot
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else if !target.exists() {
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}
