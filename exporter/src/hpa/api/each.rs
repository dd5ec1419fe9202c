//! Each pod's own value, as HPAs of type Pods take the mean of: of which pods there is one, and of which it would say that nothing is
//! done though nobody knows yet. Pure; knows nothing of who asks.

use std::{slice::from_ref, time::Instant};

use super::{
    directory::{Chosen, DEPARTED, Directory},
    evaluate::{Value, evaluate_lifted, is_too_young, is_young, lift},
    selector::Selector,
    store::Store,
    table::Metric,
    through::unknowable,
};

/// Values of a namespace's pods that `pods` chooses, by name. The controller takes a pod without one for what it is scaled by where it
/// would scale down, and for idle where it would scale up.
pub(crate) fn each(
    store: &Store,
    directory: &Directory,
    metric: &Metric,
    (namespace, pods, figures): (&str, &Selector, &Selector),
    now: Instant,
) -> Vec<(Box<str>, Value)> {
    let mut chosen = directory.choose(namespace, pods);
    chosen.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let gone = directory.departed(namespace, pods, DEPARTED);
    let view = |pod: &Chosen| {
        let view = store.pod(namespace, &pod.name, now).filter(|it| !it.silent)?;
        let view = view.running_for(pod.running, now);
        (!pod.due || !is_too_young(metric, &view, figures)).then_some(view)
    };
    let (pods, views): (Vec<_>, Vec<_>) =
        chosen.into_iter().filter_map(|pod| Some((view(&pod)?, pod))).map(|(view, pod)| (pod, view)).unzip();
    let past: Vec<_> = gone.iter().map(|name| store.past(namespace, name, now)).collect();
    let lift = lift(metric, &views, &past, figures);
    let lacks = lift.lacks && metric.is_additive();
    let values = pods.into_iter().zip(views).filter_map(|(pod, view)| {
        if lacks && is_young(metric, &view, figures) || unknowable(metric, from_ref(&view), figures).is_some() {
            return None;
        }
        let value = evaluate_lifted(metric, view, lift.share, figures)?;
        // One that began just now and was asked nothing yet is not idle.
        let begins = !pod.due && value.value == 0.0;
        (!begins).then_some((pod.name, value))
    });
    values.collect()
}

#[cfg(test)]
mod tests;
