//! A metric's value from pods' figures. What several pods or containers have is joined as counts and buckets before anything is
//! computed of it, so that a workload's quantile is the quantile of all its requests. Pure.

use super::{
    objects::Takes,
    selector::{Selector, Test},
    store::{Container, PodView},
    table::{
        Metric,
        expression::{Call, Function},
    },
};

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "a value's value")]
pub(crate) struct Value {
    /// As the expression says.
    pub(crate) value: f64,
    /// When its newest figures were read, milliseconds since 1970; of several pods the oldest of these.
    pub(crate) at_ms: u64,
    /// Over how many seconds it was measured in truth.
    pub(crate) window_seconds: u64,
}

/// The value over these pods; none where not all that it takes is measured of one of them, or too little is known yet. `selector`
/// chooses series by their labels and by `container`.
pub(crate) fn evaluate(metric: &Metric, pods: &[PodView<'_>], selector: &Selector) -> Option<Value> {
    let newest = pods.iter().filter_map(|pod| pod.agent.frames.back()).min().copied()?;
    let mut values = Vec::with_capacity(metric.smoothing.seconds() as usize);
    let mut widest = 0;
    for back in (0..u64::from(metric.smoothing.seconds())).rev() {
        let mut measured = 0;
        let mut call = |call: &Call, pod: Option<usize>| {
            let pods = pod.map_or(pods, |pod| &pods[pod..=pod]);
            let (value, window) = join(call, pods, selector, metric.window.as_millis() as u64, back * 1000)?;
            measured = measured.max(window);
            Some(value)
        };
        if let Some(value) = metric.expression.evaluate(pods.len(), &mut call) {
            values.push(value);
            widest = widest.max(measured);
        }
    }
    let value = metric.smoothing.apply(&values)?;
    Some(Value { value, at_ms: newest, window_seconds: (widest / 1000).max(1) })
}

/// A call's value over the window that ends `back_ms` before each pod's newest figures, and how long that window was.
fn join(call: &Call, pods: &[PodView<'_>], selector: &Selector, window_ms: u64, back_ms: u64) -> Option<(f64, u64)> {
    let mut sum = 0.0;
    let mut buckets: Vec<f64> = Vec::new();
    let mut bounds: Vec<f64> = Vec::new();
    let mut widest = 0;
    let mut measured = false;
    for (pod, container, from, to) in windows(call, pods, selector, window_ms, back_ms) {
        measured = true;
        widest = widest.max(to - from);
        let series = container.series(&call.family);
        let series =
            series.filter(|it| is_meant(call, selector, container, &it.labels.0) && comes_through(pod, &it.labels.0));
        for series in series {
            match call.function {
                Function::Rate => sum += series.growth(from, to) * 1e3 / (to - from) as f64,
                Function::Quantile(_) | Function::Below(_) | Function::Above(_) => {
                    if bounds.is_empty() {
                        bounds = series.family.bounds.to_vec();
                        buckets = vec![0.0; bounds.len() + 1];
                    }
                    // Agents of other versions may have other bounds: those cannot be joined.
                    if *bounds == *series.family.bounds {
                        series.add_buckets(from, to, &mut buckets);
                    }
                }
                Function::Last => sum += series.gauge(from, to).map_or(0.0, |it| it.last),
                Function::Avg => sum += series.gauge(from, to).map_or(0.0, |it| it.mean),
                Function::Max => sum += series.gauge(from, to).map_or(0.0, |it| it.most),
            }
        }
    }
    let value = match call.function {
        Function::Quantile(quantile) => self::quantile(quantile, &bounds, &buckets),
        Function::Below(bound) => below(bound, &bounds, &buckets)?,
        Function::Above(bound) => 1.0 - below(bound, &bounds, &buckets)?,
        _ => sum,
    };
    measured.then_some((value, widest))
}

/// Containers that the family is measured of, with their windows.
fn windows<'p>(
    call: &'p Call,
    pods: &'p [PodView<'p>],
    selector: &'p Selector,
    window_ms: u64,
    back_ms: u64,
) -> impl Iterator<Item = (&'p PodView<'p>, &'p Container, u64, u64)> {
    pods.iter().flat_map(move |pod| {
        pod.containers.iter().filter(|it| it.has(&call.family) && of_container(selector, it)).filter_map(
            move |container| {
                let newest = *pod.agent.frames.back()?;
                let to = pod.agent.frame_at(newest.checked_sub(back_ms)?)?;
                let oldest = *pod.agent.frames.front()?;
                let start = pod.agent.frame_at(to.saturating_sub(window_ms)).unwrap_or(oldest);
                let from = start.max(container.since());
                (from < to).then_some((pod, *container, from, to))
            },
        )
    })
}

/// Whether a series of these labels is among what a call is made from.
pub(super) fn is_meant(
    call: &Call,
    selector: &Selector,
    container: &Container,
    labels: &[(Box<str>, Box<str>)],
) -> bool {
    // Who asks for all but some does not ask for probes.
    let chosen = |label: &str| selector.0.iter().any(|it| it.key == label && matches!(it.test, Test::In(_)));
    call.matchers.iter().all(|matcher| matcher.matches(labels, chosen)) && selected(selector, container, labels)
}

/// Whether the selector's wishes about `container` hold.
pub(super) fn of_container(selector: &Selector, container: &Container) -> bool {
    let wishes = selector.0.iter().filter(|it| it.key == "container").cloned().collect();
    Selector(wishes).matches(|_| Some(container.name()))
}

fn selected(selector: &Selector, container: &Container, labels: &[(Box<str>, Box<str>)]) -> bool {
    selector.matches(|name| match name {
        "container" => Some(container.name()),
        _ => labels.iter().find(|(label, _)| **label == *name).map(|(_, value)| &**value),
    })
}

/// Whether an Ingress sends requests of these labels to this pod.
fn comes_through(pod: &PodView<'_>, labels: &[(Box<str>, Box<str>)]) -> bool {
    let route = || labels.iter().find(|(name, _)| **name == *"http_route").map_or("", |(_, route)| &**route);
    pod.paths.as_ref().is_none_or(|paths| paths.iter().any(|path| path.takes(route()) == Takes::Yes))
}

/// As Prometheus' `histogram_quantile` has it: linear within a bucket, the first from 0; in the last the highest bound. Nothing
/// counted is 0.
fn quantile(quantile: f64, bounds: &[f64], buckets: &[f64]) -> f64 {
    let total: f64 = buckets.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    let rank = quantile * total;
    let mut below = 0.0;
    for (index, count) in buckets.iter().enumerate() {
        if below + count >= rank && *count > 0.0 {
            let Some(upper) = bounds.get(index) else { return bounds.last().copied().unwrap_or(0.0) };
            let lower = index.checked_sub(1).map_or(0.0, |before| bounds[before]);
            return lower + (upper - lower) * ((rank - below) / count);
        }
        below += count;
    }
    bounds.last().copied().unwrap_or(0.0)
}

/// The share of what was counted that was at most this; all of nothing. None at what is no bound of the buckets.
fn below(bound: f64, bounds: &[f64], buckets: &[f64]) -> Option<f64> {
    let total: f64 = buckets.iter().sum();
    if total <= 0.0 {
        return Some(1.0);
    }
    let index = bounds.iter().position(|it| it.to_bits() == bound.to_bits())?;
    Some(buckets[..=index].iter().sum::<f64>() / total)
}

#[cfg(test)]
mod tests;
