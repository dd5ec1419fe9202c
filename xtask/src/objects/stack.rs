//! How much stack programs take. The verifier of a kernel refuses one that takes too much with what it calls, and older kernels round
//! each frame up further than newer ones: a program that loads here may not load there. Knows nothing of what programs do.

use std::collections::BTreeMap;

use super::{Function, Instruction, Kind};

/// Bytes that a program and what it calls may take (include/linux/filter.h: `MAX_BPF_STACK`).
const MOST: u32 = 512;
/// To a multiple of this a frame is rounded up on the oldest kernel (kernel/bpf/verifier.c of 5.10: `check_max_stack_depth`).
const ROUNDED_TO: u32 = 32;

/// The frame pointer (Documentation/bpf/standardization/instruction-set.rst: R10).
const FRAME: u8 = 10;

/// Where a function is: index of its section, and offset in it.
pub(super) type Place = (usize, u64);

/// Bytes below the frame pointer that a function uses: where it loads and stores, and what addresses it takes.
fn frame(instructions: &[Instruction]) -> u32 {
    let below = |it: &Instruction| {
        let is_load = it.0[0] & 7 == 1 && it.source() == FRAME;
        let is_store = matches!(it.0[0] & 7, 2 | 3) && it.destination() == FRAME;
        if is_load || is_store { u32::from(it.offset().min(0).unsigned_abs()) } else { 0 }
    };
    let used = instructions.iter().map(below).max().unwrap_or(0);
    let taken = instructions.windows(2).map(|pair| {
        let [copy, add] = pair else { return 0 };
        let is_address = copy.0[0] == 0xbf && copy.source() == FRAME;
        let is_below = add.0[0] == 0x07 && add.destination() == copy.destination();
        if is_address && is_below { add.immediate().cast_signed().min(0).unsigned_abs() } else { 0 }
    });
    used.max(taken.max().unwrap_or(0))
}

/// What a function takes with the deepest of what it calls. The verifier allows no recursion.
fn depth(place: Place, all: &BTreeMap<Place, &Function>, calls: u32) -> u32 {
    let Some(function) = all.get(&place).filter(|_| calls < 8) else { return 0 };
    let own = frame(&function.instructions).max(1).next_multiple_of(ROUNDED_TO);
    own + function.calls.iter().map(|to| depth(*to, all, calls + 1)).max().unwrap_or(0)
}

/// Programs, and what each takes.
fn depths(functions: &[Function]) -> impl Iterator<Item = (&Function, u32)> {
    let all: BTreeMap<Place, &Function> = functions.iter().map(|function| (function.place, function)).collect();
    let programs = functions.iter().filter(|function| function.kind() != Kind::Called);
    programs.map(move |function| (function, depth(function.place, &all, 0)))
}

/// The most that a program takes.
pub(super) fn deepest(functions: &[Function]) -> u32 {
    depths(functions).map(|(_, depth)| depth).max().unwrap_or(0)
}

/// Programs that take more than a kernel lets them.
pub(super) fn faults(functions: &[Function]) -> Vec<String> {
    let deep = depths(functions).filter(|(_, depth)| *depth > MOST);
    let fault =
        |(function, depth)| format!("{function}: {depth} bytes of stack with what it calls, and {MOST} are allowed");
    deep.map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(at: u64, stored: i16, calls: &[u64]) -> Function {
        let offset = stored.to_le_bytes();
        let store = Instruction([0x7b, 0x1a, offset[0], offset[1], 0, 0, 0, 0]);
        Function {
            name: format!("f{at}"),
            section: if at == 0 { "uprobe" } else { ".text" }.to_owned(),
            place: (1, at),
            calls: calls.iter().map(|to| (1, *to)).collect(),
            instructions: vec![store],
        }
    }

    #[test]
    fn a_frame_is_as_deep_as_what_is_stored_loaded_or_pointed_to() {
        let load = Instruction([0x79, 0xa1, 0xf0, 0xff, 0, 0, 0, 0]);
        assert_eq!(frame(&[load]), 16);
        let address = [[0xbf, 0xa2, 0, 0, 0, 0, 0, 0], [0x07, 0x02, 0, 0, 0xb8, 0xff, 0xff, 0xff]].map(Instruction);
        assert_eq!(frame(&address), 72);
        assert_eq!(frame(&[]), 0);
    }

    #[test]
    fn what_is_called_one_after_another_does_not_add_up() {
        let said = |calls: &[u64]| {
            let all = [function(0, -200, calls), function(8, -272, &[]), function(16, -8, &[8])];
            faults(&all).join("\n")
        };
        assert_eq!(said(&[8]), "", "224 and 288");
        assert!(said(&[8, 16]).starts_with("f0 in uprobe: 544 bytes"), "{}", said(&[8, 16]));
    }
}
