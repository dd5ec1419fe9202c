use super::*;

/// An error as aya has it: what the verifier said, and the system call's own.
#[derive(Debug, Error)]
#[error("the BPF_PROG_LOAD syscall returned {errno}. Verifier output: {said}")]
struct Refusal {
    said: &'static str,
    #[source]
    errno: io::Error,
}

fn message(said: &'static str, errno: i32) -> String {
    refused("http1_end", &Refusal { said, errno: io::Error::from_raw_os_error(errno) }).to_string()
}

#[test]
fn a_refusal_says_what_to_do() {
    let interpreter = "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls\nprocessed 9 insns";
    assert!(message(interpreter, libc::EINVAL).contains("net.core.bpf_jit_enable=1"));
    assert!(message("", libc::EPERM).contains("CAP_BPF"));
    assert!(message("", libc::ENOMEM).contains("--max-series"));
    let other = message("R1 invalid mem access 'scalar'", libc::EACCES);
    assert!(other.starts_with("the kernel refused program http1_end: ") && other.contains("invalid mem access"));
}

#[test]
fn a_lack_of_memory_or_permission_says_nothing_of_a_program() {
    let of_one = |errno| {
        refused("http1_end", &Refusal { said: "", errno: io::Error::from_raw_os_error(errno) }).is_of_one_program()
    };
    assert!(of_one(libc::EACCES) && of_one(libc::EINVAL));
    assert!(!of_one(libc::EPERM) && !of_one(libc::ENOMEM));
}
