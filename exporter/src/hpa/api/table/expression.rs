//! The expressions of the metric table: `rate(f)`, `quantile(0.99, f) * 1000`, `avg(f{reason="select"}) / pods()`. Parsed
//! once; what is wrong is said with its column. Knows nothing of where figures come from, nor of which families there are.

mod matcher;
mod parser;

use std::fmt;

use thiserror::Error;

pub(crate) use self::matcher::{Matcher, Pattern, Test};

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// A constant.
    Number(f64),
    /// A figure over the window.
    Call(Call),
    /// How many pods are asked about that have figures.
    Pods,
    /// One value of those that each pod has by itself.
    OverPods(OverPods, Box<Expression>),
    /// Two, joined.
    Join(Box<Expression>, Operator, Box<Expression>),
}

/// What is made of the pods' own values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverPods {
    /// The hottest pod's.
    Max,
    /// Their mean.
    Mean,
    /// The least.
    Min,
}

/// How two are joined. A division by 0 is 0: nothing done is no share of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A function of a family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Which.
    pub(crate) function: Function,
    /// The family's name, as at `/metrics`.
    pub(crate) family: String,
    /// Which of its series.
    pub(crate) matchers: Vec<Matcher>,
}

/// What is made of the series that match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    /// Growth a second of a counter or of a histogram's count, summed.
    Rate,
    /// A quantile of the merged buckets' growth.
    Quantile(f64),
    /// The share, from 0 to 1, of what was counted that was at most a bound of the buckets; 1 of nothing.
    Below(f64),
    /// The share that was more; 0 of nothing.
    Above(f64),
    /// A gauge's last value, summed.
    Last,
    /// A gauge's mean over the window, summed.
    Avg,
    /// A gauge's greatest value in the window, summed.
    Max,
}

/// What is wrong, and where.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("column {column}: {message}")]
pub(crate) struct ExpressionError {
    column: usize,
    message: String,
}

impl Expression {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, ExpressionError> {
        parser::parse(text)
    }

    /// Every call in it.
    pub(crate) fn calls(&self) -> Vec<&Call> {
        match self {
            Self::Number(_) | Self::Pods => Vec::new(),
            Self::Call(call) => vec![call],
            Self::OverPods(_, each) => each.calls(),
            Self::Join(left, _, right) => left.calls().into_iter().chain(right.calls()).collect(),
        }
    }

    /// Its calls, to be changed.
    pub(crate) fn calls_mut(&mut self) -> Vec<&mut Call> {
        match self {
            Self::Number(_) | Self::Pods => Vec::new(),
            Self::Call(call) => vec![call],
            Self::OverPods(_, each) => each.calls_mut(),
            Self::Join(left, _, right) => left.calls_mut().into_iter().chain(right.calls_mut()).collect(),
        }
    }

    /// Whether it says something of pods: a number alone does not.
    pub(crate) fn is_measured(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Call(_) | Self::Pods | Self::OverPods(..) => true,
            Self::Join(left, _, right) => left.is_measured() || right.is_measured(),
        }
    }

    /// Its value, of so many pods, where `value` gives those of its calls, of all pods or of one by its number; none if one of
    /// them has none. Of the pods' own values those that there are count.
    pub(crate) fn evaluate(
        &self,
        pods: usize,
        value: &mut impl FnMut(&Call, Option<usize>) -> Option<f64>,
    ) -> Option<f64> {
        self.evaluate_of(None, pods, value)
    }

    fn evaluate_of<V: FnMut(&Call, Option<usize>) -> Option<f64>>(
        &self,
        pod: Option<usize>,
        pods: usize,
        value: &mut V,
    ) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Call(call) => value(call, pod),
            Self::Pods => Some(if pod.is_some() { 1.0 } else { pods as f64 }),
            Self::OverPods(over, each) => {
                let each: Vec<f64> = (0..pods).filter_map(|pod| each.evaluate_of(Some(pod), pods, value)).collect();
                let count = each.len() as f64;
                let values = each.into_iter();
                match over {
                    OverPods::Max => values.reduce(f64::max),
                    OverPods::Min => values.reduce(f64::min),
                    OverPods::Mean => values.reduce(|sum, it| sum + it).map(|sum| sum / count),
                }
            }
            Self::Join(left, operator, right) => {
                let (left, right) = (left.evaluate_of(pod, pods, value)?, right.evaluate_of(pod, pods, value)?);
                Some(match operator {
                    Operator::Add => left + right,
                    Operator::Subtract => left - right,
                    Operator::Multiply => left * right,
                    Operator::Divide if right == 0.0 => 0.0,
                    Operator::Divide => left / right,
                })
            }
        }
    }

    /// Whether the values of parts add up to that of the whole, but for a constant: counts and rates do, quantiles and shares do not.
    pub(crate) fn is_additive(&self) -> bool {
        match self {
            Self::Number(_) | Self::OverPods(..) => false,
            Self::Pods => true,
            Self::Call(call) => {
                !matches!(call.function, Function::Quantile(_) | Function::Below(_) | Function::Above(_))
            }
            Self::Join(left, Operator::Add | Operator::Subtract, right) => {
                let fits = |it: &Self| it.is_additive() || it.constant().is_some();
                fits(left) && fits(right) && (left.is_additive() || right.is_additive())
            }
            Self::Join(left, Operator::Multiply, right) => left.is_additive() != right.is_additive(),
            Self::Join(left, Operator::Divide, right) => left.is_additive() && right.constant().is_some(),
        }
    }

    /// Whether more pods never make it less, so that its value of some of them is at most that of all.
    pub(crate) fn only_grows(&self) -> bool {
        let times = |factor: &Self, other: &Self| factor.constant().is_some_and(|it| it >= 0.0) && other.only_grows();
        match self {
            Self::Number(_) | Self::Pods => true,
            Self::OverPods(over, each) => *over == OverPods::Max && each.constant().is_none(),
            Self::Call(_) => self.is_additive(),
            Self::Join(left, Operator::Add, right) => left.only_grows() && right.only_grows(),
            Self::Join(left, Operator::Subtract, right) => left.only_grows() && right.constant().is_some(),
            Self::Join(left, Operator::Multiply, right) => times(left, right) || times(right, left),
            Self::Join(left, Operator::Divide, right) => times(right, left),
        }
    }

    /// What it is whatever is measured.
    fn constant(&self) -> Option<f64> {
        if self.is_measured() { None } else { self.evaluate(0, &mut |_, _| None) }
    }

    /// What in it says nothing of pods where something was meant to.
    pub(super) fn is_idle(&self) -> Option<&'static str> {
        match self {
            Self::Number(_) | Self::Pods | Self::Call(_) => None,
            Self::OverPods(_, each) if !each.is_measured() => {
                Some("pods_max, pods_mean and pods_min are of figures, as of rate(...)")
            }
            Self::OverPods(_, each) => each.is_idle(),
            Self::Join(_, Operator::Divide, right) if right.constant() == Some(0.0) => {
                Some("a division by 0 is always 0")
            }
            Self::Join(left, _, right) => left.is_idle().or_else(|| right.is_idle()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.function {
            Function::Rate => "rate",
            Function::Quantile(_) => "quantile",
            Function::Below(_) => "below",
            Function::Above(_) => "above",
            Function::Last => "last",
            Function::Avg => "avg",
            Function::Max => "max",
        };
        write!(formatter, "{name}({})", self.family)
    }
}

#[cfg(test)]
mod tests;
