use super::*;

/// A unit of Go with structs `runtime.g` that have no size: some with thousands of nameless members, then one with
/// a member `a`.
fn found_behind(useless: usize, fields: &[&str]) -> HashMap<String, Fields> {
    // compile_unit: language; structure_type with children: name; member: name, data_member_location 0.
    let abbrev = [
        &[1, 0x11, 1, 0x13, 0x0b, 0, 0][..],
        &[2, 0x13, 1, 3, 8, 0, 0],
        &[3, 0x0d, 0, 3, 8, 0x38, 0x21, 0, 0, 0],
        &[0],
    ]
    .concat();
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8, 1, 0x16];
    for _ in 0..useless {
        unit.extend(b"\x02runtime.g\0");
        unit.extend([3, 0].repeat(MAX_MEMBERS - 1));
        unit.push(0);
    }
    unit.extend(b"\x02runtime.g\0\x03a\0\0\0");
    let info = [&(unit.len() as u32).to_le_bytes()[..], &unit].concat();
    from_sections(&info, &abbrev, &[], &[("runtime.g", fields)])
}

/// Each wanted field used to copy all members first, which no limit counted.
#[test]
fn looking_for_members_is_work() {
    assert_eq!(found_behind(3, &["a"])["runtime.g"]["a"], 0);
    assert!(found_behind(12, &vec!["a"; 1100]).is_empty(), "over the limit of work before the last");
}
