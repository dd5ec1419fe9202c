use kube::core::ObjectMeta;

use super::*;

/// A pod of namespace `shop` by its name, with a label `app` and what it says of being measured.
pub(crate) fn pod_that_says(name: &str, app: &str, enabled: Option<&str>) -> PartialObjectMeta<Pod> {
    let mut pod = pod(name, app);
    pod.metadata.annotations = enabled.map(|value| [(ENABLED.to_owned(), value.to_owned())].into());
    pod
}

/// All of these are there, and run since long; of those that are told after, since now.
pub(crate) fn directory(pods: &[PartialObjectMeta<Pod>]) -> Directory {
    let directory = Directory::default();
    directory.take(Event::Init);
    directory.take_running(Event::Init);
    for pod in pods {
        directory.take(Event::InitApply(pod.clone()));
        directory.take_running(Event::InitApply(pod.clone()));
    }
    directory.take(Event::InitDone);
    directory.take_running(Event::InitDone);
    directory
}

#[test]
fn figures_are_due_of_pods_that_run_for_a_while() {
    let directory = directory(&[pod_that_says("old", "x", Some("true"))]);
    let new = pod_that_says("new", "x", Some(" false "));
    directory.take(Event::Apply(new.clone()));
    let chosen = |name: &str| {
        let all = directory.choose("shop", &Selector::default());
        all.into_iter().find(|it| *it.name == *name).map(|it| (it.enabled, it.due))
    };
    assert_eq!((chosen("old"), chosen("new")), (Some((Some(true), true)), Some((Some(false), false))));
    directory.take_running(Event::Apply(new.clone()));
    assert_eq!(chosen("new"), Some((Some(false), false)), "it has just begun");
    // A list that is read anew makes nothing older or younger.
    directory.take_running(Event::Init);
    directory.take_running(Event::InitApply(new.clone()));
    directory.take_running(Event::InitDone);
    assert_eq!((chosen("old"), chosen("new")), (Some((Some(true), false)), Some((Some(false), false))));
    // One that was made just now cannot run since long, when it is first seen in a list.
    let mut fresh = pod_that_says("fresh", "x", None);
    fresh.metadata.creation_timestamp = Some(k8s_openapi::jiff::Timestamp::now().into());
    let listed = super::tests::directory(&[fresh]);
    assert!(!listed.choose("shop", &Selector::default())[0].due);
    let life_is_known = |name: &str| {
        let all = directory.choose("shop", &Selector::default());
        all.into_iter().find(|it| *it.name == *name).is_some_and(|it| it.running.is_some())
    };
    assert!(life_is_known("new") && !life_is_known("old"), "one was seen to begin");
    directory.take(Event::Delete(new));
    assert_eq!((chosen("new"), directory.departed("shop", &Selector::default(), DEPARTED).len()), (None, 1));
    assert!(directory.departed("shop", &Selector::parse("app=y").unwrap(), DEPARTED).is_empty());
}

fn pod(name: &str, app: &str) -> PartialObjectMeta<Pod> {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("shop".into()),
        labels: Some([("app".to_owned(), app.to_owned())].into()),
        ..ObjectMeta::default()
    };
    PartialObjectMeta { types: None, metadata, _phantom: std::marker::PhantomData }
}

#[test]
fn pods_that_went_while_nobody_watched_are_remembered_as_others_are() {
    let directory = directory(&["a", "b", "c"].map(|name| pod(name, "x")));
    let going = |name: &str| {
        let mut pod = pod(name, "x");
        pod.metadata.deletion_timestamp = Some(k8s_openapi::jiff::Timestamp::now().into());
        pod
    };
    let departed = || {
        let names = directory.departed("shop", &Selector::parse("app=x").unwrap(), DEPARTED);
        names.iter().map(|it| &**it).collect::<Vec<_>>().join(" ")
    };
    // The API server was away, and a is gone; b goes, and d too, which came meanwhile.
    directory.take(Event::Init);
    for pod in [going("b"), pod("c", "x"), going("d")] {
        directory.take(Event::InitApply(pod));
    }
    directory.take(Event::InitDone);
    assert_eq!((departed(), directory.len()), ("a b d".to_owned(), 1));
    for event in [Event::Apply(going("d")), Event::Delete(going("d")), Event::Apply(going("c"))] {
        directory.take(event);
    }
    assert_eq!((departed(), directory.len()), ("a b c d".to_owned(), 0));
}

#[test]
fn what_a_list_does_not_have_is_gone_and_what_is_there_stands_until_it_is_complete() {
    let directory = Directory::default();
    let names = |selector: &str| {
        let mut names = directory.select("shop", &Selector::parse(selector).unwrap());
        names.sort();
        names.join(" ")
    };
    for event in [Event::Init, Event::InitApply(pod("a", "x")), Event::InitApply(pod("b", "y")), Event::InitDone] {
        directory.take(event);
    }
    assert!(!directory.is_synced(), "which of them run is not known");
    directory.take_running(Event::Init);
    directory.take_running(Event::InitDone);
    assert!(directory.is_synced());
    directory.take(Event::Apply(pod("c", "x")));
    assert_eq!((names(""), names("app=x")), ("a b c".to_owned(), "a c".to_owned()));
    directory.take(Event::Init);
    directory.take(Event::InitApply(pod("b", "x")));
    assert_eq!(names(""), "a b c");
    directory.take(Event::InitDone);
    assert_eq!((names(""), names("app=x")), ("b".to_owned(), "b".to_owned()));
    directory.take(Event::Delete(pod("b", "x")));
    assert_eq!(directory.len(), 0);
    assert!(directory.lock().pods.is_empty());
}
