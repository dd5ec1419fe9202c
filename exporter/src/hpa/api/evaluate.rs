//! A metric's value from pods' figures. What several pods or containers have is joined as counts and buckets before anything is
//! computed of it, so that a workload's quantile is the quantile of all its requests. Pure.

use std::time::Duration;

use super::{
    objects::{Path, Takes},
    selector::{Selector, Test},
    store::{Agent, Container, Past, PodView, Series},
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
    evaluate_with(metric, pods, &[], 0.0, selector)
}

/// The same of one pod of several that are answered for each by itself: `lift` is the share of [`lift`].
pub(crate) fn evaluate_lifted(metric: &Metric, pod: PodView<'_>, lift: f64, selector: &Selector) -> Option<Value> {
    evaluate_with(metric, &[pod], &[], lift, selector)
}

/// The value over these pods and over what others counted that are gone.
pub(crate) fn evaluate_whole(
    metric: &Metric,
    pods: &[PodView<'_>],
    past: &[Past<'_>],
    selector: &Selector,
) -> Option<Value> {
    evaluate_with(metric, pods, past, 0.0, selector)
}

fn evaluate_with(
    metric: &Metric,
    pods: &[PodView<'_>],
    past: &[Past<'_>],
    lift: f64,
    selector: &Selector,
) -> Option<Value> {
    let newest = pods.iter().filter_map(|pod| pod.agent.frames.back()).min().copied()?;
    let window_ms = metric.window.as_millis() as u64;
    let mut values = Vec::with_capacity(metric.smoothing.seconds() as usize);
    let mut widest = 0;
    for back in (0..u64::from(metric.smoothing.seconds())).rev() {
        let mut measured = 0;
        let mut call = |call: &Call, pod: Option<usize>| {
            let ask = Ask { call, selector, window_ms, back_ms: back * 1000 };
            // A pod's own value is of what runs there now.
            let (value, window) = match pod {
                Some(pod) => ask.join(&pods[pod..=pod], &[], lift)?,
                None => ask.join(pods, past, lift)?,
            };
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

/// What began to be counted so lately says little yet: a rate over less is mostly chance, and of when samples were taken.
const LITTLE: Duration = Duration::from_secs(3);

/// Whether a pod has a container of which too little is known yet for what the metric is made from: it was heard of just now, and
/// what it did before is not known.
pub(crate) fn is_too_young(metric: &Metric, pod: &PodView<'_>, selector: &Selector) -> bool {
    let window_ms = metric.window.as_millis() as u64;
    metric.expression.calls().into_iter().any(|call| {
        let ask = Ask { call, selector, window_ms, back_ms: 0 };
        let measured = pod.containers.iter().filter(|it| it.has(&call.family) && of_container(selector, it));
        measured.into_iter().any(|container| {
            // A third of a short window: it is chosen for being fast.
            let little = (LITTLE.as_millis() as u64).min(window_ms / 3);
            ask.window(pod.agent, container, pod.life_ms).is_none_or(|window| {
                let whole = window.over > window.to - window.from;
                !whole && window.to - window.from < little
            })
        })
    })
}

/// Whether what was counted of a pod that is gone is a part of what it did in the window: its agent was started anew meanwhile, or it
/// was measured for a part of its life. A sum with it is too small.
pub(crate) fn is_partial(metric: &Metric, past: &Past<'_>, selector: &Selector) -> bool {
    let window_ms = metric.window.as_millis() as u64;
    let little = (LITTLE.as_millis() as u64).min(window_ms / 3);
    let rates = metric.expression.calls().into_iter().filter(|call| call.function == Function::Rate);
    rates.into_iter().any(|call| {
        let measured = past.containers.iter().filter(|(_, it)| of_container(selector, it));
        measured.into_iter().any(|(agent, container)| {
            let (Some(since), Some(to)) = (container.since(&call.family), agent.frames.back().copied()) else {
                return false;
            };
            let start = agent.frame_at(to.saturating_sub(window_ms));
            let begin = start.unwrap_or(to.saturating_sub(window_ms.min(agent.known_ms)));
            let late = !container.began_at(since) && since > begin + little;
            container.is_of_window(begin) && (late || container.is_cut_off())
        })
    })
}

/// How far the rates of pods that are younger than the window are to be taken over their own age, and not over the window: from 0
/// to 1. Over the window the rates of all pods add up to what came in, where old pods' rates still have what new ones serve
/// now. But what pods counted that are gone now is in no pod's rate, so that after a rollout all would be too small: as much as
/// they counted, young pods may show more, and none more than it serves.
pub(crate) fn lift(metric: &Metric, pods: &[PodView<'_>], past: &[Past<'_>], selector: &Selector) -> Lift {
    let none = Lift { share: 0.0, lacks: false };
    let Some(ask) = Ask::rate(metric, selector) else { return none };
    if past.iter().any(|past| is_partial(metric, past, selector)) {
        return Lift { share: 1.0, lacks: true };
    }
    let (mut room, mut shown) = (0.0, 0.0);
    for pod in pods {
        for (container, window) in ask.windows(pod) {
            let growth = ask.growth(container, &window, pod.paths.as_deref());
            let whole = growth / window.over as f64;
            shown += whole;
            if window.over > window.to - window.from {
                room += growth / (window.to - window.from) as f64 - whole;
            }
        }
    }
    let gone: f64 = past.iter().map(|past| ask.past(&past.containers, past.paths.as_deref()) / 1e3).sum();
    let share = if room > 0.0 { (gone / room).clamp(0.0, 1.0) } else { 0.0 };
    Lift { share, lacks: gone - share * room > LACKING * (shown + gone) }
}

/// What [`lift`] makes of young pods' rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lift {
    /// How far they are taken over their own age.
    pub(crate) share: f64,
    /// Young pods serve so little yet that a part of what others counted that are gone is in nobody's rate: with theirs the mean of
    /// all would be too small.
    pub(crate) lacks: bool,
}

/// What may be missing of a sum, a share of it: half of an HPA's default tolerance.
const LACKING: f64 = 0.05;

/// Whether a pod has a container that a rate is made of and that began within the window.
pub(crate) fn is_young(metric: &Metric, pod: &PodView<'_>, selector: &Selector) -> bool {
    let of_window = |ask: Ask<'_>| ask.windows(pod).any(|(_, window)| window.over > window.to - window.from);
    Ask::rate(metric, selector).is_some_and(of_window)
}

/// A call over one window.
struct Ask<'a> {
    call: &'a Call,
    selector: &'a Selector,
    window_ms: u64,
    /// So long before each pod's newest figures it ends.
    back_ms: u64,
}

/// Growth is taken after `from` up to `to`, and a rate is over `over`, all in milliseconds.
struct Span {
    from: u64,
    to: u64,
    over: u64,
}

impl<'a> Ask<'a> {
    /// The first rate that a metric is made of, now.
    fn rate(metric: &'a Metric, selector: &'a Selector) -> Option<Self> {
        let rates = metric.expression.calls().into_iter().filter(|call| call.function == Function::Rate);
        let call = rates.into_iter().next()?;
        Some(Self { call, selector, window_ms: metric.window.as_millis() as u64, back_ms: 0 })
    }
}

impl Ask<'_> {
    /// The call's value, and how long the longest window was.
    fn join(&self, pods: &[PodView<'_>], past: &[Past<'_>], lift: f64) -> Option<(f64, u64)> {
        let call = self.call;
        let mut sum = 0.0;
        let mut buckets: Vec<f64> = Vec::new();
        let mut bounds: Vec<f64> = Vec::new();
        let mut widest = 0;
        let mut measured = false;
        for pod in pods {
            for (container, window) in self.windows(pod) {
                measured = true;
                let (from, to) = (window.from, window.to);
                widest = widest.max(to - from);
                if call.function == Function::Rate {
                    let growth = self.growth(container, &window, pod.paths.as_deref());
                    let (own, whole) = (growth * 1e3 / (to - from) as f64, growth * 1e3 / window.over as f64);
                    sum += whole + lift * (own - whole);
                    continue;
                }
                for series in self.series(container, pod.paths.as_deref()) {
                    match call.function {
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
                        Function::Rate => {}
                    }
                }
            }
            if call.function == Function::Rate && !pod.past.is_empty() {
                sum += self.past(&pod.past, pod.paths.as_deref());
            }
        }
        if call.function == Function::Rate {
            sum += past.iter().map(|past| self.past(&past.containers, past.paths.as_deref())).sum::<f64>();
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
    fn windows<'p>(&self, pod: &'p PodView<'p>) -> impl Iterator<Item = (&'p Container, Span)> {
        let measured = pod.containers.iter().filter(|it| it.has(&self.call.family) && of_container(self.selector, it));
        measured.filter_map(|container| Some((*container, self.window(pod.agent, container, pod.life_ms)?)))
    }

    fn window(&self, agent: &Agent, container: &Container, life_ms: Option<u64>) -> Option<Span> {
        let since = container.since(&self.call.family)?;
        let newest = *agent.frames.back()?;
        let to = agent.frame_at(newest.checked_sub(self.back_ms)?)?;
        let start = agent.frame_at(to.saturating_sub(self.window_ms));
        let begin = start.unwrap_or(to.saturating_sub(self.window_ms));
        // Before a container began it did nothing, and that counts: over its own age it would have too much of a sum of which
        // older containers have their part over the whole window. No further back than anything is known.
        if container.began_at(since) && begin < since && since < to {
            let known = self.window_ms.min(agent.known_ms);
            let over = start.map_or(known, |start| to - start).max(to - since);
            return Some(Span { from: since, to, over });
        }
        let from = start.unwrap_or(*agent.frames.front()?).max(since);
        if from >= to {
            return None;
        }
        // What a container did before it was counted is taken to be as what it does now, but not before its pod ran: others did
        // then what it does now, and are part of the sum.
        let whole = start.map_or(self.window_ms.min(agent.known_ms), |start| to - start).max(to - from);
        let life = life_ms.map_or(whole, |it| it.saturating_sub(self.back_ms)).clamp(to - from, whole);
        Some(Span { from, to, over: (to - from) * whole / life })
    }

    fn series<'c>(&'c self, container: &'c Container, paths: Option<&'c [Path]>) -> impl Iterator<Item = &'c Series> {
        container.series(&self.call.family).filter(move |it| {
            is_meant(self.call, self.selector, container, &it.labels.0) && comes_through(paths, &it.labels.0)
        })
    }

    fn growth(&self, container: &Container, window: &Span, paths: Option<&[Path]>) -> f64 {
        self.series(container, paths).map(|it| it.growth(window.from, window.to)).sum()
    }

    /// What containers that are gone add to a rate.
    fn past(&self, past: &[(&Agent, &Container)], paths: Option<&[Path]>) -> f64 {
        let rate = |(agent, container): &(&Agent, &Container)| {
            if !of_container(self.selector, container) {
                return None;
            }
            let window = self.window(agent, container, None)?;
            let start = agent.frame_at(window.to.saturating_sub(self.window_ms));
            let over = start.map_or(self.window_ms.min(agent.known_ms), |start| window.to - start).max(window.over);
            Some(self.growth(container, &window, paths) * 1e3 / over as f64)
        };
        past.iter().filter_map(rate).sum()
    }
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
    let wishes: Vec<_> = selector.0.iter().filter(|it| it.key == "container").cloned().collect();
    // Asked of each container of each pod.
    wishes.is_empty() || Selector(wishes).matches(|_| Some(container.name()))
}

fn selected(selector: &Selector, container: &Container, labels: &[(Box<str>, Box<str>)]) -> bool {
    selector.matches(|name| match name {
        "container" => Some(container.name()),
        _ => labels.iter().find(|(label, _)| **label == *name).map(|(_, value)| &**value),
    })
}

/// Whether an Ingress sends requests of these labels by these paths.
fn comes_through(paths: Option<&[Path]>, labels: &[(Box<str>, Box<str>)]) -> bool {
    let route = || labels.iter().find(|(name, _)| **name == *"http_route").map_or("", |(_, route)| &**route);
    paths.is_none_or(|paths| paths.iter().any(|path| path.takes(route()) == Takes::Yes))
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
