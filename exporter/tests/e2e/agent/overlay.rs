//! Containers of one image on overlayfs: one underlying file below several mounts, which shares its probes; a copy that a
//! container has made of it; and two files that only look like one.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use crate::support::{
    Agent,
    agent::counted_by_load,
    load,
    mounts::{Immutable, Mounted, run},
    must_be_root, scratch, service, settles, start,
};

const MIX: [&str; 1] = ["GET /hello 200 /hello 1"];

/// Starts the program in each of these mounts, drives each with another number of requests, and expects exact counts of each;
/// how many sites are attached.
fn count_each(programs: &[PathBuf]) -> u64 {
    let running: Vec<_> = programs.iter().map(|program| start(program, &[])).collect();
    let agent = Agent::start(&["--executable", "overlaid", "--features", "http"]);
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

/// A file that can be written has probes in each process: what is written there next is not what was inspected. One that is marked
/// as immutable keeps its content, and has them once.
#[test]
fn one_file_below_several_mounts_has_its_probes_once_where_it_cannot_change() {
    must_be_root();
    let scratch = scratch("overlay-one");
    let lower = scratch.join("lower");
    fs::create_dir_all(&lower).expect("a directory");
    let file = lower.join("overlaid");
    fs::copy(service("hello"), &file).expect("a copy");
    let mounts = ["a", "b", "c"].map(|name| Mounted::overlay(&lower, &scratch, name));
    let programs: Vec<PathBuf> = mounts.iter().map(|it| it.0.join("overlaid")).collect();
    let one = count_each(&programs[..1]);
    assert_eq!(count_each(&programs), 3 * one);
    {
        let _sealed = Immutable::new(&file);
        assert_eq!(count_each(&programs), one, "the sites of three containers are those of one");
    }
    // A container changes its file: the kernel copies it, and the copy is another file.
    fs::set_permissions(&programs[2], fs::Permissions::from_mode(0o700)).expect("it can be changed");
    assert_eq!(count_each(&programs), 3 * one);
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
