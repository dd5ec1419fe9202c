mod access;
mod hpa;
mod hpa_doctor;
mod hpa_examples;
mod hpa_neighbours;
mod hpa_simulate;
mod kubernetes_control;
mod manifests;
