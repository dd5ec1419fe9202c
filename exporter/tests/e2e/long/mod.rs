mod hpa_keda;
mod hpa_roads;
mod hpa_truth;
mod image;
mod kubernetes_churn;
mod kubernetes_outage;
mod never_harm;
mod soak;
