//! Containers of one image on overlayfs: one underlying file below several mounts, which shares its probes; a copy that a
//! container has made of it; and two files that only look like one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Agent, agent::counted_by_load, load, must_be_root, scratch, service, settles, start};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A mount, undone at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("a directory");
        let mut all = arguments.to_vec();
        all.push(at.to_str().expect("a plain path"));
        run("mount", &all);
        Self(at)
    }

    fn overlay(lower: &Path, scratch: &Path, name: &str) -> Self {
        let directories = ["upper", "work"].map(|kind| scratch.join(format!("{name}-{kind}")));
        for directory in &directories {
            fs::create_dir_all(directory).expect("a directory");
        }
        let [upper, work] = directories.map(|it| it.display().to_string());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.display());
        Self::new(&["-t", "overlay", "overlay", "-o", &options], scratch.join(name))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

const MIX: [&str; 1] = ["GET /hello 200 /hello 1"];

/// Starts the program in each of these mounts, drives each with another number of requests, and expects exact counts of each;
/// how many sites are attached.
fn count_each(programs: &[PathBuf]) -> u64 {
    let running: Vec<_> = programs.iter().map(|program| start(program, &[])).collect();
    let agent = Agent::start(&["--executable", "overlaid", "--features", "http"]);
    for it in &running {
        agent.wait_measured(it.pid());
    }
    // Probes of one's own come a moment after the shared ones turn out to be another file's.
    std::thread::sleep(std::time::Duration::from_secs(1));
    for it in &running {
        agent.wait_measured(it.pid());
    }
    let counted = running.iter().enumerate().map(|(i, it)| {
        let address = it.address("http").expect("it listens").to_string();
        let requests = (600 * (i + 1)).to_string();
        counted_by_load(&load(&["-mode", "h1", "-address", &address, "-n", &requests, "-c", "8"], &MIX))
    });
    let counted: Vec<_> = counted.collect();
    for (it, own) in running.iter().zip(&counted) {
        settles("requests of each process", own, || agent.scrape().counts(it.pid()));
    }
    let scrape = agent.scrape();
    let probes = scrape.samples.iter().find(|sample| sample.name == "exporter_probes_attached");
    let probes = probes.expect("it is exposed").value as u64;
    agent.stop();
    probes
}

#[test]
fn one_file_below_several_mounts_has_its_probes_once() {
    must_be_root();
    let scratch = scratch("overlay-one");
    let lower = scratch.join("lower");
    fs::create_dir_all(&lower).expect("a directory");
    fs::copy(service("hello"), lower.join("overlaid")).expect("a copy");
    let mounts = ["a", "b", "c"].map(|name| Mounted::overlay(&lower, &scratch, name));
    let programs: Vec<PathBuf> = mounts.iter().map(|it| it.0.join("overlaid")).collect();
    let one = count_each(&programs[..1]);
    assert_eq!(count_each(&programs), one, "the sites of three containers are those of one");
    // A container changes its file: the kernel copies it, and the copy is another file.
    fs::set_permissions(&programs[2], fs::Permissions::from_mode(0o700)).expect("it can be changed");
    assert_eq!(count_each(&programs), 2 * one, "and the sites of a copy are its own");
}

#[test]
fn two_files_that_stat_cannot_tell_apart_are_both_measured() {
    must_be_root();
    let scratch = scratch("overlay-two");
    let images = ["a.img", "b.img"].map(|name| scratch.join(name));
    fs::File::create(&images[0]).and_then(|file| file.set_len(48 << 20)).expect("a file");
    run("mkfs.ext4", &["-q", images[0].to_str().expect("a plain path")]);
    {
        let filled = Mounted::new(&["-o", "loop", images[0].to_str().expect("a plain path")], scratch.join("filled"));
        fs::copy(service("hello"), filled.0.join("overlaid")).expect("a copy");
        run("umount", &[filled.0.to_str().expect("a plain path")]);
    }
    fs::copy(&images[0], &images[1]).expect("a copy");
    let layers: Vec<Mounted> = images
        .iter()
        .zip(["layer-a", "layer-b"])
        .map(|(image, name)| {
            Mounted::new(&["-o", "loop,ro", image.to_str().expect("a plain path")], scratch.join(name))
        })
        .collect();
    let mounts: Vec<Mounted> =
        layers.iter().zip(["a", "b"]).map(|(layer, name)| Mounted::overlay(&layer.0, &scratch, name)).collect();
    let programs: Vec<PathBuf> = mounts.iter().map(|it| it.0.join("overlaid")).collect();
    count_each(&programs);
    drop(mounts);
}
