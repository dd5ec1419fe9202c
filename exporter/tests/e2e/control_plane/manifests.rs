//! What daemonset/ ships: the chart is the kustomize base, and a real API server takes every variant.

#[test]
fn every_manifest_is_taken_by_a_real_api_server_and_the_chart_is_the_base() {
    xtask::manifests::run(&xtask::manifests::Options::default()).unwrap_or_else(|error| panic!("{error:#}"));
}
