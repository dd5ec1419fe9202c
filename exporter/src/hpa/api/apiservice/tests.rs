use std::time::Duration;

use super::*;

const CUSTOM: &str = GROUPS[0];
const EXTERNAL: &str = GROUPS[1];

fn us() -> Backend {
    Backend { namespace: "gopulse".into(), service: "api".into(), port: 443, role: "gopulse-metrics-api".into() }
}

fn ca() -> String {
    super::super::certs::make("api", "gopulse", Duration::from_hours(1)).unwrap().ca.unwrap()
}

fn role(uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".into(),
        kind: "ClusterRole".into(),
        name: "gopulse-metrics-api".into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }
}

/// As the manifests of prometheus-adapter, KEDA and others have theirs.
fn anothers(group: &str, version: &str) -> APIService {
    let adapter = Backend { namespace: "monitoring".into(), service: "adapter".into(), ..us() };
    let mut made = adapter.make(&(group, version, 100), "", None);
    (made.metadata.labels, made.metadata.annotations) = (None, None);
    made
}

fn wanted<'a>(keep: Keep, ca: &'a str, owner: &'a Result<Option<OwnerReference>, String>) -> Wanted<'a> {
    Wanted { keep, ca, owner, may_take: true }
}

fn created(plan: &Plan) -> Vec<String> {
    let created = plan.steps.iter().filter_map(|it| if let Step::Create(it) = it { Some(name_of(it)) } else { None });
    created.collect()
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let deleted =
        plan.steps.iter().filter_map(|it| if let Step::Delete { name, .. } = it { Some(&**name) } else { None });
    deleted.collect()
}

/// All that a group's plan makes where there is nothing.
fn all_made(group: &str, ca: &str) -> Vec<APIService> {
    let owner = Ok(Some(role("1")));
    let plan = us().plan(group, &[], &wanted(Keep::Yes, ca, &owner));
    assert_eq!(plan.standing, Standing::Ours);
    let made = plan.steps.into_iter().map(|it| if let Step::Create(it) = it { *it } else { panic!("{it:?}") });
    made.collect()
}

#[test]
fn a_group_that_is_nobodys_is_taken_whole_and_then_left_as_it_is() {
    let (ca, owner) = (ca(), Ok(Some(role("1"))));
    let made = all_made(CUSTOM, &ca);
    assert_eq!(
        made.iter().map(name_of).collect::<Vec<_>>(),
        ["v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"]
    );
    assert!(made.iter().all(|it| it.metadata.owner_references == Some(vec![role("1")])));
    assert_eq!(all_made(EXTERNAL, &ca).len(), 1);
    let plan = us().plan(CUSTOM, &made, &wanted(Keep::Yes, &ca, &owner));
    assert_eq!(plan, Plan { steps: Vec::new(), standing: Standing::Ours });
}

#[test]
fn no_version_of_a_group_is_made_while_another_has_any() {
    let (ca, owner) = (ca(), Ok(None));
    // Those that are known here, and those of times past and to come.
    for version in ["v1beta1", "v1beta2", "v1alpha1", "v1"] {
        let plan = us().plan(CUSTOM, &[anothers(CUSTOM, version)], &wanted(Keep::Yes, &ca, &owner));
        assert!(plan.steps.is_empty(), "{version}: {:?}", plan.steps);
        let (apiservice, owner) = (format!("{version}.{CUSTOM}"), "Service monitoring/adapter".to_owned());
        assert_eq!(plan.standing, Standing::Anothers { apiservice, owner });
    }
    // One that the API server serves itself, as of a custom resource.
    let mut local = anothers(CUSTOM, "v1");
    local.spec.as_mut().unwrap().service = None;
    let plan = us().plan(CUSTOM, &[local], &wanted(Keep::Yes, &ca, &owner));
    assert!(plan.steps.is_empty() && matches!(plan.standing, Standing::Anothers { .. }));
    // Another group is another matter.
    assert_eq!(created(&us().plan(EXTERNAL, &[anothers(CUSTOM, "v1beta1")], &wanted(Keep::Yes, &ca, &owner))).len(), 1);
}

#[test]
fn a_group_that_another_takes_is_given_up_but_for_what_others_made() {
    let (ca, owner) = (ca(), Ok(Some(role("1"))));
    let mut all = all_made(CUSTOM, &ca);
    let given = us().make(&(CUSTOM, "v1beta2", 200), &ca, None);
    all[0] = anothers(CUSTOM, "v1beta1");
    let plan = us().plan(CUSTOM, &all, &wanted(Keep::Yes, &ca, &owner));
    assert_eq!((deleted(&plan), created(&plan).len()), (vec!["v1beta2.custom.metrics.k8s.io"], 0));
    assert!(matches!(plan.standing, Standing::Anothers { .. }));
    // By the manifests: kept right, and told.
    all[1] = given;
    (all[1].metadata.labels, all[1].metadata.annotations) = (None, None);
    let plan = us().plan(CUSTOM, &all, &wanted(Keep::Yes, "", &owner));
    assert!(matches!(&plan.steps[..], [Step::Patch { name, .. }] if name == "v1beta2.custom.metrics.k8s.io"));
    assert!(matches!(plan.standing, Standing::Divided { .. }));
}

#[test]
fn by_force_what_is_free_is_made_and_what_is_anothers_is_left() {
    let (ca, owner) = (ca(), Ok(None));
    let other = [anothers(CUSTOM, "v1beta1")];
    let plan = us().plan(CUSTOM, &other, &wanted(Keep::Force, &ca, &owner));
    assert_eq!((created(&plan), plan.steps.len()), (vec!["v1beta2.custom.metrics.k8s.io".to_owned()], 1));
    assert!(matches!(plan.standing, Standing::Divided { .. }));
    let plan = us().plan(CUSTOM, &other, &wanted(Keep::No, &ca, &owner));
    assert_eq!(plan, Plan { steps: Vec::new(), standing: Standing::NotKept });
}

#[test]
fn a_group_is_not_taken_in_the_moment_in_which_it_is_nobodys_nor_without_an_owner() {
    let (ca, owner) = (ca(), Ok(None));
    let soon = Wanted { may_take: false, ..wanted(Keep::Yes, &ca, &owner) };
    assert_eq!(us().plan(CUSTOM, &[], &soon), Plan { steps: Vec::new(), standing: Standing::Waiting });
    // A version that somebody has deleted of one's own group is made again.
    let own = &all_made(CUSTOM, &ca)[..1];
    assert_eq!(created(&us().plan(CUSTOM, own, &soon)), ["v1beta2.custom.metrics.k8s.io"]);
    let unowned = Err("why".to_owned());
    let plan = us().plan(CUSTOM, &[], &wanted(Keep::Yes, &ca, &unowned));
    assert_eq!(plan, Plan { steps: Vec::new(), standing: Standing::Unable("why".into()) });
}

#[test]
fn those_that_name_this_server_are_kept_right() {
    let (old, new) = (ca(), ca());
    let made = all_made(CUSTOM, &old).remove(0);
    let owner = Ok(Some(role("1")));
    let patch = |apiservice: &APIService, ca: &str, owner: &Result<Option<OwnerReference>, String>| {
        us().mend(apiservice, ca, owner)
            .map(|it| if let Step::Patch { patch, .. } = it { patch } else { panic!("{it:?}") })
    };
    assert_eq!(patch(&made, &old, &owner), None);
    assert_eq!(patch(&made, &format!("\n{old}{old}"), &owner), None, "the same certificates");
    let both = patch(&made, &format!("{new}{old}"), &owner).unwrap();
    assert!(both["spec"]["caBundle"].is_string() && both["metadata"].get("ownerReferences").is_none());
    // The role was made anew.
    let owned = patch(&made, &old, &Ok(Some(role("2")))).unwrap();
    assert_eq!(owned["metadata"]["ownerReferences"], json!([role("2")]));
    let mut insecure = made.clone();
    insecure.spec.as_mut().unwrap().insecure_skip_tls_verify = Some(true);
    assert!(patch(&insecure, &old, &owner).is_some());
    // One of a version before: without annotation and owner.
    let mut before = made.clone();
    (before.metadata.annotations, before.metadata.owner_references) = (None, None);
    let patched = patch(&before, &old, &owner).unwrap();
    assert_eq!(patched["metadata"]["annotations"][MADE_FOR], "gopulse/api");
    // One of Helm's, or of the manifests, gets a caBundle and nothing else.
    let mut given = made;
    given.metadata.labels = Some([(MANAGED_BY.0.to_owned(), "Helm".to_owned())].into());
    assert_eq!(patch(&given, &old, &Ok(Some(role("2")))), None);
    let mut given = before;
    given.metadata.labels = None;
    assert_eq!(patch(&given, &old, &owner), None);
}

#[test]
fn one_that_was_given_to_another_does_not_go_with_an_uninstall() {
    let (ca, owner) = (ca(), Ok(Some(role("1"))));
    let mut taken = all_made(CUSTOM, &ca).remove(0);
    taken.spec = anothers(CUSTOM, "v1beta1").spec;
    let theirs = OwnerReference { kind: "Deployment".into(), uid: "9".into(), ..role("9") };
    taken.metadata.owner_references.as_mut().unwrap().push(theirs.clone());
    let plan = us().plan(CUSTOM, &[taken.clone()], &wanted(Keep::Yes, &ca, &owner));
    let [Step::Patch { patch, .. }] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!(patch["metadata"]["ownerReferences"], json!([theirs]));
    assert!(patch["metadata"]["annotations"][MADE_FOR].is_null() && patch.get("spec").is_none());
    // That of another gopulse is none of ours.
    taken.metadata.annotations = Some([(MADE_FOR.to_owned(), "elsewhere/api".to_owned())].into());
    assert!(us().plan(CUSTOM, &[taken.clone()], &wanted(Keep::Yes, &ca, &owner)).steps.is_empty());
    assert!(us().withdrawal(CUSTOM, &[taken]).is_empty());
    assert_eq!(us().withdrawal(CUSTOM, &all_made(CUSTOM, &ca)).len(), 2);
}
