//! Cgroup files of real systems, from public reports and other projects' test data; each with its source.

use super::*;

/// What a cgroup file should give: the innermost container's id, by its first digits, and how many there are.
struct Case {
    what: &'static str,
    source: &'static str,
    file: &'static str,
    innermost: Option<&'static str>,
    ids: usize,
}

const SPIRE: &str = "github.com/spiffe/spire, pkg/agent/plugin/workloadattestor/k8s/testdata";
const OBI: &str =
    "github.com/open-telemetry/opentelemetry-ebpf-instrumentation, pkg/internal/helpers/container/container_test.go";
const COLLECTOR: &str = "github.com/stackrox/collector, ExtractContainerIDFromCgroupTest";

const CASES: &[Case] = &[
    Case {
        what: "cgroup v1, Docker or containerd, cgroupfs driver",
        source: "github.com/DataDog/dd-trace-go, internal/container_linux_test.go",
        file: "10:hugetlb:/kubepods/burstable/podfd52ef25-a87d-11e9-9423-0800271a638e/8c046cb0b72cd4c99f51b5591cd5b095967f58ee003710a45280c28ee1a9c7fa\n\
               9:cpuset:/kubepods/burstable/podfd52ef25-a87d-11e9-9423-0800271a638e/8c046cb0b72cd4c99f51b5591cd5b095967f58ee003710a45280c28ee1a9c7fa\n\
               6:cpu,cpuacct:/kubepods/burstable/podfd52ef25-a87d-11e9-9423-0800271a638e/8c046cb0b72cd4c99f51b5591cd5b095967f58ee003710a45280c28ee1a9c7fa\n",
        innermost: Some("8c046cb0b72c"),
        ids: 1,
    },
    Case {
        what: "cgroup v1, guaranteed pod: no quality-of-service level in the path",
        source: "github.com/spiffe/spire, pkg/agent/plugin/workloadattestor/k8s/k8s_posix_test.go",
        file: "4:memory:/user.slice\n3:cpu:/kubepods/pod2c48913c-b29f-11e7-9350-020968147796/9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961\n",
        innermost: Some("9bca8d63d5fa"),
        ids: 1,
    },
    Case {
        what: "cgroup v1, Docker, systemd driver",
        source: COLLECTOR,
        file: "1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podce705797_e47e_11e9_bd71_42010a000002.slice/docker-6525e65814a99d431b6978e8f8c895013176c6c58173b56639d4b020c14e6022.scope\n",
        innermost: Some("6525e65814a9"),
        ids: 1,
    },
    Case {
        what: "hybrid, CRI-O, systemd driver: v1 lines name the container, the v2 line the service",
        source: SPIRE,
        file: "12:hugetlb:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda2830d0d_b0f0_4ff0_81b5_0ee4e299cf80.slice/crio-09bc3d7ade839efec32b6bec4ec79d099027a668ddba043083ec21d3c3b8f1e6.scope\n\
               3:rdma:/\n\
               1:systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda2830d0d_b0f0_4ff0_81b5_0ee4e299cf80.slice/crio-09bc3d7ade839efec32b6bec4ec79d099027a668ddba043083ec21d3c3b8f1e6.scope\n\
               0::/system.slice/crio.service\n",
        innermost: Some("09bc3d7ade83"),
        ids: 1,
    },
    Case {
        what: "cgroup v1, CRI-O, systemd driver, with controllers at the root",
        source: "github.com/opencontainers/runc, issue 4620",
        file: "13:freezer:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda5c1f8d5_1919_434d_add7_4afaafdaef89.slice/crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c.scope\n\
               11:files:/\n",
        innermost: Some("5eed91756358"),
        ids: 1,
    },
    Case {
        what: "CRI-O, cgroupfs driver: a prefix, but no scope",
        source: "github.com/cri-o/cri-o, pull request 812 (the form), with the id of runc issue 4620",
        file: "0::/kubepods/burstable/poda5c1f8d5-1919-434d-add7-4afaafdaef89/crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c\n",
        innermost: Some("5eed91756358"),
        ids: 1,
    },
    Case {
        what: "CRI-O with crun: the container's processes are in a group below the scope",
        source: "github.com/containers/crun, pull request 305 (the form), with the id of runc issue 4620",
        file: "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda5c1f8d5_1919_434d_add7_4afaafdaef89.slice/crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c.scope/container\n",
        innermost: Some("5eed91756358"),
        ids: 1,
    },
    Case {
        what: "CRI-O's monitor of a container is not in it",
        source: "github.com/cri-o/cri-o, issue 8904",
        file: "0::/system.slice/crio-conmon-0644511bc2734f5ff9f9532fdecddb9f1b92597fe269168b137ada040c3a3118.scope\n",
        innermost: None,
        ids: 0,
    },
    Case {
        what: "cgroup v2, containerd, systemd driver (EKS)",
        source: OBI,
        file: "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poddde1244b_5bb5_4297_b544_85f3bc0d80bf.slice/cri-containerd-40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9.scope",
        innermost: Some("40c03570b6f4"),
        ids: 1,
    },
    Case {
        what: "cgroup v2, containerd, cgroupfs driver (GKE)",
        source: OBI,
        file: "0::/kubepods/burstable/pod4a163a05-439d-484b-8e53-2968bc15824f/40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9",
        innermost: Some("40c03570b6f4"),
        ids: 1,
    },
    Case {
        what: "a static pod: its uid is a hash without dashes, half as long as a container's id",
        source: OBI,
        file: "0::/kubepods/burstable/podb53dfa9e2dc9b890f7fadb2770857b03/40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9",
        innermost: Some("40c03570b6f4"),
        ids: 1,
    },
    Case {
        what: "containerd asked for the systemd driver by a runtime that is not: parts joined by colons",
        source: "github.com/elastic/apm-agent-nodejs, issue 3550",
        file: "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-podff49d0be_16b7_4a49_bb9e_8ec1f1f4e27f.slice:cri-containerd:0f99ad5f45163ed14ab8eaf92ed34bb4a631d007f8755a7d79be614bcb0df0ef\n",
        innermost: Some("0f99ad5f4516"),
        ids: 1,
    },
    Case {
        what: "kind, cgroup v1 with a v2 line: the node's id before the container's",
        source: SPIRE,
        file: "13:name=systemd:/docker/93529524695bb00d91c1f6dba692ea8d3550c3b94fb2463af7bc9ec82f992d26/kubepods/besteffort/poda2830d0d-b0f0-4ff0-81b5-0ee4e299cf80/09bc3d7ade839efec32b6bec4ec79d099027a668ddba043083ec21d3c3b8f1e6\n\
               0::/docker/93529524695bb00d91c1f6dba692ea8d3550c3b94fb2463af7bc9ec82f992d26/system.slice/containerd.service\n",
        innermost: Some("09bc3d7ade83"),
        ids: 2,
    },
    Case {
        what: "kind, hybrid: the v1 lines know the outer container alone",
        source: OBI,
        file: "10:freezer:/docker/a2ffe0e97ac22657a2a023ad628e9df837c38a03b1ebc904d3f6d644eb1a1a81\n\
               0::/docker/8afe480d66074930353da456a1344caca810fe31c1e31f6e08c95a66887235d6/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod44c76ce5_f953_4bd3_bc89_12621681af49.slice/cri-containerd-40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9.scope\n",
        innermost: Some("a2ffe0e97ac2"),
        ids: 3,
    },
    Case {
        what: "kind on Podman, cgroup v2",
        source: COLLECTOR,
        file: "0::/machine.slice/libpod-cbdfa0f1f08763b1963c30d98e11e1f052cb67f1e9b7c0ab8a6ca6c70cbcad69.scope/container/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod6eab3b7b_f0a6_4bb8_bff2_d5bc9017c04b.slice/cri-containerd-5ebf11e02dbde102cda4b76bc0e3849a65f9edac7a12bdabfd34db01b9556101.scope\n",
        innermost: Some("5ebf11e02dbd"),
        ids: 2,
    },
    Case {
        what: "kind's node image, from inside the node",
        source: "github.com/containerd/nri, pull request 227",
        file: "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod1e597579_417e_482f_bf65_5fe170c3aebd.slice/cri-containerd-a09bc17f5aa29b0dbdec9ede5f46cf1396d2405917ab02e6f1eb1019f388396e.scope\n",
        innermost: Some("a09bc17f5aa2"),
        ids: 1,
    },
    Case {
        what: "k3d, k3s in a Docker scope with the cgroupfs driver inside",
        source: OBI,
        file: "0::/system.slice/docker-40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9.scope/kubepods/burstable/podc55ba69a-e39f-44af-925d-c4794fd57878/264c1e319d1f6080a48a9fabcf9ac8fd9afd9a5930cf35e8d0eeb03b258c3152",
        innermost: Some("264c1e319d1f"),
        ids: 2,
    },
    Case {
        what: "hostPID from a private cgroup namespace: a sibling container of the same pod",
        source: OBI,
        file: "0::/../cri-containerd-40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9.scope",
        innermost: Some("40c03570b6f4"),
        ids: 1,
    },
    Case {
        what: "hostPID from a private cgroup namespace: another quality of service, systemd driver",
        source: "github.com/hubblo-org/scaphandre, pull request 327",
        file: "0::/../../../kubepods-besteffort.slice/kubepods-besteffort-pod43a7b130_2354_4564_9628_554d82403c6f.slice/cri-containerd-339bb32e778c77fcfdf986785997959e4519dfdca5b9100d06aa00685145ce85.scope\n",
        innermost: Some("339bb32e778c"),
        ids: 1,
    },
    Case {
        what: "hostPID from a private cgroup namespace: cgroupfs driver",
        source: OBI,
        file: "0::/../../pode039200acb850c82bb901653cc38ff6e/40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9",
        innermost: Some("40c03570b6f4"),
        ids: 1,
    },
    Case {
        what: "rootless kubelet: below a user's service",
        source: "kubernetes' rootless patch series (A. Suda, 2020), \"kubelet: new feature gate: Rootless\"",
        file: "0::/user.slice/user-1001.slice/user@1001.service/user.slice/cri-containerd-6938564e754ad86269a536ed19172af0eff5f7ff0a41eefc5b433a76f1f38f16.scope\n",
        innermost: Some("6938564e754a"),
        ids: 1,
    },
    Case {
        what: "k3k: k3s in a pod of another cluster, in a hierarchy of its own",
        source: "github.com/rancher/k3k, pull request 792",
        file: "0::/kubepods/burstable/pod404bd273-57bc-4508-a386-e2b76d3c9cfe/3aaaa76f09e1de6bb75e84f9c15b737a2d590f69757953e3ec262bd5861dc15b\n",
        innermost: Some("3aaaa76f09e1"),
        ids: 1,
    },
    Case {
        what: "DC/OS: pods below Mesos, whose ids are no container ids",
        source: COLLECTOR,
        file: "8:cpuset:/mesos/3b1cf944-1d97-40a6-ac73-b156ac2f2bfe/mesos/077d75a1-d7b6-4e55-8114-13f925fe4f49/kubepods/besteffort/pod8e18d5f1-1421-42b7-8151-fb1c3be4bd4d/e73c55f3e7f5b6a9cfc32a89bf13e44d348bcc4fa7b079f804d61fb1532ddbe5\n",
        innermost: Some("e73c55f3e7f5"),
        ids: 1,
    },
    Case {
        what: "plain Podman's monitor",
        source: COLLECTOR,
        file: "0::/machine.slice/libpod-conmon-b6ce30d02945df4bbf8e8b7193b2c56ebb3cd10227dd7e59d7f7cdc2cfa2a307.scope\n",
        innermost: None,
        ids: 0,
    },
    Case {
        what: "a process of the node",
        source: "github.com/k3s-io/k3s and every systemd machine",
        file: "12:rdma:/\n2:cpu:/user.slice\n1:name=systemd:/user.slice/user-963461.slice/session-11909.scope\n0::/k3s\n",
        innermost: None,
        ids: 0,
    },
    Case {
        what: "the agent's own, in a private namespace",
        source: "cgroup_namespaces(7)",
        file: "0::/\n",
        innermost: None,
        ids: 0,
    },
];

#[test]
fn every_shape_gives_its_container() {
    for case in CASES {
        let found = in_cgroup_file(case.file);
        let shown = found.first().map(ToString::to_string);
        let first = shown.as_deref().map(|id| &id[..12]);
        assert_eq!(first, case.innermost, "{} ({})", case.what, case.source);
        assert_eq!(found.len(), case.ids, "{} ({}): {found:?}", case.what, case.source);
    }
}

#[test]
fn what_a_pods_status_says_is_the_same_id() {
    let digits = "40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9";
    for id in
        [format!("containerd://{digits}"), format!("cri-o://{digits}"), format!("docker://{digits}"), digits.into()]
    {
        assert_eq!(ContainerId::of_status(&id).unwrap().to_string(), digits);
    }
    for id in ["", "containerd://", "containerd://40c0", &format!("docker://{}", digits.to_uppercase())] {
        assert_eq!(ContainerId::of_status(id), None, "{id}");
    }
}

#[test]
fn hostile_files_give_a_bounded_answer() {
    let digits = "40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9";
    let many = (0..100).map(|i| format!("0::/{i:064x}/{digits}")).collect::<Vec<_>>().join("\n");
    assert_eq!(in_cgroup_file(&many).len(), MOST_IDS);
    for file in ["", ":", "::", "0::", "\0\n:::::", "0::/-.scope", "0::/conmon-", &"/".repeat(10_000)] {
        assert!(in_cgroup_file(file).is_empty(), "{file}");
    }
}

#[test]
fn sees_this_process() {
    // In a container or not: no panic, and the same answer twice.
    assert_eq!(containers_of(std::process::id()), containers_of(std::process::id()));
    assert!(containers_of(u32::MAX).is_empty());
}
