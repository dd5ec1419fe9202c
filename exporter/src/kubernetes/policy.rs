//! Which pods are measured: what the operator allows, what the pod says, what its namespace says, what the cluster's default is,
//! in this order.

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// The operator's part, as the configuration file has it under `kubernetes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Whether this agent measures pods: by default if it runs in one and nothing is selected otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// This node's name; by default the environment variable NODE_NAME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_name: Option<String>,
    /// Whether a pod is measured that says nothing, in a namespace that says nothing.
    pub(crate) default: bool,
    /// Globs over namespaces: pods in others are never measured. Empty: any.
    pub(crate) allow_namespaces: Vec<String>,
    /// Globs over namespaces whose pods are never measured, whatever they say.
    pub(crate) deny_namespaces: Vec<String>,
    /// Labels of pods to be repeated on `go_target_info`, as `label_NAME`.
    pub(crate) pod_labels: Vec<String>,
}

/// Chosen labels at most.
const MAX_POD_LABELS: usize = 32;

impl Settings {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.pod_labels.len() > MAX_POD_LABELS {
            return Err(format!(
                "kubernetes.pod_labels names {} labels: {MAX_POD_LABELS} is the most",
                self.pod_labels.len()
            ));
        }
        Policy::new(self).map(drop)
    }
}

/// The same, ready for use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    default: bool,
    allow: Option<GlobSet>,
    deny: GlobSet,
}

/// Whether a pod is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Yes,
    /// It is not, and who says so.
    No(&'static str),
}

/// Who decides on a pod, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OptIn {
    /// The configuration, by its lists of namespaces: it is not measured.
    Denied(&'static str),
    /// The pod's annotation.
    Pod(bool),
    /// Its namespace's.
    Namespace(bool),
    /// The configuration's default.
    Default(bool),
}

impl Policy {
    /// Compiles the globs; the bad one and why, if one is bad.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let compile = |key: &str, globs: &[String]| {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                set.add(Glob::new(glob).map_err(|error| format!("kubernetes.{key}: {glob}: {}", error.kind()))?);
            }
            set.build().map_err(|error| format!("kubernetes.{key}: {}", error.kind()))
        };
        let allow = compile("allow_namespaces", &settings.allow_namespaces)?;
        Ok(Self {
            default: settings.default,
            allow: (!allow.is_empty()).then_some(allow),
            deny: compile("deny_namespaces", &settings.deny_namespaces)?,
        })
    }

    /// Decides on a pod, by what it and its namespace say.
    pub(crate) fn opt_in(&self, namespace: &str, pod: Option<bool>, of_namespace: Option<bool>) -> OptIn {
        if self.deny.is_match(namespace) {
            return OptIn::Denied("the configuration denies its namespace");
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.is_match(namespace)) {
            return OptIn::Denied("the configuration does not allow its namespace");
        }
        match (pod, of_namespace) {
            (Some(said), _) => OptIn::Pod(said),
            (None, Some(said)) => OptIn::Namespace(said),
            (None, None) => OptIn::Default(self.default),
        }
    }

    /// The same, as a verdict.
    pub(super) fn decide(&self, namespace: &str, pod: Option<bool>, of_namespace: Option<bool>) -> Verdict {
        match self.opt_in(namespace, pod, of_namespace) {
            OptIn::Pod(true) | OptIn::Namespace(true) | OptIn::Default(true) => Verdict::Yes,
            OptIn::Denied(why) => Verdict::No(why),
            OptIn::Pod(false) => Verdict::No("its annotation says so"),
            OptIn::Namespace(false) => Verdict::No("its namespace's annotation says so"),
            OptIn::Default(false) => Verdict::No("it has not opted in"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(default: bool, allow: &[&str], deny: &[&str]) -> Policy {
        let owned = |globs: &[&str]| globs.iter().map(|it| (*it).to_owned()).collect();
        Policy::new(&Settings {
            default,
            allow_namespaces: owned(allow),
            deny_namespaces: owned(deny),
            ..Settings::default()
        })
        .unwrap()
    }

    #[test]
    fn the_pod_overrules_its_namespace_and_that_the_default() {
        for default in [false, true] {
            let policy = policy(default, &[], &[]);
            for of_namespace in [None, Some(false), Some(true)] {
                assert_eq!(policy.decide("a", Some(true), of_namespace), Verdict::Yes);
                assert!(matches!(policy.decide("a", Some(false), of_namespace), Verdict::No(_)));
            }
            assert_eq!(policy.decide("a", None, Some(true)), Verdict::Yes);
            assert!(matches!(policy.decide("a", None, Some(false)), Verdict::No(_)));
            assert_eq!(policy.decide("a", None, None) == Verdict::Yes, default);
        }
    }

    #[test]
    fn the_operator_overrules_both() {
        let policy = policy(true, &["team-*"], &["team-secret"]);
        assert_eq!(policy.decide("team-a", None, None), Verdict::Yes);
        assert!(matches!(policy.decide("team-secret", Some(true), Some(true)), Verdict::No(_)));
        assert!(matches!(policy.decide("other", Some(true), Some(true)), Verdict::No(_)));
    }

    #[test]
    fn bad_globs_are_named() {
        let error = Settings { deny_namespaces: vec!["a[".into()], ..Settings::default() }.check().unwrap_err();
        assert!(error.contains("deny_namespaces") && error.contains("a["), "{error}");
    }
}
