//! Builds the matrix's program by a Go release, for an architecture, in a way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A release that can fetch the toolchain of another architecture as a module.
const KNOWS_TOOLCHAINS: &str = "1.27.4";

/// The last release whose race detector for arm64 is not shipped for amd64. Of those, the only one whose toolchain for arm64 the
/// module proxy served when this was written.
const SERVED_FOR_ARM64: &str = "1.20.14";

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
pub(crate) fn build(root: &Path, go: &str, arch: &str, variant: &str, cgo: bool, args: &[&str]) -> PathBuf {
    let dir = root.join("source");
    let out = root.join(format!("go{go}-{arch}-{}", variant.replace(' ', "_")));
    if out.is_file() {
        return out;
    }
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("main.go"), PROGRAM).unwrap();
    fs::write(dir.join("go.mod"), "module matrix\n\ngo 1.17\n").unwrap();
    let mut command = Command::new("go");
    if args.contains(&"-race") && arch != host() {
        let with = with_race_runtime(root, go, arch);
        command = Command::new(with.join("bin/go"));
        command.env("GOROOT", with);
    }
    if cgo && arch == "arm64" && cfg!(not(target_arch = "aarch64")) {
        command.env("CC", "aarch64-linux-gnu-gcc");
    } else if cgo && arch == "amd64" && cfg!(not(target_arch = "x86_64")) {
        command.env("CC", "x86_64-linux-gnu-gcc");
    }
    let output = command
        .current_dir(&dir)
        .env("GOTOOLCHAIN", format!("go{go}"))
        // Replaces machine-wide defaults that old releases do not know.
        .env("GOFLAGS", "-mod=mod")
        // Go 1.19's module index fails on a toolchain that lies in the module cache.
        .env("GODEBUG", "goindex=0")
        .env("GOWORK", "off")
        // With xtask's own builds, below the checkout's target.
        .env("GOCACHE", root.join("../go/cache"))
        .env("GOOS", "linux")
        .env("GOARCH", arch)
        .env("CGO_ENABLED", if cgo { "1" } else { "0" })
        // The checkout around it is none of the program's business; 1.17 does not look and does not know the flag.
        .args(if go.starts_with("1.17") {
            &["build", "-p", "2", "-o"][..]
        } else {
            &["build", "-buildvcs=false", "-p", "2", "-o"]
        })
        .arg(&out)
        .args(args)
        .arg(".")
        .output()
        .unwrap_or_else(|e| panic!("the matrix needs the go command on PATH, and it cannot be run: {e}"));
    assert!(
        output.status.success(),
        "go{go} cannot build the {variant} program for {arch} (the matrix needs every release; is the Go module proxy \
         reachable, and a C compiler for {arch} there?):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// What `go` prints, run with a release.
fn go_says(root: &Path, go: &str, args: &[&str]) -> String {
    let output = go_command(root, go, args);
    assert!(output.status.success(), "go {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn go_command(root: &Path, go: &str, args: &[&str]) -> std::process::Output {
    let mut command = Command::new("go");
    command
        .current_dir(root)
        .env("GOTOOLCHAIN", format!("go{go}"))
        .env("GOFLAGS", "-mod=mod")
        .env("GODEBUG", "goindex=0");
    command.env("GOWORK", "off").args(args).output().expect("the go command runs")
}

/// A toolchain for this machine that can build with the race detector for the other architecture: until Go 1.20 what is linked
/// in then is shipped with the other's toolchain alone.
fn with_race_runtime(root: &Path, go: &str, arch: &str) -> PathBuf {
    use std::os::unix::fs::symlink;
    let goroot = root.join(format!("goroot-{go}-race-{arch}"));
    if goroot.is_dir() {
        return goroot;
    }
    let own = PathBuf::from(go_says(root, go, &["env", "GOROOT"]));
    let runtime = own.join("src/runtime/race").join(format!("race_linux_{arch}.syso"));
    if runtime.is_file() {
        return own;
    }
    // It is C, and the release's own Go is what is looked at: where a module proxy does not serve the other architecture's
    // toolchain of this release, another's does.
    let mut refusals = String::new();
    let served = [go, SERVED_FOR_ARM64].into_iter().find_map(|release| {
        let module = format!("golang.org/toolchain@v0.0.1-go{release}.linux-{arch}");
        let output = go_command(root, KNOWS_TOOLCHAINS, &["mod", "download", "-json", &module]);
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
