//! How the kernel preempts threads that run its code, where that can be read. It is for the log alone: a fault that needs a
//! preempted program shows only on some kernels, and who reports it should say on which.

use std::fs;

/// Linux 5.13 and later, for root, and only where debugfs is mounted.
const MODE: &str = "/sys/kernel/debug/sched/preempt";
const VERSION: &str = "/proc/sys/kernel/version";

/// The mode, or what is known of it.
pub(crate) fn preemption() -> String {
    mode(fs::read_to_string(MODE).ok().as_deref(), &fs::read_to_string(VERSION).unwrap_or_default())
}

/// The mode by what debugfs says (`none voluntary (full) lazy`), else by the flags in the kernel's version (init/Makefile:
/// `preempt-flag`), which name the modes that can be chosen at boot and not the chosen one.
fn mode(debugfs: Option<&str>, version: &str) -> String {
    let chosen = debugfs.and_then(|text| text.split_once('(')?.1.split_once(')'));
    if let Some((chosen, _)) = chosen {
        return chosen.to_owned();
    }
    let has = |flag| version.split_whitespace().any(|word| word == flag);
    if version.trim().is_empty() {
        "not told".to_owned()
    } else if has("PREEMPT_RT") {
        "rt".to_owned()
    } else if has("PREEMPT_DYNAMIC") {
        format!("chosen at boot, see {MODE}")
    } else if has("PREEMPT") {
        "full or lazy".to_owned()
    } else {
        "none or voluntary".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::mode;

    #[test]
    fn the_mode_is_what_debugfs_says_else_what_the_version_allows() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 7.2.13-1 (2026-10-28)";
        assert_eq!(mode(Some("none voluntary (full) lazy\n"), dynamic), "full");
        assert_eq!(mode(Some("full (lazy)\n"), dynamic), "lazy");
        assert_eq!(mode(Some("unforeseen"), dynamic), "chosen at boot, see /sys/kernel/debug/sched/preempt");
        assert_eq!(mode(None, dynamic), "chosen at boot, see /sys/kernel/debug/sched/preempt");
        assert_eq!(mode(None, "#1 SMP PREEMPT_RT Debian 6.12"), "rt");
        assert_eq!(mode(None, "#1 SMP PREEMPT Thu"), "full or lazy");
        assert_eq!(mode(None, "#1 SMP Debian 5.10.0"), "none or voluntary");
        assert_eq!(mode(None, ""), "not told");
    }
}
