//! 100,000 client requests over each protocol.

use crate::agent::http_client::exact;
use xtask::go::Variant;

#[test]
fn a_hundred_thousand_client_requests() {
    for arguments in [&["-n", "100000"][..], &["-n", "100000", "-http2"]] {
        exact("1.27", Variant::Strip, arguments);
    }
}
