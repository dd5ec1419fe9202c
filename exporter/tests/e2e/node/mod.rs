mod hpa_cluster;
mod kubernetes;
