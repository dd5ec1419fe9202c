//! What needs one certain Go release, whatever the machine's own is. Fetches it, and fails when it cannot be had;
//! `cargo test` alone leaves this out.

mod lie;

use gobinary::{GoBinary, LayoutsFrom};
use xtask::go;

use lie::{FUNCTIONS, LAYOUTS};

/// Within a minor release no function need come or go; Go 1.26.11 moved fields of `net/http.response` all the same. What
/// says in one place alone to be another patch release is given away by the other place; what says it everywhere, by the
/// code that uses what moved.
#[test]
fn another_patch_release_is_caught_where_it_matters() {
    let release = go::release(26).expect("it is listed").version;
    let toolchain = go::toolchain(release).unwrap_or_else(|error| panic!("{error:#}"));
    let honest = lie::program(&toolchain);
    let truth = GoBinary::parse(&honest, &FUNCTIONS, &LAYOUTS).unwrap();
    let version = truth.build_info.go_version.raw.as_str();
    // Not an older one out of a wheel.
    assert_eq!(version, format!("go{release}"));
    let said = "go1.26.8 ";
    let caught = GoBinary::parse(lie::lie(&honest, version, said), &FUNCTIONS, &LAYOUTS).unwrap();
    assert_eq!(caught.contradictions, [format!("it says {said}, but its runtime.buildVersion is {version}")]);
    assert_eq!(caught.layouts().source(), LayoutsFrom::None);

    let mut everywhere = honest.clone();
    let places: Vec<_> = memchr::memmem::find_iter(&honest, version).collect();
    for at in &places {
        everywhere[*at..at + said.len()].copy_from_slice(said.as_bytes());
    }
    assert!(places.len() >= 2, "{places:?}");
    let caught = GoBinary::parse(everywhere, &FUNCTIONS, &LAYOUTS).unwrap();
    assert_eq!(caught.build_info.go_version.raw, said);
    assert!(caught.contradictions.is_empty(), "{:?}", caught.contradictions);
    assert_eq!(caught.layouts().source(), LayoutsFrom::None);
    let reason = caught.layouts_reason().unwrap();
    assert!(reason.starts_with("net/http.response.status is at"), "{reason}");
    println!("{version} says it is {said}: {reason}");
}
