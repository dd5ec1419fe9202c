//! To whom a process belongs, so that what one owner does can be counted against it: its pod, or what else its cgroup says that it
//! cannot change itself. Knows nothing of what is counted.

use std::{fs, io::Read as _, os::unix::fs::MetadataExt as _};

use super::ContainerId;

/// As much of a cgroup file as [`super::containers_of`] reads.
const MOST: u64 = 16 * 1024;
/// Outside of containers and services, so much of a path: who has a cgroup of its own can make others below it.
const SEGMENTS: usize = 2;

/// The owner of a process: a text that is the same for all of an owner's, and is not shown to anybody.
pub(crate) fn owner(pid: u32) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/cgroup")).and_then(|file| file.take(MOST).read_to_end(&mut text));
    let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |it| it.uid());
    owner_of(&if read.is_ok() { String::from_utf8_lossy(&text) } else { "".into() }, uid)
}

/// A line is `ID:CONTROLLERS:PATH` (cgroups(7)). Version 2 has one line, version 1 one for each hierarchy: of these the one that
/// says most.
fn owner_of(cgroups: &str, uid: u32) -> String {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    if let Some(pod) = paths().find_map(pod_in) {
        return pod.to_owned();
    }
    let path = paths().max_by_key(|path| path.len()).unwrap_or("");
    let segments = || path.split('/').filter(|it| !it.is_empty());
    let own = segments().position(|it| is_users(it) || it.ends_with(".service") || is_container(it));
    let kept: Vec<&str> = segments().take(own.map_or(SEGMENTS, |at| at + 1)).collect();
    // A container's or a service's processes are one owner's, whatever users they are.
    let user = if own.is_some() { String::new() } else { format!(":{uid}") };
    format!("/{}{user}", kept.join("/"))
}

/// The outermost pod of a path; none below what is a user's own, who may name cgroups as it likes.
fn pod_in(path: &str) -> Option<&str> {
    path.split('/').take_while(|it| !is_users(it)).find(|it| is_pod(it))
}

/// `podUID` (cgroupfs driver), or `kubepods-CLASS-podUID.slice` with `_` for `-` (systemd driver); kubelet: pod_container_manager_linux.go.
fn is_pod(segment: &str) -> bool {
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    let Some((_, uid)) = name.rsplit_once("pod") else { return false };
    let mut digits = uid.chars().filter(|it| !matches!(it, '-' | '_'));
    digits.by_ref().take(32).filter(char::is_ascii_hexdigit).count() == 32 && digits.next().is_none()
}

/// `user-1000.slice` of systemd.
fn is_users(segment: &str) -> bool {
    let id = segment.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
    id.is_some_and(|id| id.parse::<u32>().is_ok())
}

fn is_container(segment: &str) -> bool {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    ContainerId::parse(name.rsplit_once('-').map_or(name, |(_, digits)| digits)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_cannot_change_is_its_owner() {
        let uid = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f";
        let id = "ab".repeat(32);
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        for (cgroups, owner) in [
            // Whatever container and whatever is made below it.
            (format!("0::/kubepods/burstable/pod{uid}/{id}"), format!("pod{uid}")),
            (format!("0::/kubepods/burstable/pod{uid}/{id}/mine/pod{}", uid.replace('0', "1")), format!("pod{uid}")),
            (format!("0::/kubepods.slice/{slice}/cri-containerd-{id}.scope/x"), slice.clone()),
            (
                format!("9:name=systemd:/\n4:memory:/kubepods/pod{}/{id}\n0::/", "f".repeat(32)),
                format!("pod{}", "f".repeat(32)),
            ),
            // A node in a container.
            (format!("0::/docker/{id}/kubelet/kubepods/pod{uid}/{id}"), format!("pod{uid}")),
            (format!("0::/docker/{id}/below"), format!("/docker/{id}")),
            (format!("0::/system.slice/docker-{id}.scope/a/b"), format!("/system.slice/docker-{id}.scope")),
            ("0::/system.slice/shop.service/a".into(), "/system.slice/shop.service".into()),
            // A user makes cgroups of any name.
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/pod{uid}/x.service"),
                "/user.slice/user-1000.slice".into(),
            ),
            ("0::/a/b/c/d".into(), "/a/b:7".into()),
            ("9:pids:/\n4:memory:/a/b/c\n0::/".into(), "/a/b:7".into()),
            ("0::/".into(), "/:7".into()),
            (String::new(), "/:7".into()),
        ] {
            assert_eq!(owner_of(&cgroups, 7), owner, "{cgroups}");
        }
        assert!(!is_pod("pod") && !is_pod("podman") && !is_pod(&format!("pod{}0", "f".repeat(32))));
        assert_eq!(owner(std::process::id()), owner(std::process::id()));
    }
}
