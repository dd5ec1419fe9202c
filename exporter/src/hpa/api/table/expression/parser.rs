//! From text to an expression, by recursive descent. What is wrong is said with its column.

use super::{Call, Expression, ExpressionError, Function, Matcher, Operator, OverPods, Pattern, Test};

/// Reads one.
pub(super) fn parse(text: &str) -> Result<Expression, ExpressionError> {
    let mut parser = Parser { text, at: 0, of_each: false };
    let expression = parser.sum()?;
    parser.space();
    if parser.at < text.len() { Err(parser.error("one of + - * / or the end was expected")) } else { Ok(expression) }
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
            if name.is_empty() {
                return Err(self.error("a number, a function or ( was expected"));
            }
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
