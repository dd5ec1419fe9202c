mod access;
mod hpa;
mod hpa_doctor;
mod hpa_doctor_set_ups;
mod hpa_simulate;
mod kubernetes_control;
mod manifests;
