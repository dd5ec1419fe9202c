//! Every Go release, in every way of building: what the agent's own tests hold for some.

use crate::agent::{http_client, matrix, runtime_truth, waits};
use xtask::go::{self, Variant};

fn releases() -> Vec<String> {
    go::versions().expect("the machine has Go")
}

#[test]
fn exact_in_every_way_of_building() {
    let releases = releases();
    let all: Vec<(&str, &[Variant])> =
        releases.iter().map(|release| (release.as_str(), Variant::ALL.as_slice())).collect();
    matrix::exact(&all);
}

#[test]
fn client_requests_of_every_release() {
    for release in releases() {
        for variant in [Variant::Strip, Variant::Pie] {
            http_client::exact(&release, variant, &["-n", "2000"]);
            http_client::exact(&release, variant, &["-n", "2000", "-http2"]);
        }
    }
}

#[test]
fn counters_of_every_release() {
    let releases = releases();
    runtime_truth::compared(&releases.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn pauses_before_the_runtime_stamped_them() {
    waits::pauses_of(&[("1.19", Variant::Pie), ("1.21", Variant::Strip)]);
}

#[test]
fn blocking_where_entries_are_first_emulated() {
    waits::blocking_of(&[("1.21", 2.0)]);
}
