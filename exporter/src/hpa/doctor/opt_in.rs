//! Whether a pod is to be measured, by what it, its namespace and the agents' configuration say. Pure.

use serde_json::Value;

use crate::kubernetes::{OptIn, Policy, PolicySettings};

/// The annotation of pods and namespaces.
pub(super) const KEY: &str = "gopulse.io/enabled";

/// What is said of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is measured, and by whose word.
    Yes(&'static str),
    /// It is not: why, and what to do.
    No(String),
    /// Nobody says so, as far as it can be read: whether it is measured its figures tell.
    Nothing(String),
}

/// The agents' part of it, by their configuration (YAML); none if that cannot be read.
pub(super) fn policy(yaml: Option<&str>) -> Option<Policy> {
    let whole: serde_norway::Value = serde_norway::from_str(yaml?).ok()?;
    let settings = match whole.get("kubernetes") {
        Some(it) if !it.is_null() => serde_norway::from_value::<PolicySettings>(it.clone()).ok()?,
        _ => PolicySettings::default(),
    };
    Policy::new(&settings).ok()
}

/// Decides as the agents do. A value that is neither true nor false is as if it were not there.
pub(super) fn decide(policy: Option<&Policy>, name_of_namespace: &str, namespace: &Value, pod: &Value) -> Said {
    let said = |object: &Value| object["metadata"]["annotations"][KEY].as_str().map(str::to_owned);
    let (of_namespace, of_pod) = (said(namespace), said(pod));
    let read = |text: &Option<String>| text.as_deref().and_then(|it| it.parse::<bool>().ok());
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let advice = "set it to \"true\" in the pod template's metadata.annotations, or on the namespace";
    let known = policy.cloned().unwrap_or_default();
    match known.opt_in(name_of_namespace, read(&of_pod), read(&of_namespace)) {
        OptIn::Denied(why) => Said::No(format!(
            "pod {name} is not measured: {why} (kubernetes.deny_namespaces, allow_namespaces in the agents' ConfigMap), whatever its \
             annotations say"
        )),
        OptIn::Pod(true) => Said::Yes("by annotation"),
        OptIn::Namespace(true) => Said::Yes("by the namespace's annotation"),
        OptIn::Default(true) => Said::Yes("by the agents' configuration, kubernetes.default"),
        OptIn::Pod(false) => Said::No(format!("pod {name} has \"false\" as the annotation {KEY}: {advice}")),
        OptIn::Namespace(false) => {
            Said::No(format!("pod {name} lacks the annotation {KEY}, and its namespace has \"false\": {advice}"))
        }
        OptIn::Default(false) => {
            let has = of_pod.or(of_namespace).map_or_else(|| "lacks".to_owned(), |it| format!("has {it:?} as"));
            Said::Nothing(format!("pod {name} {has} the annotation {KEY}: {advice}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(said: Option<&str>) -> Value {
        json!({"metadata": {"name": "shop", "annotations": said.map(|it| json!({KEY: it}))}})
    }

    fn said(yaml: Option<&str>, namespace: Option<&str>, pod: Option<&str>) -> Said {
        decide(policy(yaml).as_ref(), "shop", &object(namespace), &object(pod))
    }

    #[test]
    fn the_agents_configuration_decides_too() {
        let no = |said: Said, words: &str| matches!(said, Said::No(text) if text.contains(words));
        let nothing = |said: Said, words: &str| matches!(said, Said::Nothing(text) if text.contains(words));
        let default = "log_level: info\nkubernetes: {default: true}";
        assert_eq!(said(None, None, Some("true")), Said::Yes("by annotation"));
        assert!(matches!(said(None, Some("true"), None), Said::Yes(_)));
        assert!(matches!(said(Some(default), None, None), Said::Yes(by) if by.contains("kubernetes.default")));
        assert!(no(said(Some(default), None, Some("false")), "\"false\""));
        assert!(no(said(Some(default), Some("false"), None), "namespace has"));
        assert!(no(said(Some("kubernetes: {deny_namespaces: [s*]}"), None, Some("true")), "denies its namespace"));
        assert!(no(said(Some("kubernetes: {allow_namespaces: [web]}"), None, Some("true")), "does not allow"));
        assert!(matches!(said(Some("kubernetes: {allow_namespaces: [sh*]}"), None, Some("true")), Said::Yes(_)));
        assert!(nothing(said(None, None, None), "lacks"));
        assert!(nothing(said(Some("{}"), None, Some("yes")), "has \"yes\" as"));
        // A setting that this version does not know makes it unreadable, and figures decide.
        assert!(policy(Some("kubernetes: {new_setting: 1}")).is_none());
        assert!(nothing(said(Some("kubernetes: {new_setting: 1}"), None, None), "lacks"));
    }
}
