//! The expressions of the metric table: `rate(f)`, `quantile(0.99, f) * 1000`, `avg(f{reason="select"}) / pods()`. Parsed
//! once; what is wrong is said with its column. Knows nothing of where figures come from, nor of which families there are.

mod matcher;

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
        let mut parser = Parser { text, at: 0, of_each: false };
        let expression = parser.sum()?;
        parser.space();
        if parser.at < text.len() {
            Err(parser.error("one of + - * / or the end was expected"))
        } else {
            Ok(expression)
        }
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

    /// Whether the values of parts add up to that of the whole: counts and rates do, quantiles and shares do not.
    pub(crate) fn is_additive(&self) -> bool {
        match self {
            Self::Number(_) | Self::OverPods(..) => false,
            Self::Pods => true,
            Self::Call(call) => {
                !matches!(call.function, Function::Quantile(_) | Function::Below(_) | Function::Above(_))
            }
            Self::Join(left, Operator::Add | Operator::Subtract, right) => left.is_additive() && right.is_additive(),
            Self::Join(left, Operator::Multiply, right) => left.is_additive() != right.is_additive(),
            Self::Join(left, Operator::Divide, right) => left.is_additive() && matches!(**right, Self::Number(_)),
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

/// For whoever writes another.
const FUNCTIONS: &str = "rate(FAMILY), quantile(0.99, FAMILY), below(0.25, FAMILY), above(0.25, FAMILY), of gauges last, avg or \
                         max, pods(), or pods_max, pods_mean or pods_min of an expression";

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// Whether it is within a value of each pod.
    of_each: bool,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Expression, ExpressionError> {
        self.joined(Self::product, &[('+', Operator::Add), ('-', Operator::Subtract)])
    }

    fn product(&mut self) -> Result<Expression, ExpressionError> {
        self.joined(Self::factor, &[('*', Operator::Multiply), ('/', Operator::Divide)])
    }

    fn joined(
        &mut self,
        part: fn(&mut Self) -> Result<Expression, ExpressionError>,
        operators: &[(char, Operator)],
    ) -> Result<Expression, ExpressionError> {
        let mut left = part(self)?;
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.take(*sign)) {
            left = Expression::Join(Box::new(left), *operator, Box::new(part(self)?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expression, ExpressionError> {
        self.space();
        let start = self.at;
        if self.rest().starts_with(|it: char| it.is_ascii_digit() || it == '.') {
            return self.number().map(Expression::Number);
        }
        if self.take('(') {
            // Depth is bounded by the text's length, which the configuration bounds.
            let inner = self.sum()?;
            self.expect(')')?;
            return Ok(inner);
        }
        let name = self.word().to_owned();
        let over = match name.as_str() {
            "pods_max" => Some(OverPods::Max),
            "pods_mean" => Some(OverPods::Mean),
            "pods_min" => Some(OverPods::Min),
            _ => None,
        };
        if let Some(over) = over {
            if self.of_each {
                self.at = start;
                return Err(self.error("of a value of each pod there are no values of each pod"));
            }
            self.expect('(')?;
            self.of_each = true;
            let each = self.sum()?;
            self.of_each = false;
            self.expect(')')?;
            return Ok(Expression::OverPods(over, Box::new(each)));
        }
        if name == "pods" {
            self.expect('(')?;
            self.expect(')')?;
            return Ok(Expression::Pods);
        }
        let known = match name.as_str() {
            "rate" => Some(Function::Rate),
            "quantile" => Some(Function::Quantile(0.0)),
            "below" => Some(Function::Below(0.0)),
            "above" => Some(Function::Above(0.0)),
            "last" => Some(Function::Last),
            "avg" => Some(Function::Avg),
            "max" => Some(Function::Max),
            _ => None,
        };
        let Some(mut function) = known else {
            self.at = start;
            return Err(self.error(&format!("{name:?} is no function: use {FUNCTIONS}")));
        };
        self.expect('(')?;
        match &mut function {
            Function::Quantile(quantile) => {
                *quantile = self.argument()?;
                if !(0.0..=1.0).contains(quantile) {
                    return Err(self.error("a quantile is from 0 to 1"));
                }
            }
            Function::Below(bound) | Function::Above(bound) => *bound = self.argument()?,
            Function::Rate | Function::Last | Function::Avg | Function::Max => {}
        }
        self.space();
        let family = self.word().to_owned();
        if family.is_empty() {
            return Err(self.error("the name of a family was expected"));
        }
        let matchers = if self.take('{') { self.matchers()? } else { Vec::new() };
        self.expect(')')?;
        Ok(Expression::Call(Call { function, family, matchers }))
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, ExpressionError> {
        let mut matchers = Vec::new();
        while !self.take('}') {
            self.space();
            let label = self.word().to_owned();
            if label.is_empty() {
                return Err(self.error("a label's name was expected"));
            }
            self.space();
            let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| self.rest().starts_with(sign));
            let Some(sign) = sign else { return Err(self.error("=, !=, =~ or !~ was expected")) };
            self.at += sign.len();
            let value = self.quoted()?;
            let pattern = |text: &str| Pattern::new(text).map_err(|error| self.error(&error));
            let test = match sign {
                "=" => Test::Equal(value),
                "!=" => Test::NotEqual(value),
                "=~" => Test::Matches(pattern(&value)?),
                _ => Test::MatchesNot(pattern(&value)?),
            };
            matchers.push(Matcher { label, test });
            if !self.take(',') && !self.rest().trim_start().starts_with('}') {
                return Err(self.error(", or } was expected"));
            }
        }
        Ok(matchers)
    }

    /// A function's number, and the comma after it.
    fn argument(&mut self) -> Result<f64, ExpressionError> {
        self.space();
        let number = self.number()?;
        self.expect(',')?;
        Ok(number)
    }

    fn quoted(&mut self) -> Result<String, ExpressionError> {
        self.expect('"')?;
        let Some(end) = self.rest().find('"') else { return Err(self.error("the closing \" is missing")) };
        let value = self.rest()[..end].to_owned();
        self.at += end + 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<f64, ExpressionError> {
        let length = self.rest().find(|it: char| !(it.is_ascii_digit() || it == '.')).unwrap_or(self.rest().len());
        let number = self.rest()[..length].parse().map_err(|_| self.error("a number was expected"))?;
        self.at += length;
        Ok(number)
    }

    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let length =
            rest.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_' || it == ':')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn take(&mut self, sign: char) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, sign: char) -> Result<(), ExpressionError> {
        if self.take(sign) { Ok(()) } else { Err(self.error(&format!("{sign} was expected"))) }
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, message: &str) -> ExpressionError {
        ExpressionError { column: self.text[..self.at].chars().count() + 1, message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        Expression::parse(text).unwrap().evaluate(1, &mut |call, _| match call.family.as_str() {
            "two" => Some(2.0),
            "zero" => Some(0.0),
            _ => None,
        })
    }

    #[test]
    fn products_bind_before_sums_and_division_by_nothing_is_nothing() {
        assert_eq!(value("1 + rate(two) * 3 - 4 / 2"), Some(5.0));
        assert_eq!(value("(1 + rate(two)) * 3"), Some(9.0));
        assert_eq!(value("rate(two) / rate(zero)"), Some(0.0));
        assert_eq!(value("rate(two) + rate(unknown)"), None);
    }

    #[test]
    fn calls_carry_their_matchers() {
        let parsed = Expression::parse("quantile(0.99, f{http_route=\"/a b\", code=~\"5..\",x!=\"\"}) * 1000").unwrap();
        let call = parsed.calls()[0].clone();
        assert_eq!(call.function, Function::Quantile(0.99));
        assert_eq!(call.matchers.len(), 3);
        let labels = |route: &str, code: &str, x: &str| {
            [("http_route", route), ("code", code), ("x", x)].map(|(name, value)| (name.into(), value.into()))
        };
        let all = |labels: [(Box<str>, Box<str>); 3]| call.matchers.iter().all(|it| it.matches(&labels, |_| false));
        assert!(all(labels("/a b", "503", "1")));
        assert!(!all(labels("/a b", "403", "1")) && !all(labels("/a", "503", "1")) && !all(labels("/a b", "503", "")));
    }

    #[test]
    fn pods_are_counted_and_looked_at_one_by_one() {
        let of_pods = |text: &str, each: &[Option<f64>]| {
            let value = &mut |_: &Call, pod: Option<usize>| match pod {
                Some(pod) => each[pod],
                None => Some(each.iter().flatten().sum()),
            };
            Expression::parse(text).unwrap().evaluate(each.len(), value)
        };
        let each = [Some(10.0), Some(70.0), None, Some(40.0)];
        assert_eq!(of_pods("pods()", &each), Some(4.0));
        assert_eq!(of_pods("rate(f) / pods()", &each[..2]), Some(40.0));
        assert_eq!(of_pods("pods_max(rate(f)) / 2", &each), Some(35.0));
        assert_eq!(of_pods("pods_mean(rate(f) + pods())", &each), Some(41.0));
        assert_eq!(of_pods("pods_min(rate(f))", &each), Some(10.0));
        assert_eq!(of_pods("pods_max(rate(f))", &[None]), None);
    }

    #[test]
    fn what_adds_up() {
        let additive = |text| Expression::parse(text).unwrap().is_additive();
        assert!(additive("rate(f)") && additive("2 * rate(f) + avg(g) / 2"));
        assert!(!additive("quantile(0.5, f)") && !additive("rate(f) / rate(g)") && !additive("rate(f) + 1"));
        assert!(additive("pods()") && !additive("pods_max(rate(f))") && !additive("below(0.1, f)"));
        assert!(!additive("rate(f) / pods()"));
    }

    #[test]
    fn errors_name_the_column() {
        let error = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert!(error("sum(f)").starts_with("column 1: \"sum\" is no function"));
        assert_eq!(error("rate(f"), "column 7: ) was expected");
        assert!(error("rate(f) rate(g)").starts_with("column 9:"));
        assert!(error("quantile(99, f)").contains("from 0 to 1"));
        assert!(error("rate()").contains("family"));
        assert!(error("rate(f{a=~\"(x\"})").contains("no pattern"));
        assert!(error("pods_max(pods_mean(rate(f)))").starts_with("column 10:"));
        assert!(error("below(f)").contains("number"));
        assert!(error("rate(f{a=\"x)").contains("closing"));
        assert!(error("").contains("column 1"));
    }
}
