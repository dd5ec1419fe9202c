//! The real control plane that the other Kubernetes tests stand on: it makes pods out of Deployments, and it can go away and
//! come back.

use serde_json::Value;
use xtask::cluster::{ControlPlane, Options, wait_for};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: shop, image: shop}]
";

fn pods(plane: &ControlPlane) -> usize {
    let pods = plane.get(&["pods", "-l", "app=shop"]).expect("the API server answers");
    pods["items"].as_array().map_or(0, Vec::len)
}

#[test]
fn deployments_make_pods_and_the_api_server_comes_back() {
    let mut plane = ControlPlane::start(&Options::default()).expect("it starts");
    plane.apply(DEPLOYMENT).expect("a Deployment is accepted");
    let patience = std::time::Duration::from_mins(2);
    let three = |plane: &ControlPlane| Ok((pods(plane) == 3).then_some(()));
    wait_for("three pods", patience, || three(&plane)).expect("the controllers work");
    let owner = plane.get(&["replicasets", "-l", "app=shop"]).expect("there is one");
    assert_eq!(owner["items"][0]["metadata"]["ownerReferences"][0]["kind"], Value::from("Deployment"));

    plane.stop_api_server().expect("it ends");
    assert!(plane.kubectl(&["get", "namespaces", "--request-timeout=2s"]).is_err());
    plane.start_api_server().expect("it starts again");
    plane.kubectl(&["scale", "deployment", "shop", "--replicas", "1"]).expect("it answers again");
    let one = |plane: &ControlPlane| Ok((pods(plane) == 1).then_some(()));
    wait_for("one pod", patience, || one(&plane)).expect("the controllers came back too");
}
