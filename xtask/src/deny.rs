//! The part of cargo-deny that needs no download: licences, sources and duplicate versions of all dependencies, by the
//! same deny.toml that cargo-deny reads. It serves machines on which cargo-deny is not installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::util;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// Licences that one crate may have beyond those that all may.
#[derive(Deserialize)]
struct Exception {
    allow: Vec<String>,
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    #[serde(default)]
    skip: Vec<Crate>,
    #[serde(default)]
    skip_tree: Vec<Crate>,
    #[serde(default)]
    deny: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Checks every package of the lock file and names all that break a rule.
pub fn check() -> Result<()> {
    let file = util::root().join("deny.toml");
    let text = fs::read_to_string(&file).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("cannot read deny.toml")?;
    let arguments = ["metadata", "--format-version", "1", "--all-features", "--locked"];
    let metadata: Metadata = serde_json::from_str(&util::output(util::cargo().args(arguments))?)?;
    let faults = faults(&rules, &metadata.packages);
    if !faults.is_empty() {
        bail!("the rules of deny.toml are broken:\n  {}", faults.join("\n  "));
    }
    println!("{} packages keep the rules of deny.toml", metadata.packages.len());
    Ok(())
}

fn faults(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let title = format!("{} {}", package.name, package.version);
        versions.entry(&package.name).or_default().insert(&package.version);
        let Some(source) = &package.source else { continue };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !rules.sources.allow_registry.iter().any(|allowed| allowed == registry) {
            faults.push(format!("{title} comes from {source}"));
        }
        let excepted = rules.licenses.exceptions.iter().filter(|exception| exception.name == package.name);
        let allow: Vec<String> =
            rules.licenses.allow.iter().chain(excepted.flat_map(|exception| &exception.allow)).cloned().collect();
        match &package.license {
            Some(license) if allowed(license, &allow) => {}
            Some(license) => faults.push(format!("{title} has the licence {license}")),
            None => faults.push(format!("{title} states no licence")),
        }
        if rules.bans.deny.iter().any(|banned| banned.name == package.name) {
            faults.push(format!("{title} is banned"));
        }
    }
    if rules.bans.multiple_versions == "deny" {
        let excepted = |name: &str, version: &str| {
            rules.bans.skip.iter().chain(&rules.bans.skip_tree).any(|skip| {
                let wanted = skip.name.split_once(['@', ':']);
                skip.name == name
                    || wanted.is_some_and(|(crate_name, range)| {
                        crate_name == name && version.starts_with(range.trim_start_matches(['=', '^', '~']))
                    })
            })
        };
        for (name, found) in versions {
            let counted: Vec<_> = found.into_iter().filter(|version| !excepted(name, version)).collect();
            if counted.len() > 1 {
                faults.push(format!("{name} is there in versions {}", counted.join(" and ")));
            }
        }
    }
    faults
}

/// True if an SPDX expression can be met by allowed licences alone.
fn allowed(expression: &str, allow: &[String]) -> bool {
    // The slash is what crates used before SPDX expressions.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut position = 0;
    let met = either(&tokens, &mut position, allow);
    met && position == tokens.len()
}

fn either(tokens: &[&str], position: &mut usize, allow: &[String]) -> bool {
    let mut met = both(tokens, position, allow);
    while tokens.get(*position) == Some(&"OR") {
        *position += 1;
        met |= both(tokens, position, allow);
    }
    met
}

fn both(tokens: &[&str], position: &mut usize, allow: &[String]) -> bool {
    let mut met = one(tokens, position, allow);
    while tokens.get(*position) == Some(&"AND") {
        *position += 1;
        met &= one(tokens, position, allow);
    }
    met
}

fn one(tokens: &[&str], position: &mut usize, allow: &[String]) -> bool {
    let Some(&token) = tokens.get(*position) else { return false };
    *position += 1;
    if token == "(" {
        let met = either(tokens, position, allow);
        let closed = tokens.get(*position) == Some(&")");
        *position += usize::from(closed);
        return met && closed;
    }
    let mut name = token.to_owned();
    if tokens.get(*position) == Some(&"WITH") {
        name = format!("{name} WITH {}", tokens.get(*position + 1).unwrap_or(&""));
        *position += 2;
    }
    allow.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn expressions_are_met_by_allowed_licences_alone() {
        let allow = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for met in
            ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR X) AND Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        {
            assert!(allowed(met, &allow), "{met}");
        }
        for unmet in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT WITH X", "MIT )"] {
            assert!(!allowed(unmet, &allow), "{unmet}");
        }
    }
}
