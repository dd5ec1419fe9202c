//! Units, structs, and values of attributes.

use gimli::{UnitHeader, constants as c};

use super::Slice;

/// A struct as DWARF has it.
pub(super) struct Struct<'d> {
    pub(super) size: Option<u32>,
    pub(super) members: Vec<Member<'d>>,
}

/// Name, offset, and where its type is.
pub(super) type Member<'d> = (&'d [u8], u32, Option<usize>);

pub(super) struct Unit<'d> {
    pub(super) start: usize,
    pub(super) header: UnitHeader<Slice<'d>>,
    pub(super) abbreviations: usize,
}

pub(super) fn reference(unit: &Unit<'_>, value: &gimli::AttributeValue<Slice<'_>>) -> Option<usize> {
    match value {
        gimli::AttributeValue::UnitRef(offset) => unit.start.checked_add(offset.0),
        gimli::AttributeValue::DebugInfoRef(offset) => Some(offset.0),
        _ => None,
    }
}

/// A constant, or `DW_OP_plus_uconst n` as Go up to 1.17 might write it.
pub(super) fn location(value: &gimli::AttributeValue<Slice<'_>>) -> Option<u32> {
    if let Some(constant) = value.udata_value() {
        return u32::try_from(constant).ok();
    }
    let gimli::AttributeValue::Exprloc(expression) = value else { return None };
    let (&op, rest) = expression.0.slice().split_first()?;
    if op != c::DW_OP_plus_uconst.0 {
        return None;
    }
    let mut value = 0u32;
    for (index, byte) in rest.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
