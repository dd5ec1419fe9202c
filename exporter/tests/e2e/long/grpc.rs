//! 50,000 gRPC calls of each version whose structs are laid out otherwise, stripped.

use crate::agent::grpc::{VERSIONS, exact};
use xtask::go::Variant;

#[test]
fn fifty_thousand_calls_of_each_version() {
    for version in VERSIONS {
        exact(version, Variant::Strip, &["-n", "50000", "-c", "64"]);
    }
}
