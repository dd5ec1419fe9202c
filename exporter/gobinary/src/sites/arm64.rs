//! arm64 sites: fixed-width decoding of the few encodings that matter. Knows the prologues of Go 1.18 to 1.27.
//!
//! `ldr x16,[x28,#16]; cmp sp,x16; b.ls` (large frames `sub x17,sp,#n` first), then the frame push, `str x30,[sp,#-n]!`
//! or, for large frames, `sub x20,sp,#n; stp x29,x30,[x20,#-8]; mov sp,x20` (Go 1.18: `sub x27,sp,#n; str x30,[x27]`). Arguments are whole until behind it; only
//! x16, x17, x20, x27 and the flags change. Source: cmd/internal/obj/arm64/obj7.go, preprocess and stacksplit.
//! No kernel simulates the push of small frames; the check's branch and RET are simulated by all.

use super::cost::Instruction;
use super::{Found, SiteError};

const MAX_PROLOGUE: usize = 14;
const X28: u32 = 28;
const SP: u32 = 31;
const LR: u32 = 30;
/// The condition LS.
const LOWER_OR_SAME: u32 = 9;

pub(super) fn entry(code: &[u8]) -> Result<Found, SiteError> {
    prologue(code).map(|((index, insn), _)| found(index, insn))
}

pub(super) fn check(code: &[u8]) -> Option<Found> {
    let ((start, _), branch) = prologue(code).ok()?;
    branch
        .filter(|&(index, insn)| insn & 15 == LOWER_OR_SAME && index + 1 == start)
        .map(|(index, insn)| found(index, insn))
}

/// An instruction and which it is of the function's.
type Indexed = (usize, u32);

/// Where a function starts past its stack check, and the last branch of that check.
fn prologue(code: &[u8]) -> Result<(Indexed, Option<Indexed>), SiteError> {
    let mut branch = None;
    for (index, insn) in words(code).enumerate().take(MAX_PROLOGUE) {
        if pushes_lr(insn) || makes_big_frame(insn) {
            return Ok(((index, insn), branch));
        }
        if is_stack_branch(insn) {
            branch = Some((index, insn));
        } else if !is_check(insn) {
            break;
        }
    }
    if branch.is_some() {
        return Err(SiteError::NoFrame);
    }
    words(code).next().map(|insn| ((0, insn), None)).ok_or(SiteError::Undecodable(0))
}

pub(super) fn returns(code: &[u8]) -> Result<Vec<Found>, SiteError> {
    let mut all = Vec::new();
    let len = i64::try_from(code.len()).unwrap_or(i64::MAX);
    let mut previous = 0;
    for (index, insn) in words(code).enumerate() {
        let at = (index * 4) as i64;
        if insn == 0xd65f_03c0 {
            all.push(found(index, insn));
        } else if insn & 0xffff_fc1f == 0xd61f_0000 {
            // br: a jump table loads its target just before, `ldr xt,[xn,xm,lsl #3]`.
            let register = insn >> 5 & 31;
            if previous & 0xffe0_fc00 != 0xf860_7800 || previous & 31 != register {
                return Err(SiteError::IndirectJump(at as u32));
            }
        } else if let Some(distance) = branch(insn) {
            let target = at + distance;
            if target < 0 || target >= len {
                return Err(SiteError::TailJump(at as u32));
            }
        }
        previous = insn;
    }
    if all.is_empty() { Err(SiteError::NoReturn) } else { Ok(all) }
}

/// Instructions looked at behind a call.
const BEHIND_A_CALL: usize = 6;

/// `blr xn; str x0,[sp,#n]; cbnz x1`: each such `cbnz` that no other way leads to.
pub(super) fn after_calls(code: &[u8]) -> Vec<Found> {
    let all: Vec<u32> = words(code).collect();
    let targets: Vec<i64> = all
        .iter()
        .zip(0_i64..)
        .filter_map(|(insn, index)| branch(*insn).map(|distance| index * 4 + distance))
        .collect();
    let indirect = |insn: u32| insn & 0xffff_fc1f == 0xd63f_0000;
    let calls = all.iter().enumerate().filter(|(_, insn)| indirect(**insn)).map(|(index, _)| index);
    let behind = |call: usize| {
        let at = all[call + 1..].iter().take(BEHIND_A_CALL).position(|insn| !leaves_results(*insn))? + call + 1;
        let between = (call as i64 + 1) * 4..=at as i64 * 4;
        let reached = targets.iter().any(|target| between.contains(target));
        (is_branch_on_error(all[at]) && !reached).then(|| found(at, all[at]))
    };
    calls.filter_map(behind).collect()
}

/// `str xn, [sp, #n]`, `stp xn, xm, [sp, #n]`, or a nop.
fn leaves_results(insn: u32) -> bool {
    let to_stack = insn >> 5 & 31 == SP;
    let is_store = insn & 0xffc0_0000 == 0xf900_0000 || insn & 0xffc0_0000 == 0xa900_0000;
    insn == 0xd503_201f || to_stack && is_store
}

/// `cbz x1` or `cbnz x1`.
fn is_branch_on_error(insn: u32) -> bool {
    insn & 0xfe00_001f == 0xb400_0001
}

fn words(code: &[u8]) -> impl Iterator<Item = u32> {
    code.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

/// `str x30, [sp, #-n]!`, or `stp x29, x30, [sp, #-n]!`.
fn pushes_lr(insn: u32) -> bool {
    let str_pre = insn & 0xffe0_0c00 == 0xf800_0c00 && insn >> 5 & 31 == SP && insn & 31 == LR;
    let negative = insn >> 20 & 1 == 1;
    (str_pre && negative) || is_stp_pre(insn)
}

fn is_stp_pre(insn: u32) -> bool {
    insn & 0xffc0_0000 == 0xa980_0000 && insn >> 5 & 31 == SP && insn >> 10 & 31 == LR && insn & 31 == 29
}

/// `sub x20, sp, #n` or x27 (also shifted by 12, and `sub x20, sp, x27` for frames whose size is no immediate).
fn makes_big_frame(insn: u32) -> bool {
    let immediate = insn & 0xff80_0000 == 0xd100_0000 && insn >> 5 & 31 == SP && matches!(insn & 31, 20 | 27);
    let register = insn & 0xffe0_0000 == 0xcb20_0000 && insn >> 5 & 31 == SP && matches!(insn & 31, 20 | 27);
    immediate || register
}

fn is_stack_branch(insn: u32) -> bool {
    // b.ls, b.lo, b.cc: conditions 9 and 3.
    insn & 0xff00_0010 == 0x5400_0000 && matches!(insn & 15, LOWER_OR_SAME | 3)
}

fn is_check(insn: u32) -> bool {
    let rd = insn & 31;
    // ldr x16, [x28, #16 or #24]
    let guard = insn & 0xffc0_0000 == 0xf940_0000 && insn >> 5 & 31 == X28 && rd == 16;
    // subs xzr, ...: cmp in its register and extended-register forms
    let cmp =
        (insn & 0xff20_0000 == 0xeb00_0000 || insn & 0xffe0_0000 == 0xeb20_0000 || insn & 0xff80_0000 == 0xf100_0000)
            && rd == 31;
    // sub(s) x17, sp, #n or sp, x27
    let subtract = matches!(insn >> 24, 0xd1 | 0xf1 | 0xcb | 0xeb) && rd == 17;
    // mov x16, #imm; movk; orr of huge frames, into the assembler's scratch registers; mov x16, sp
    let scratch = matches!(insn >> 23, 0x1a5 | 0x1e5 | 0x125 | 0x164) && matches!(rd, 16 | 17 | 27);
    let mov_sp = insn & 0xffff_ffe0 == 0x9100_03e0 && matches!(rd, 16 | 17);
    guard || cmp || subtract || scratch || mov_sp || insn == 0xd503_201f
}

/// The distance of a direct branch that is no call.
fn branch(insn: u32) -> Option<i64> {
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)).cast_signed() >> (32 - bits)) * 4;
    if insn & 0xfc00_0000 == 0x1400_0000 {
        Some(signed(insn & 0x03ff_ffff, 26))
    } else if insn & 0xff00_0010 == 0x5400_0000 || insn & 0x7e00_0000 == 0x3400_0000 {
        Some(signed(insn >> 5 & 0x7_ffff, 19))
    } else if insn & 0x7e00_0000 == 0x3600_0000 {
        Some(signed(insn >> 5 & 0x3fff, 14))
    } else {
        None
    }
}

fn found(index: usize, insn: u32) -> Found {
    Found { offset: (index * 4) as u32, text: text(insn), kind: kind(insn) }
}

fn kind(insn: u32) -> Instruction {
    if insn == 0xd503_201f {
        Instruction::Nop
    } else if branch(insn).is_some() || insn & 0xfc00_0000 == 0x9400_0000 {
        Instruction::Branch
    } else if insn & 0xff9f_fc1f == 0xd61f_0000 {
        Instruction::RegisterBranch
    } else if insn & 0x1f00_0000 == 0x1000_0000 || insn & 0x3b00_0000 == 0x1800_0000 {
        Instruction::PcRelative
    } else if is_stp_pre(insn) {
        Instruction::PushPair
    } else {
        Instruction::Other
    }
}

/// The encodings that sites are made of, by name; others as their word.
fn text(insn: u32) -> String {
    let immediate9 = |insn: u32| (((insn >> 12 & 0x1ff) << 23).cast_signed()) >> 23;
    if insn == 0xd65f_03c0 {
        "ret".into()
    } else if insn == 0xd503_201f {
        "nop".into()
    } else if is_stp_pre(insn) {
        format!("stp x29, x30, [sp, #{}]!", ((((insn >> 15 & 0x7f) << 25).cast_signed()) >> 25) * 8)
    } else if pushes_lr(insn) {
        format!("str x30, [sp, #{}]!", immediate9(insn))
    } else if makes_big_frame(insn) && insn >> 24 == 0xd1 {
        let shift = if insn >> 22 & 1 == 1 { 12 } else { 0 };
        format!("sub x{}, sp, #{:#x}", insn & 31, (insn >> 10 & 0xfff) << shift)
    } else if makes_big_frame(insn) {
        format!("sub x{}, sp, x{}", insn & 31, insn >> 16 & 31)
    } else if is_stack_branch(insn) {
        let name = if insn & 15 == LOWER_OR_SAME { "b.ls" } else { "b.lo" };
        format!("{name} .{:+#x}", branch(insn).unwrap_or(0))
    } else if is_branch_on_error(insn) {
        let name = if insn >> 24 & 1 == 1 { "cbnz" } else { "cbz" };
        format!("{name} x1, .{:+#x}", branch(insn).unwrap_or(0))
    } else {
        format!(".inst {insn:#010x}")
    }
}

/// `bl` has the distance in instructions in its low 26 bits, signed.
pub(super) fn calls(code: &[u8]) -> Vec<(i64, Found)> {
    let calls = words(code).enumerate().filter(|(_, word)| word >> 26 == 0b10_0101);
    calls.map(|(at, word)| (at as i64 * 4 + i64::from((word << 6).cast_signed() >> 6) * 4, found(at, word))).collect()
}
