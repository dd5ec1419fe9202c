//! Libraries that replace functions of the program that they are linked into, in its memory while it runs. One that copies code
//! while a probe is in it takes the kernel's breakpoint along, and the program dies of that: at the copy, or when the code is put
//! back after gopulse has ended. Knows nothing of what is done about it.

use gobinary::{BuildInfo, Module};

/// Functions of theirs by which they are known where modules are not, in forks and in vendored copies too. `*.` is any package's.
///
/// Sources: `replace_unix.go` of github.com/bouk/monkey, which gomonkey, supermonkey and go-kiss/monkey have from it;
/// `internal/monkey/mem` of github.com/bytedance/mockey; `patcher_unix.go` of github.com/undefinedlabs/go-mpatch;
/// `utility_unix.go` of github.com/brahma-adshonor/gohook.
pub(crate) const FUNCTIONS: [&str; 5] = [
    "*.mprotectCrossPage",
    "github.com/bytedance/mockey/internal/monkey/mem.WriteWithSTW",
    "github.com/bytedance/mockey/internal/monkey/mem.Write",
    "github.com/undefinedlabs/go-mpatch.callMProtect",
    "github.com/brahma-adshonor/gohook.setPageWritable",
];

/// Their modules, of any major version. The build information names those alone that the program has a package of.
const MODULES: [&str; 12] = [
    "bou.ke/monkey",
    "github.com/agiledragon/gomonkey",
    "github.com/bouk/monkey",
    "github.com/brahma-adshonor/gohook",
    "github.com/bytedance/mockey",
    "github.com/cch123/supermonkey",
    "github.com/go-kiss/monkey",
    "github.com/k2io/hookingo",
    "github.com/sirkon/monkey",
    "github.com/tencent/goom",
    "github.com/undefinedlabs/go-mpatch",
    "git.code.oa.com/goom/mocker",
];

/// Why nothing may be attached to a program: the library that it has, or the function by which that is known.
pub(crate) fn reason(info: &BuildInfo, has: impl Fn(&str) -> bool) -> Option<String> {
    let paths = |module: &Module| {
        let replacement = module.replace.as_ref().map(|it| it.path.clone());
        [Some(module.path.clone()), replacement]
    };
    let by_module = info.deps.iter().flat_map(paths).flatten().find(|path| MODULES.iter().any(|it| is_of(path, it)));
    let by_function = || FUNCTIONS.into_iter().find(|it| has(it)).map(|it| it.trim_start_matches("*.").to_owned());
    by_module.or_else(by_function).map(|what| {
        format!(
            "it can replace functions in its memory, by {what}: a breakpoint that is copied with them ends the program, so \
             nothing is attached"
        )
    })
}

/// Whether a path is a module's, or one of a later major version. Paths differ in case where a name was changed.
fn is_of(path: &str, module: &str) -> bool {
    let (path, module) = (path.to_lowercase(), module.to_lowercase());
    path.strip_prefix(&module).is_some_and(|rest| rest.is_empty() || rest.starts_with("/v"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> BuildInfo {
        BuildInfo {
            go_version: gobinary::GoVersion::parse(""),
            path: String::new(),
            main: None,
            deps: Vec::new(),
            settings: Vec::new(),
        }
    }

    fn with(path: &str, replaced_by: Option<&str>) -> BuildInfo {
        let module =
            |path: &str, replace| Module { path: path.into(), version: "v1.0.0".into(), sum: String::new(), replace };
        let replace = replaced_by.map(|path| Box::new(module(path, None)));
        BuildInfo { deps: vec![module("golang.org/x/net", None), module(path, replace)], ..unknown() }
    }

    #[test]
    fn they_are_known_by_module_or_by_function() {
        for path in ["github.com/agiledragon/gomonkey", "github.com/agiledragon/gomonkey/v2", "github.com/Tencent/goom"]
        {
            let reason = reason(&with(path, None), |_| false).unwrap();
            assert!(reason.contains(&format!("by {path}: ")), "{reason}");
        }
        assert!(reason(&with("example.com/mock", Some("bou.ke/monkey")), |_| false).is_some());
        for other in ["github.com/agiledragon/gomonkeys", "example.com/bou.ke/monkey", "github.com/robotn/gohook"] {
            assert_eq!(reason(&with(other, None), |_| false), None, "{other}");
        }
        assert!(reason(&unknown(), |it| it == "*.mprotectCrossPage").unwrap().contains("by mprotectCrossPage: "));
        assert_eq!(reason(&unknown(), |_| false), None);
    }
}
