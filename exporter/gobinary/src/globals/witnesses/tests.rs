use super::*;

fn code(references: &[(u64, Access)]) -> Uses {
    let all: Vec<_> = references.iter().map(|&(target, access)| Reference { target, access }).collect();
    Uses::new(&all, |target| target >= 100)
}

#[test]
fn candidates_do_everything_that_is_expected() {
    use Access::{Address, Read};
    let code = code(&[(8, Address), (100, Read(8)), (108, Read(8)), (200, Read(8)), (208, Read(4)), (300, Read(8))]);
    let at = |text: &str| code.candidates(&parse_uses(text).unwrap()).into_iter().collect::<Vec<_>>();
    assert_eq!(at("0r8"), [100, 108, 200, 300]);
    assert_eq!(at("0r8,8r8"), [100]);
    assert_eq!(at("0r8,8r4"), [200]);
    assert_eq!(at("0r8#3/4"), [300]);
    assert_eq!(at("0r8#3/5"), [0; 0], "one more or less is other code");
    assert_eq!(at("0r8#4/4"), [0; 0]);
    assert_eq!(at("0a"), [0; 0], "not among the variables");
    assert_eq!(at("300r8"), [0], "the only one that is not below zero");
}

#[test]
fn what_is_written_is_read() {
    for text in ["0a", "0r8#0/1", "24a,40r4,1000x8"] {
        assert!(parse_uses(text).is_some(), "{text}");
    }
    for nonsense in ["", "a", "0", "0q8", "0r8#", "0r8#1", "-1r8", "0r8,,4r4"] {
        assert!(parse_uses(nonsense).is_none(), "{nonsense}");
    }
}

/// No function stands in two derivations of one variable, and the table has all of them in some release.
#[test]
fn derivations_are_independent_and_measured() {
    for (global, groups) in DERIVATIONS {
        let all: Vec<_> = groups.iter().flat_map(|group| group.iter()).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len(), "{global}");
        let known = |f: &&str| table().rows.contains_key(&(*f, global.name()));
        assert!(groups.iter().filter(|group| group.iter().all(known)).count() >= 2, "{global}");
    }
    for steps in table().rows.values() {
        assert!(steps.iter().all(|(_, uses)| uses.is_none_or(|text| parse_uses(text).is_some())));
    }
}

#[test]
fn nothing_is_said_of_releases_that_were_not_measured() {
    for (version, known) in [
        ("go1.17", false),
        ("go1.17.5", true),
        ("go1.27.4", true),
        ("go1.27.5", false),
        ("go1.28.0", false),
        ("go2.20.0", false),
        ("devel go1.24-abc", false),
    ] {
        assert_eq!(covers(&GoVersion::parse(version)), known, "{version}");
    }
}
