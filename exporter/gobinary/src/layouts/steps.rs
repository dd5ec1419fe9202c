//! Values that hold from a version on: how the generated tables write them, and what may be said between two versions
//! that were measured. Knows nothing of what the values mean.

use crate::version::GoVersion;

/// Values by the version from which they hold.
pub(crate) type Steps<V, T> = Vec<(V, Option<T>)>;

/// Minor and patch number of a release of Go 1; -1 for what came before its first.
pub(crate) type Release = (u16, i32);

/// Of `22.10`.
pub(crate) fn release(text: &str) -> Option<Release> {
    let (minor, patch) = text.split_once('.')?;
    Some((minor.parse().ok()?, patch.parse().ok()?))
}

pub(crate) fn release_of(version: &GoVersion) -> Release {
    (version.minor, if version.is_prerelease() { -1 } else { i32::from(version.patch) })
}

/// `VERSION=VALUE`, or `VERSION=-` for nothing from there on.
pub(crate) fn step<'w, V, T>(
    word: &'w str,
    version: impl Fn(&str) -> Option<V>,
    value: impl Fn(&'w str) -> Option<T>,
) -> Option<(V, Option<T>)> {
    let (from, text) = word.split_once('=')?;
    let value = if text == "-" { None } else { Some(value(text)?) };
    Some((version(from)?, value))
}

/// The value at a version. Between two measured versions it counts only when both agree; outside of them nothing is
/// known. Patch releases too move fields: Go 1.26 moved `net/http.response.status` between 1.26.8 and 1.26.11.
pub(crate) fn between<V: Ord, T: Copy + PartialEq>(measured: &[V], steps: &Steps<V, T>, version: &V) -> Option<T> {
    let below = measured.iter().rev().find(|v| *v <= version)?;
    let above = measured.iter().find(|v| *v >= version)?;
    let at = |version: &V| steps.iter().rev().find(|(from, _)| from <= version).and_then(|(_, value)| *value);
    at(below).filter(|_| at(below) == at(above))
}
