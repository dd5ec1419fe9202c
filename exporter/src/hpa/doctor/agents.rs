//! The node agents, as their pods and their texts show them. Pure.

use serde_json::Value;

use super::report::Look;

/// A pod's name.
pub(super) fn name_of(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a pod is ready; none if nothing says so yet.
pub(super) fn is_ready(pod: &Value) -> Option<bool> {
    let ready = pod["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == "Ready")?;
    Some(ready["status"] == "True")
}

/// The agent of a pod's node: of several, as while one replaces another, the one that stays and is ready.
pub(super) fn of_node<'a>(agents: &'a [Value], pod: &Value) -> Option<&'a Value> {
    let node = pod["spec"]["nodeName"].as_str()?;
    let here = agents.iter().filter(|it| it["spec"]["nodeName"].as_str() == Some(node));
    let runs = here.filter(|it| !matches!(it["status"]["phase"].as_str(), Some("Failed" | "Succeeded")));
    runs.max_by_key(|it| (it["metadata"]["deletionTimestamp"].is_null(), is_ready(it)))
}

/// Whether an agent's `/metrics` has figures of a pod. Another namespace may have a pod of the name.
pub(super) fn has_figures(text: &str, namespace: &str, pod: &str) -> bool {
    let (namespace, pod) = (format!("namespace=\"{namespace}\""), format!("pod=\"{pod}\""));
    text.lines().any(|line| line.contains(&pod) && line.contains(&namespace))
}

/// What is known of a pod whose agent cannot be asked, by what gopulse's metrics-api says where it is asked: a value, or the status and
/// the message of its refusal. None if it has figures.
pub(super) fn by_metrics_api(
    agent: &str,
    pod: &str,
    error: &str,
    told: Option<Result<(), (u16, String)>>,
) -> Option<Look> {
    match told {
        Some(Ok(())) => None,
        // Other reasons than agents, as that a metric is not measured of it, are told with the values.
        Some(Err((404, why))) if why.contains("agent") => {
            Some(Look::Broken(format!("agent {agent} has no figures of pod {pod}, as the metrics-api says: {why}")))
        }
        _ => Some(Look::Passed(format!("agent {agent} cannot be asked through the API server: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(name: &str, node: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn of_several_agents_on_a_node_the_one_that_stays_counts() {
        let pod = json!({"spec": {"nodeName": "n1"}});
        let mut going = agent("going", "n1", "True");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut evicted = agent("evicted", "n1", "False");
        evicted["status"]["phase"] = "Failed".into();
        let all = [agent("other", "n2", "True"), evicted, going, agent("new", "n1", "False")];
        assert_eq!(of_node(&all, &pod).map(name_of), Some("new"));
        assert_eq!(of_node(&all[..3], &pod).map(name_of), Some("going"));
        assert_eq!(of_node(&all[..2], &pod), None);
        assert_eq!(of_node(&all, &json!({"spec": {}})), None);
    }

    #[test]
    fn the_metrics_api_is_believed_where_an_agent_cannot_be_asked() {
        let told = |told| by_metrics_api("gopulse-x", "shop-1", "400: it speaks HTTPS", told);
        assert!(told(Some(Ok(()))).is_none());
        let silent = "pod shop/shop-1 is not known: its agent has been silent for 15 s".to_owned();
        assert!(matches!(told(Some(Err((404, silent)))), Some(Look::Broken(text)) if text.contains("silent for 15 s")));
        for nothing in [
            None,
            Some(Err((403, "no right to an agent's pod".to_owned()))),
            Some(Err((404, "not measured of it".to_owned()))),
        ] {
            assert!(matches!(told(nothing), Some(Look::Passed(text)) if text.contains("it speaks HTTPS")));
        }
    }

    #[test]
    fn figures_are_of_a_pod_and_its_namespace() {
        let text = "a{namespace=\"web\",pod=\"db-0\",container=\"app\"} 1\nb{namespace=\"shop\",pod=\"db-1\"} 1\n";
        assert!(has_figures(text, "web", "db-0") && has_figures(text, "shop", "db-1"));
        assert!(!has_figures(text, "shop", "db-0") && !has_figures(text, "web", "db"));
    }
}
