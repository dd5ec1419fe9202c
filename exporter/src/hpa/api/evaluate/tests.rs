use super::{below, quantile};

#[test]
fn quantiles_are_as_prometheus_has_them() {
    let bounds = [0.1, 0.2, 0.5];
    // histogram_quantile(0.5, ...) over le 0.1: 10, 0.2: 30, 0.5: 40, +Inf: 40.
    assert!((quantile(0.5, &bounds, &[10.0, 20.0, 10.0, 0.0]) - 0.15).abs() < 1e-12);
    assert!((quantile(0.1, &bounds, &[10.0, 20.0, 10.0, 0.0]) - 0.04).abs() < 1e-12);
    assert_eq!(quantile(0.99, &bounds, &[0.0, 0.0, 0.0, 5.0]).to_bits(), 0.5_f64.to_bits());
    assert_eq!(quantile(0.99, &bounds, &[0.0; 4]).to_bits(), 0.0_f64.to_bits());
    assert_eq!(quantile(0.99, &[], &[]).to_bits(), 0.0_f64.to_bits());
    assert!((quantile(1.0, &bounds, &[0.0, 4.0, 0.0, 0.0]) - 0.2).abs() < 1e-12);
    assert!((quantile(0.0, &bounds, &[0.0, 4.0, 0.0, 0.0]) - 0.1).abs() < 1e-12);
}

#[test]
fn the_share_below_a_bound_is_known_at_bounds_alone() {
    let bounds = [0.1, 0.25, 0.5];
    let buckets = [10.0, 20.0, 10.0, 10.0];
    assert_eq!(below(0.25, &bounds, &buckets), Some(0.6));
    assert_eq!(below(0.3, &bounds, &buckets), None);
    assert_eq!(below(0.3, &bounds, &[0.0; 4]), Some(1.0), "nothing is slow where there is nothing");
    assert_eq!(below(0.3, &[], &[]), Some(1.0));
}
