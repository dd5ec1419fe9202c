mod hpa_cluster;
mod image;
mod kubernetes;
