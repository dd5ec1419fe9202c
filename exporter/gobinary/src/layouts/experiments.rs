//! Which GOEXPERIMENTs the layout table holds for: the runtime is compiled with other fields for some. By the generated list;
//! what is not in it is not trusted. Knows nothing of files.

use std::collections::HashMap;

use super::{Fields, SIZE};
use crate::buildinfo::BuildInfo;

static TEXT: &str = include_str!("experiments.txt");

/// What a program's experiments do to the table's structs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Those that are not known to leave what is wanted of the runtime's structs as it is, as GOEXPERIMENT names them.
    pub(crate) runtime: Vec<String>,
    /// Whether all of these are known to leave `runtime.g` as it is.
    spares_g: bool,
    /// Structs of which the others move the size, and nothing that is wanted.
    sizes: Vec<String>,
}

/// What the list says of an experiment in a release.
enum Known<'l> {
    /// It moves nothing.
    Same,
    /// It moves these fields; `code`: what the code of the runtime uses its variables for, too.
    Moves(Vec<&'l str>),
}

impl Moved {
    /// By all that the program says of its experiments. `wanted`: structs and fields.
    pub(crate) fn of(info: &BuildInfo, wanted: &[(&str, &[&str])]) -> Self {
        Self::by(TEXT, info, wanted)
    }

    fn by(list: &str, info: &BuildInfo, wanted: &[(&str, &[&str])]) -> Self {
        let set = info.setting("GOEXPERIMENT").unwrap_or_default().split(',').map(str::trim);
        let mut names: Vec<&str> = info.go_version.experiments().chain(set.filter(|name| !name.is_empty())).collect();
        names.sort_unstable();
        names.dedup();
        let is_wanted = |moved: &&str| {
            *moved == "code"
                || wanted.iter().any(|(ty, fields)| {
                    let field = moved.strip_prefix(ty).and_then(|rest| rest.strip_prefix('.'));
                    field.is_some_and(|field| fields.contains(&field))
                })
        };
        let mut moved = Self { spares_g: true, ..Self::default() };
        for name in names {
            match known(list, info, name) {
                Some(Known::Same) => {}
                Some(Known::Moves(fields)) if !fields.iter().any(is_wanted) => {
                    let sizes = fields.iter().filter_map(|it| it.strip_suffix(SIZE)?.strip_suffix('.'));
                    moved.sizes.extend(sizes.map(str::to_owned));
                }
                Some(Known::Moves(fields)) => {
                    moved.spares_g &= !fields.iter().any(|it| it.starts_with("runtime.g."));
                    moved.runtime.push(name.to_owned());
                }
                None => {
                    moved.spares_g = false;
                    moved.runtime.push(name.to_owned());
                }
            }
        }
        moved
    }

    /// Takes out of the table's layouts what may not be so in this program.
    pub(crate) fn withhold(&self, all: &mut HashMap<String, Fields>) {
        all.retain(|ty, _| !self.has(ty));
        for ty in &self.sizes {
            all.get_mut(ty).and_then(|fields| fields.remove(SIZE));
        }
    }

    fn has(&self, ty: &str) -> bool {
        !self.runtime.is_empty() && ty.starts_with("runtime.") && !(self.spares_g && ty == "runtime.g")
    }

    /// Why not.
    pub(crate) fn reason(&self) -> Option<String> {
        /// A program may name any number, of any length.
        const SHOWN: usize = 100;
        if self.runtime.is_empty() {
            return None;
        }
        let all = self.runtime.join(",");
        let shown: String = all.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let more = if all.chars().count() > SHOWN { "..." } else { "" };
        Some(format!("no layouts for GOEXPERIMENT={shown}{more}"))
    }
}

/// None: the list has no such experiment of this release.
fn known<'l>(list: &'l str, info: &BuildInfo, name: &str) -> Option<Known<'l>> {
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (major, rest) = words.next()?.strip_prefix("go")?.split_once('.')?;
        let minor = rest.split('.').next()?;
        let version = &info.go_version;
        if major.parse() != Ok(version.major) || minor.parse() != Ok(version.minor) {
            return None;
        }
        match words.next()? {
            "same" => words.any(|it| it == name).then_some(Known::Same),
            "moves" => (words.next()? == name).then(|| Known::Moves(words.collect())),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::GoVersion;

    const LIST: &str = "# a comment\ngo1.26.11 same arenas greenteagc jsonv2\n\
                        go1.26.11 moves nogreenteagc runtime.p.(size) runtime.p.cleanupsQueued runtime.mstats.(size)\n\
                        go1.26.11 moves staticlockranking runtime.p.timers code\ngo1.26.11 moves big runtime.g.goid runtime.p.(size)\n\
                        go1.25.14 same nogreenteagc\ngo1.25.14 moves greenteagc runtime.mstats.(size) runtime.p.timers\n";
    const WANTED: &[(&str, &[&str])] = &[("runtime.p", &["cleanupsQueued", "m"]), ("runtime.g", &["goid"])];

    fn moved(version: &str, setting: Option<&str>) -> Moved {
        let mut info = BuildInfo::unknown();
        info.go_version = GoVersion::parse(version);
        info.settings.extend(setting.map(|value| ("GOEXPERIMENT".to_owned(), value.to_owned())));
        Moved::by(LIST, &info, WANTED)
    }

    #[test]
    fn what_a_program_says_of_its_experiments() {
        for (version, setting, unknown) in [
            ("go1.26.8", None, ""),
            ("go1.26.8", Some(""), ""),
            ("go1.26.8 X:arenas", None, ""),
            ("go1.26.8-X:arenas,jsonv2", Some("jsonv2,arenas"), ""),
            // A default that is named.
            ("go1.26.8", Some("greenteagc"), ""),
            ("go1.26.8 X:nogreenteagc", None, "nogreenteagc"),
            ("go1.26.8-X:nogreenteagc", None, "nogreenteagc"),
            ("go1.26.8-X:arenas,nogreenteagc", Some("arenas,nogreenteagc"), "nogreenteagc"),
            // Its version was set by the linker's -X, or is of a vendor.
            ("go1.26.8", Some("nogreenteagc"), "nogreenteagc"),
            ("go1.26.8 (Red Hat 1.26.8-1.el9) X:strictfipsruntime", None, "strictfipsruntime"),
            ("go1.26.8 (Red Hat 1.26.8-1.el9)", None, ""),
            ("go1.26.8-fips", None, ""),
            ("go1.26.8+auto-X:systemcrypto", None, "systemcrypto"),
            ("go1.26rc1-X:staticlockranking", None, "staticlockranking"),
            ("go1.26.8", Some("none"), "none"),
            // What holds for one release holds for no other.
            ("go1.25.3 X:nogreenteagc", None, ""),
            ("go1.25.3 X:arenas", None, "arenas"),
            ("go1.28.0 X:arenas", None, "arenas"),
            ("go2.26.0 X:arenas", None, "arenas"),
            ("", Some("arenas"), "arenas"),
        ] {
            let found = moved(version, setting);
            assert_eq!(found.runtime.join(","), unknown, "{version} {setting:?}");
            assert_eq!(found.reason().is_some(), !unknown.is_empty());
        }
    }

    #[test]
    fn the_goroutines_struct_stays_where_all_leave_it() {
        let found = moved("go1.26.8-X:nogreenteagc", None);
        assert!(found.has("runtime.p") && !found.has("runtime.g") && !found.has("net/http.Request"));
        assert_eq!(found.reason().as_deref(), Some("no layouts for GOEXPERIMENT=nogreenteagc"));
        let found = moved("go1.26.8-X:nogreenteagc,other", None);
        assert!(found.has("runtime.g") && !found.has("net/http.Request"));
        let plain = moved("go1.26.8", None);
        assert!(!plain.has("runtime.p") && !plain.has("runtime.g"));
    }

    /// Names of any length and number are neither lost nor shown in full.
    #[test]
    fn many_experiments_are_seen_to_the_last() {
        let many = vec!["arenas"; 60].join(",");
        let found = moved(&format!("go1.26.8-X:{many},nogreenteagc"), None);
        assert_eq!(found.runtime, ["nogreenteagc"]);
        let found = moved("go1.26.8", Some(&format!("a\u{1b}{}", "b".repeat(100_000))));
        let reason = found.reason().unwrap();
        assert!(reason.len() < 200 && !reason.contains('\u{1b}'), "{reason}");
    }

    #[test]
    fn what_is_moved_and_not_wanted_does_no_harm() {
        let found = moved("go1.25.3-X:greenteagc", None);
        assert_eq!((found.runtime.len(), found.sizes.as_slice()), (0, &["runtime.mstats".to_owned()][..]));
        let fields = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 8)).collect::<Fields>();
        let mut all: HashMap<String, Fields> = [("runtime.mstats".to_owned(), fields(&["numgc", SIZE]))].into();
        found.withhold(&mut all);
        assert_eq!(all["runtime.mstats"], fields(&["numgc"]));
        // The goroutine's struct is moved.
        assert!(moved("go1.26.8-X:big", None).has("runtime.g"));
    }

    /// The list itself: each release from Go 1.22 on has what harms none, and what moves a mutex.
    #[test]
    fn the_list_has_every_release() {
        const READ: &[(&str, &[&str])] = &[("runtime.schedt", &["mnext", "ngsys"])];
        for minor in 17..=27 {
            let of = |name: &str| {
                let mut info = BuildInfo::unknown();
                info.go_version = GoVersion::parse(&format!("go1.{minor}.0-X:{name}"));
                Moved::of(&info, READ)
            };
            assert_eq!(of("fieldtrack").reason(), None, "1.{minor}");
            assert!(of("staticlockranking").has("runtime.schedt"), "1.{minor}");
            assert!(!of("staticlockranking").has("runtime.g"), "1.{minor}");
        }
    }
}
