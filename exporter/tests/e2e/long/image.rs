//! The image that the Containerfile makes, in a real cluster.

use std::fs;

use crate::support::cluster::{ENABLED, Lab};

/// The image is one static executable of less than 20 MB, and all that the shipped DaemonSet needs to measure a pod.
#[test]
fn image_of_the_containerfile() {
    let archive = xtask::image::run().unwrap_or_else(|error| panic!("{error:#}"));
    let lab = Lab::start_image(&archive);
    let root = format!("/proc/{}/root", lab.agent_pid());
    assert!(fs::exists(format!("{root}/gopulse")).expect("it has a root"));
    assert!(!fs::exists(format!("{root}/lib")).expect("it has a root"), "the agent runs from another image");
    let pod = lab.deploy("shop", 1, &[ENABLED]).remove(0);
    lab.wait_measured([&pod]);
    lab.assert_counts(&pod, &pod.load(1000));
    println!("1000 requests counted by the agent of that image");
}
