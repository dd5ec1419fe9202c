//! amd64 sites, decoded with iced-x86. Knows the prologues of Go 1.17 to 1.27 and nothing of files.
//!
//! Go 1.21 on: `cmp 0x10(%r14),%rsp; jbe morestack; push %rbp; mov %rsp,%rbp`. Up to Go 1.20 there is no push:
//! `cmp; jbe; sub $n,%rsp; mov %rbp,n-8(%rsp); lea n-8(%rsp),%rbp`. Large frames compare `lea -n(%rsp),%r12` or
//! `mov %rsp,%r12; sub $n,%r12; jb`. Only R12 and the flags change before the frame is made.
//! Source: cmd/internal/obj/x86/obj6.go, preprocess and stacksplit.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction as Decoded, Mnemonic, OpKind,
    Register,
};

use super::cost::Instruction;
use super::{Found, SiteError};

/// The longest prologue seen has 9 instructions and 35 bytes before the frame (go1.17, huge frame).
const MAX_PROLOGUE: usize = 10;
const MAX_PROLOGUE_BYTES: usize = 64;

pub(super) fn entry(code: &[u8]) -> Result<Found, SiteError> {
    prologue(code).map(|(start, _)| found(&start))
}

pub(super) fn check(code: &[u8]) -> Option<Found> {
    let (start, branch) = prologue(code).ok()?;
    branch
        .filter(|branch| branch.mnemonic() == Mnemonic::Jbe && branch.next_ip() == start.ip())
        .map(|branch| found(&branch))
}

/// Where a function starts past its stack check, and the last branch of that check.
fn prologue(code: &[u8]) -> Result<(Decoded, Option<Decoded>), SiteError> {
    let mut branch = None;
    let mut first = None;
    for insn in decode(code).take(MAX_PROLOGUE) {
        let at = insn.ip() as u32;
        if insn.is_invalid() {
            if first.is_none() {
                return Err(SiteError::Undecodable(at));
            }
            break;
        }
        first.get_or_insert(insn);
        if insn.ip() as usize > MAX_PROLOGUE_BYTES {
            break;
        }
        if insn.code() == Code::Push_r64 && insn.op0_register() == Register::RBP {
            return Ok((insn, branch));
        }
        // Up to Go 1.20 the frame is made by the subtraction itself.
        if branch.is_some() && makes_frame(&insn) {
            return Ok((insn, branch));
        }
        match insn.flow_control() {
            FlowControl::ConditionalBranch if is_stack_branch(&insn) => branch = Some(insn),
            FlowControl::Next => {}
            _ => break,
        }
        if !is_check(&insn) {
            break;
        }
    }
    if branch.is_some() {
        return Err(SiteError::NoFrame);
    }
    // No stack check: the first byte is passed once a call. A push may still follow a few plain instructions, but
    // those may already have changed argument registers; the first byte is safe.
    Ok((first.ok_or(SiteError::Undecodable(0))?, None))
}

/// Whether an instruction belongs to a stack check.
fn is_check(insn: &Decoded) -> bool {
    let r12 = insn.op0_register() == Register::R12;
    match insn.mnemonic() {
        // cmp 0x10(%r14), %rsp (or %r12; 0x18 on the system stack), and `cmp $stackPreempt, r` up to 1.19's huge frames.
        Mnemonic::Cmp | Mnemonic::Jbe | Mnemonic::Jb | Mnemonic::Je | Mnemonic::Nop => true,
        Mnemonic::Lea | Mnemonic::Mov | Mnemonic::Sub => r12 || is_guard_load(insn),
        _ => false,
    }
}

/// `mov 0x10(%r14), %rsi` of older huge-frame checks.
fn is_guard_load(insn: &Decoded) -> bool {
    insn.mnemonic() == Mnemonic::Mov
        && insn.op1_kind() == OpKind::Memory
        && insn.memory_base() == Register::R14
        && matches!(insn.memory_displacement64(), 0x10 | 0x18)
}

fn is_stack_branch(insn: &Decoded) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Jbe | Mnemonic::Jb | Mnemonic::Je)
}

/// `sub $n, %rsp` or `add $-0x80, %rsp`.
fn makes_frame(insn: &Decoded) -> bool {
    insn.op0_register() == Register::RSP
        && matches!(insn.mnemonic(), Mnemonic::Sub | Mnemonic::Add)
        && insn.op1_kind() != OpKind::Register
        && insn.op1_kind() != OpKind::Memory
}

pub(super) fn returns(code: &[u8]) -> Result<Vec<Found>, SiteError> {
    let mut all = Vec::new();
    let len = code.len() as u64;
    for insn in decode(code) {
        let at = insn.ip() as u32;
        if insn.is_invalid() {
            return Err(SiteError::Undecodable(at));
        }
        match insn.flow_control() {
            FlowControl::Return => all.push(found(&insn)),
            // A target at the very end is the function's padding, not a way out.
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch if insn.near_branch_target() >= len => {
                return Err(SiteError::TailJump(at));
            }
            FlowControl::IndirectBranch if !is_jump_table(&insn) => return Err(SiteError::IndirectJump(at)),
            _ => {}
        }
    }
    if all.is_empty() { Err(SiteError::NoReturn) } else { Ok(all) }
}

/// Instructions looked at behind a call.
const BEHIND_A_CALL: usize = 6;

/// `call *%r; mov %rax,n(%rsp); [nop]; test %rbx,%rbx; jne`: each such `jne` that no other way leads to.
pub(super) fn after_calls(code: &[u8]) -> Vec<Found> {
    let all: Vec<Decoded> = decode(code).collect();
    let targets: Vec<u64> = all
        .iter()
        .filter(|insn| matches!(insn.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch))
        .map(Decoded::near_branch_target)
        .collect();
    let indirect = |insn: &Decoded| insn.flow_control() == FlowControl::IndirectCall;
    let calls = all.iter().enumerate().filter(|(_, insn)| indirect(insn)).map(|(index, _)| index);
    let branch = |call: usize| {
        let behind = &all[call + 1..];
        let test = behind.iter().take(BEHIND_A_CALL).position(|insn| !leaves_results(insn))?;
        let branch = behind.get(test + 1)?;
        let tests_error = behind[test].mnemonic() == Mnemonic::Test
            && behind[test].op0_register() == Register::RBX
            && behind[test].op1_register() == Register::RBX;
        let is_branch = matches!(branch.mnemonic(), Mnemonic::Jne | Mnemonic::Je);
        let between = behind[0].ip()..=branch.ip();
        (tests_error && is_branch && !targets.iter().any(|target| between.contains(target))).then(|| found(branch))
    };
    calls.filter_map(branch).collect()
}

/// A store to the stack, or no operation.
fn leaves_results(insn: &Decoded) -> bool {
    match insn.mnemonic() {
        Mnemonic::Nop => true,
        Mnemonic::Mov => insn.op0_kind() == OpKind::Memory && insn.memory_base() == Register::RSP,
        _ => false,
    }
}

pub(super) fn calls(code: &[u8]) -> Vec<(i64, Found)> {
    let direct = |insn: &Decoded| insn.mnemonic() == Mnemonic::Call && insn.op0_kind() == OpKind::NearBranch64;
    decode(code).filter(direct).map(|insn| (insn.near_branch_target() as i64, found(&insn))).collect()
}

/// Go 1.19 on compiles large switches to `lea table(%rip),%r; jmp *(%r,%i,8)`; their targets are in the function.
fn is_jump_table(insn: &Decoded) -> bool {
    insn.op0_kind() == OpKind::Memory && insn.memory_index() != Register::None && insn.memory_index_scale() == 8
}

fn decode(code: &[u8]) -> impl Iterator<Item = Decoded> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

fn found(insn: &Decoded) -> Found {
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(false);
    formatter.options_mut().set_uppercase_hex(false);
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.format(insn, &mut text);
    Found { offset: insn.ip() as u32, text, kind: kind(insn) }
}

fn kind(insn: &Decoded) -> Instruction {
    match insn.mnemonic() {
        // push_setup_xol_ops knows 50..57 alone, with a REX prefix before it.
        Mnemonic::Push if insn.code() == Code::Push_r64 => Instruction::Push,
        Mnemonic::Nop if insn.len() == 1 => Instruction::Nop,
        Mnemonic::Nop if insn.len() == 5 => Instruction::Nop5,
        Mnemonic::Nop => Instruction::NopLong,
        Mnemonic::Call if insn.op0_kind() == OpKind::NearBranch64 => Instruction::Branch,
        _ if matches!(insn.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch) => {
            Instruction::Branch
        }
        _ => Instruction::Other,
    }
}
