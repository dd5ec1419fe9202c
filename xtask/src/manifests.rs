//! What an operator applies, in daemonset/: renders every variant, holds the Helm chart against the kustomize base, and asks a
//! real API server whether it would take them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::cluster::{self, ControlPlane};
use crate::{go, util};

/// `cargo xtask manifests`.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Render and compare only, without an API server
    #[arg(long)]
    pub offline: bool,
}

/// The Prometheus operator whose custom resources are used.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
/// The version that helm is told the cluster has; its own default is that of its libraries.
const KUBERNETES: &str = "1.34.4";

/// A way to install: components of kustomize, and values of the chart that mean the same.
struct Variant {
    name: &'static str,
    components: &'static [&'static str],
    values: &'static [&'static str],
}

const VARIANTS: &[Variant] = &[
    Variant { name: "the defaults", components: &[], values: &[] },
    Variant { name: "PodMonitor", components: &["podmonitor"], values: &["podMonitor.enabled=true"] },
    Variant { name: "ServiceMonitor", components: &["servicemonitor"], values: &["serviceMonitor.enabled=true"] },
    Variant {
        name: "rules and dashboard",
        components: &["prometheusrule", "dashboard"],
        values: &["prometheusRule.enabled=true", "dashboard.enabled=true"],
    },
    Variant { name: "perf events", components: &["perf-event"], values: &["perfEvent=true"] },
    Variant { name: "TLS", components: &["tls"], values: &["tls.enabled=true", "requireToken=true"] },
    Variant { name: "not root", components: &["non-root"], values: &["nonRoot=true"] },
    Variant {
        name: "a seccomp profile of ours",
        components: &["seccomp"],
        values: &["seccompLocalhostProfile=gopulse.json"],
    },
    Variant { name: "the metrics APIs", components: &["hpa"], values: &["metricsApi.enabled=true"] },
    Variant {
        name: "the metrics APIs, declared",
        components: &["hpa", "hpa-apiservices-custom", "hpa-apiservices-external"],
        values: &[
            "metricsApi.enabled=true",
            "metricsApi.apiServices.custom=true",
            "metricsApi.apiServices.external=true",
        ],
    },
];

type Objects = BTreeMap<String, Value>;

/// Runs the command.
pub fn run(options: &Options) -> Result<()> {
    let kubectl = cluster::control_plane()?.join("kubectl");
    let helm = cluster::helm()?;
    let mut rendered = Vec::new();
    util::section("the Helm chart against the kustomize base");
    for variant in VARIANTS {
        let (kustomize, text) = kustomize(&kubectl, variant)?;
        let chart = chart(&helm, variant)?;
        compare(&kustomize, &chart).with_context(|| format!("{}: the chart is not the base", variant.name))?;
        println!("{:<28} {} objects, the same from helm and kustomize", variant.name, chart.len());
        rendered.push((variant.name, text));
    }
    let example = fs::read_to_string(directory().join("example/example.yaml"))?;
    rendered.push(("the example", example));
    let (defaults, _) = kustomize(&kubectl, &VARIANTS[0])?;
    check_security(&defaults)?;
    if options.offline {
        return Ok(());
    }
    util::section("a real API server, dry run");
    let admission = util::target().join("tmp/manifests/admission.yaml");
    fs::write(&admission, CRITICAL_PODS_NEED_QUOTA)?;
    let api_server = vec![format!("--admission-control-config-file={}", admission.display())];
    let plane = ControlPlane::start(&cluster::Options { api_server, ..cluster::Options::default() })?;
    install_operator_resources(&plane)?;
    for namespace in ["gopulse", "gopulse-example"] {
        plane.kubectl(&["create", "namespace", namespace])?;
    }
    for (name, text) in &rendered {
        let pods = pods_are_admitted(&plane, text).with_context(|| format!("{name}: a pod is refused"))?;
        let arguments = ["apply", "--server-side", "--dry-run=server", "--field-manager=xtask", "-f", "-"];
        let said =
            plane.kubectl_with(&arguments, text).with_context(|| format!("{name}: the API server refuses it"))?;
        println!("{name:<28} {} objects and {pods} pods taken", said.lines().count());
    }
    anothers_apiservice_is_not_taken(&plane, &helm)
}

/// As GKE has it: pods of the cluster's own priority classes only where a ResourceQuota says so.
const CRITICAL_PODS_NEED_QUOTA: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes:
            - {scopeName: PriorityClass, operator: In, values: [system-node-critical, system-cluster-critical]}
";

/// Makes what pods need to be admitted, and asks for a pod of each workload. How many there are.
fn pods_are_admitted(plane: &ControlPlane, text: &str) -> Result<usize> {
    let objects = objects(text)?;
    let needed = ["PriorityClass/", "ServiceAccount/"];
    for (_, object) in objects.iter().filter(|(name, _)| needed.iter().any(|kind| name.starts_with(kind))) {
        plane.kubectl_with(&["apply", "--server-side", "--field-manager=xtask", "-f", "-"], &object.to_string())?;
    }
    let mut pods = 0;
    for object in objects.values() {
        let Some(template) = object.pointer("/spec/template") else { continue };
        let mut pod = template.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = object["metadata"]["name"].clone();
        pod["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
        plane.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &pod.to_string())?;
        pods += 1;
    }
    Ok(pods)
}

/// The chart refuses to make an APIService of a group that another adapter has, and so does a server-side apply of kustomize's if
/// Helm has made the other's, as prometheus-adapter's.
fn anothers_apiservice_is_not_taken(plane: &ControlPlane, helm: &Path) -> Result<()> {
    let name = "v1beta1.custom.metrics.k8s.io";
    let other = serde_json::json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
        "spec": {"group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "service": {"name": "prometheus-adapter", "namespace": "monitoring"}},
    });
    plane.kubectl_with(&["create", "--field-manager=helm", "-f", "-"], &other.to_string())?;
    let install = |custom: bool| {
        let mut command = Command::new(helm);
        command.args(["template", "gopulse"]).arg(directory().join("chart"));
        // The API server is built without its version.
        command.args(["--namespace", "gopulse", "--dry-run=server", "--kube-version", KUBERNETES]);
        command.args(["--set", "metricsApi.enabled=true"]);
        command.arg("--set").arg(format!("metricsApi.apiServices.custom={custom}"));
        util::output(command.env("KUBECONFIG", plane.kubeconfig()))
    };
    install(false).context("beside another adapter the chart is refused")?;
    let refusal = install(true).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refusal.contains("belongs to Service monitoring/prometheus-adapter"), "helm would take {name}: {refusal}");
    let ours = directory().join("components/hpa-apiservices-custom/apiservices.yaml");
    let apply = ["apply", "--server-side", "--dry-run=server", "-f", &ours.display().to_string()];
    let refusal = plane.kubectl(&apply).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refusal.contains("conflict"), "kubectl would take {name}: {refusal}");
    println!("another adapter's {name} is taken neither by helm nor by kubectl apply --server-side");
    Ok(())
}

fn directory() -> PathBuf {
    util::root().join("daemonset")
}

/// Builds the base with a variant's components.
fn kustomize(kubectl: &Path, variant: &Variant) -> Result<(Objects, String)> {
    let scratch = util::target().join("tmp/manifests");
    fs::create_dir_all(&scratch)?;
    // kustomize takes no absolute paths.
    let up = "../".repeat(scratch.strip_prefix(util::root()).context("target is not below the root")?.iter().count());
    let components: Vec<String> =
        variant.components.iter().map(|name| format!("{up}daemonset/components/{name}")).collect();
    let mut kustomization = serde_json::json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("{up}daemonset/base")],
        "components": components,
    });
    // The metrics APIs have a RoleBinding in kube-system, which a namespace for all would move.
    if !variant.components.contains(&"hpa") {
        kustomization["namespace"] = "gopulse".into();
    }
    fs::write(scratch.join("kustomization.yaml"), kustomization.to_string())?;
    let text = util::output(Command::new(kubectl).arg("kustomize").arg(&scratch))?;
    Ok((objects(&text)?, text))
}

fn chart(helm: &Path, variant: &Variant) -> Result<Objects> {
    let mut command = Command::new(helm);
    command.args(["template", "gopulse"]).arg(directory().join("chart"));
    command.args(["--namespace", "gopulse", "--kube-version", KUBERNETES]);
    for value in variant.values {
        command.args(["--set", value]);
    }
    objects(&util::output(&mut command)?)
}

/// The documents of a YAML stream, by kind and name.
fn objects(text: &str) -> Result<Objects> {
    let mut objects = Objects::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let field = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = format!("{}/{}", field("/kind"), field("/metadata/name"));
        ensure!(objects.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
    Ok(objects)
}

/// Compares, but for what is each tool's own: the namespace, which helm leaves to `--create-namespace`; the chart's labels; the
/// checksum that restarts the agents when their configuration changes; comments inside the configuration.
fn compare(kustomize: &Objects, chart: &Objects) -> Result<()> {
    let normal = |objects: &Objects| -> Result<Objects> {
        let mut objects = objects.clone();
        objects.retain(|name, _| !name.starts_with("Namespace/"));
        objects.values_mut().try_for_each(normalize)?;
        Ok(objects)
    };
    let (kustomize, chart) = (normal(kustomize)?, normal(chart)?);
    ensure!(
        kustomize.keys().eq(chart.keys()),
        "kustomize has {:?}, helm has {:?}",
        kustomize.keys().collect::<Vec<_>>(),
        chart.keys().collect::<Vec<_>>()
    );
    for (name, left) in &kustomize {
        if let Some(difference) = difference("", left, &chart[name]) {
            bail!("{name}{difference}");
        }
    }
    Ok(())
}

fn normalize(object: &mut Value) -> Result<()> {
    let remove = |object: &mut Value, map: &str, key: &str| {
        if let Some(map) = object.pointer_mut(map).and_then(Value::as_object_mut) {
            map.remove(key);
        }
    };
    remove(object, "/metadata/labels", "helm.sh/chart");
    remove(object, "/metadata/labels", "app.kubernetes.io/managed-by");
    remove(object, "/spec/template/metadata/annotations", "checksum/config");
    if object.pointer("/spec/template/metadata/annotations").is_some_and(|it| *it == serde_json::json!({})) {
        remove(object, "/spec/template/metadata", "annotations");
    }
    for name in ["gopulse.yaml", "metrics-api.yaml"] {
        if let Some(file) = object.pointer_mut(&format!("/data/{name}")) {
            let text = file.as_str().unwrap_or_default();
            *file = serde_norway::from_str(text).with_context(|| format!("{name} in the ConfigMap"))?;
        }
    }
    if let Some(file) = object.pointer_mut("/data/gopulse.json") {
        *file = serde_json::from_str(file.as_str().unwrap_or_default()).context("gopulse.json in the ConfigMap")?;
    }
    Ok(())
}

/// The first difference, with its path.
fn difference(path: &str, left: &Value, right: &Value) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            keys.into_iter().find_map(|key| {
                let at = format!("{path}/{key}");
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => difference(&at, left, right),
                    (left, right) => Some(format!("{at}: kustomize has {left:?}, helm has {right:?}")),
                }
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(i, (left, right))| difference(&format!("{path}/{i}"), left, right)),
        _ => (left != right).then(|| format!("{path}: kustomize has {left}, helm has {right}")),
    }
}

/// What the book says of the agent's privileges.
fn check_security(objects: &Objects) -> Result<()> {
    let daemonset = objects.get("DaemonSet/gopulse").context("there is no DaemonSet")?;
    let at = |path: &str| daemonset.pointer(&format!("/spec/template/spec{path}")).cloned().unwrap_or(Value::Null);
    let container = |path: &str| at(&format!("/containers/0/securityContext{path}"));
    for (what, found, wanted) in [
        ("hostPID", at("/hostPID"), Value::from(true)),
        ("hostNetwork", at("/hostNetwork"), Value::from(false)),
        ("seccomp profile", at("/securityContext/seccompProfile/type"), "RuntimeDefault".into()),
        ("privileged", container("/privileged"), false.into()),
        ("allowPrivilegeEscalation", container("/allowPrivilegeEscalation"), false.into()),
        ("readOnlyRootFilesystem", container("/readOnlyRootFilesystem"), true.into()),
        ("dropped capabilities", container("/capabilities/drop"), vec!["ALL"].into()),
        ("added capabilities", container("/capabilities/add"), vec!["BPF", "PERFMON", "SYS_PTRACE"].into()),
    ] {
        ensure!(found == wanted, "the DaemonSet's {what}: {found}, and not {wanted}");
    }
    println!("the DaemonSet's security context is as the book says");
    Ok(())
}

/// Installs the Prometheus operator's custom resources, out of its Go module.
fn install_operator_resources(plane: &ControlPlane) -> Result<()> {
    let toolchain = go::toolchain("local")?;
    let mut command = toolchain.command(&util::target());
    command.env("GOFLAGS", "-mod=mod").args(["mod", "download", "-json", OPERATOR]);
    let said: Value = serde_json::from_str(&util::output(&mut command)?)?;
    let module = PathBuf::from(said["Dir"].as_str().with_context(|| format!("go names no directory for {OPERATOR}"))?);
    for resource in ["podmonitors", "servicemonitors", "prometheusrules"] {
        let file = module.join(format!("example/prometheus-operator-crd/monitoring.coreos.com_{resource}.yaml"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        plane.kubectl_with(&["apply", "--server-side", "-f", "-"], &text)?;
        let name = format!("crd/{resource}.monitoring.coreos.com");
        // `kubectl wait` fails where there is no condition at all yet.
        let established = "jsonpath={.status.conditions[?(@.type=='Established')].status}";
        cluster::wait_for(&format!("{name} is established"), Duration::from_mins(1), || {
            Ok((plane.kubectl(&["get", &name, "-o", established])?.trim() == "True").then_some(()))
        })?;
    }
    Ok(())
}
