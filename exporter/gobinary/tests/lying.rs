//! A stripped program whose build information says another Go release than the one that built it: caught, and left
//! without any layout, so that nothing that needs an offset can be planned.

mod lie;
mod own;

use gobinary::{GoBinary, LayoutsFrom};

use lie::{FUNCTIONS, LAYOUTS};
use own::own_go;

#[test]
fn another_release_is_caught_and_nothing_is_planned() {
    let Some(go) = own_go("another_release_is_caught_and_nothing_is_planned") else { return };
    let honest = lie::program(&go);
    let truth = GoBinary::parse(&honest, &FUNCTIONS, &LAYOUTS).unwrap();
    let version = &truth.build_info.go_version;
    assert!(truth.contradictions.is_empty(), "{:?}", truth.contradictions);
    assert_eq!(truth.layouts().source(), LayoutsFrom::Table, "{:?}", truth.layouts_reason());
    assert!(truth.layouts().offset("net/http.response", "status").is_some());
    let older = (17..version.minor).rev();
    let newer = version.minor + 1..28;
    let mut told = 0;
    for minor in older.chain(newer) {
        let said = format!("go1.{minor}.1");
        if said.len() > version.raw.len() {
            continue;
        }
        let caught = GoBinary::parse(lie::lie(&honest, &version.raw, &said), &FUNCTIONS, &LAYOUTS).unwrap();
        told += 1;
        assert_eq!(caught.build_info.go_version.minor, minor);
        assert!(!caught.contradictions.is_empty(), "{version} passed for {said}");
        assert_eq!(caught.layouts().source(), LayoutsFrom::None, "{said}");
        let reason = caught.layouts_reason().unwrap();
        assert!(reason.contains("is not to be trusted: it says go1."), "{reason}");
        for (ty, fields) in LAYOUTS {
            assert!(!caught.layouts().has(ty), "{said}: {ty}");
            assert!(fields.iter().all(|field| caught.layouts().offset(ty, field).is_none()), "{said}: {ty}");
        }
        if minor + 1 == version.minor || minor == version.minor + 1 {
            println!("{version} says it is {said}: {reason}");
        }
    }
    assert!(told >= 9, "{told} lies about {version}");
}
