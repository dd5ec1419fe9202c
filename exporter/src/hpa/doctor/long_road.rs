//! The links of the road through Prometheus: how the agents are scraped, and what Prometheus has.

use serde_json::Value;

use super::{prometheus, report::Look};

/// The family that most metrics are made of.
const FAMILY: &str = "http_server_request_duration_seconds_count";

/// Judges the shipped PodMonitor, if it is there.
pub(super) fn pod_monitor(monitor: Option<&Value>, namespace: &str) -> Look {
    let Some(monitor) = monitor else {
        return Look::Passed(format!(
            "there is no PodMonitor gopulse in namespace {namespace}: Prometheus is told of the agents in another way"
        ));
    };
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().cloned().unwrap_or_default();
    if endpoints.iter().any(|it| it["honorLabels"] != true) {
        return Look::Broken(format!(
            "{namespace}/gopulse does not set honorLabels: true: Prometheus then writes the agent's namespace and pod over the measured one's, and renames those to exported_namespace and exported_pod"
        ));
    }
    Look::Whole(format!("{namespace}/gopulse, honorLabels on"))
}

/// Asks Prometheus for a pod's series.
pub(super) async fn ask(base: Option<&str>, namespace: &str, pod: &str) -> Look {
    let Some(base) = base else { return Look::Passed("give --prometheus to have it asked".to_owned()) };
    let query = |labels: String| async move { prometheus::query(base, &format!("{FAMILY}{{{labels}}}")).await };
    let looked = async {
        if !query(format!("namespace=\"{namespace}\",pod=\"{pod}\"")).await?.is_empty() {
            return Ok(Look::Whole(format!("has {FAMILY} of pod {pod}")));
        }
        if !query(format!("exported_pod=\"{pod}\"")).await?.is_empty() {
            return Ok(Look::Broken("it has the series under exported_namespace and exported_pod: honorLabels is off where the agents are scraped; set honorLabels: true".to_owned()));
        }
        if let Some(labels) = query(format!("pod=\"{pod}\"")).await?.first() {
            return Ok(Look::Broken(format!(
                "it has the series of pod {pod}, but with namespace {}: a relabelling writes another namespace over it",
                labels["namespace"]
            )));
        }
        if query(String::new()).await?.is_empty() {
            return Ok(Look::Broken(format!(
                "it has no series {FAMILY} at all: the agents are not scraped (see its Status, Targets), or the pods have had no request yet"
            )));
        }
        Ok::<Look, String>(Look::Broken(format!(
            "it has series of other pods, but none with the label pod=\"{pod}\": the labels namespace, pod and container must not be dropped when scraping"
        )))
    };
    looked.await.unwrap_or_else(|error| Look::Unknown(format!("it cannot be asked: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn honor_labels_must_be_on_where_there_is_a_pod_monitor() {
        let monitor = |honor: bool| json!({"spec": {"podMetricsEndpoints": [{"honorLabels": honor}]}});
        assert!(matches!(pod_monitor(None, "gopulse"), Look::Passed(_)));
        assert!(matches!(pod_monitor(Some(&monitor(false)), "gopulse"), Look::Broken(_)));
        assert!(matches!(pod_monitor(Some(&monitor(true)), "gopulse"), Look::Whole(_)));
    }

    #[tokio::test]
    async fn prometheus_is_asked_at_an_ipv6_address_too() {
        // A machine without IPv6 has nothing to show.
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let body = r#"{"status": "success", "data": {"result": [{"metric": {}}]}}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let (look, request) = tokio::join!(ask(Some(&base), "shop", "shop-1"), server);
        assert!(matches!(look, Look::Whole(_)), "{look:?}");
        assert!(request.contains("host: [::1]:"), "{request}");
        assert!(matches!(ask(None, "shop", "shop-1").await, Look::Passed(_)));
        assert!(matches!(ask(Some("https://x"), "shop", "shop-1").await, Look::Unknown(_)));
    }
}
