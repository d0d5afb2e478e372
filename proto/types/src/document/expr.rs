//! The one grammar of conditions (ACTIONS.md, "Expressions").
//!
//! `when` of a step, backup or database: `facts.x`, `params.x` (set and not empty), `not E`,
//! `'a' in params.x`, `E and E`, `E or E`, brackets. `when` of an alert: a metric, `disk_free` or
//! `health_score`, an operator and a number or `cores * number`; or `check:<id> failed`. Nothing else.
//! Conditions are kept as written, because signed documents must not change under re-serialising.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::Id;
use super::threshold::Amount;
use super::value::Value;

/// Longest condition in bytes; also bounds the recursion of brackets and `not` together with
/// [`MAX_DEPTH`].
const MAX_BYTES: usize = 1024;
/// Deepest nesting of brackets and `not`; as deep as documents may nest (security-and-delivery §1.15).
const MAX_DEPTH: u32 = 32;

/// A text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {why}")]
pub struct ExprError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What was expected.
    pub why: &'static str,
}

/// A condition cannot be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fact {0} is not known on this node")]
pub struct UnknownFact(pub String);

/// Where facts and parameters come from when a condition is evaluated.
pub trait Context {
    /// The fact of this name, dots included; none when it is not known here.
    fn fact(&self, name: &str) -> Option<Value>;
    /// The parameter of this name.
    fn param(&self, name: &str) -> Option<Value>;
}

/// A parsed condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A fact that is set and not empty.
    Fact(String),
    /// A parameter that is set and not empty.
    Param(String),
    /// A list parameter that holds a text.
    In(String, String),
    /// The opposite.
    Not(Box<Expr>),
    /// Both.
    And(Box<Expr>, Box<Expr>),
    /// At least one.
    Or(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// Whether it is true here. A fact that is not known is neither true nor false: where it decides, nothing is
    /// decided.
    pub fn eval(&self, context: &dyn Context) -> Result<bool, UnknownFact> {
        Ok(match self {
            Self::Fact(name) => !context.fact(name).ok_or_else(|| UnknownFact(name.clone()))?.is_empty(),
            Self::Param(name) => context.param(name).is_some_and(|value| !value.is_empty()),
            Self::In(text, name) => match context.param(name) {
                Some(Value::List(members)) => members.iter().any(|member| member.as_str() == Some(text)),
                Some(Value::String(value)) => value == *text,
                _ => false,
            },
            Self::Not(inner) => !inner.eval(context)?,
            Self::And(left, right) => match (left.eval(context), right.eval(context)) {
                (Ok(false), _) | (_, Ok(false)) => false,
                (left, right) => left? && right?,
            },
            Self::Or(left, right) => match (left.eval(context), right.eval(context)) {
                (Ok(true), _) | (_, Ok(true)) => true,
                (left, right) => left? || right?,
            },
        })
    }

    /// The parameters it names, each as often as it stands there.
    pub fn params(&self) -> Vec<&str> {
        self.names(&|part| match part {
            Self::Param(name) | Self::In(_, name) => Some(name),
            _ => None,
        })
    }

    /// The facts it names, each as often as it stands there.
    pub fn facts(&self) -> Vec<&str> {
        self.names(&|part| if let Self::Fact(name) = part { Some(name) } else { None })
    }

    fn names<'a>(&'a self, of: &dyn Fn(&'a Self) -> Option<&'a String>) -> Vec<&'a str> {
        match self {
            Self::Not(inner) => inner.names(of),
            Self::And(left, right) | Self::Or(left, right) => {
                let mut names = left.names(of);
                names.extend(right.names(of));
                names
            }
            part => of(part).map(String::as_str).into_iter().collect(),
        }
    }
}

/// `when` of a step, backup or database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    text: String,
    expr: Expr,
}

impl When {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed condition.
    pub const fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Whether it is true here, as far as that can be known.
    pub fn eval(&self, context: &dyn Context) -> Result<bool, UnknownFact> {
        self.expr.eval(context)
    }
}

impl FromStr for When {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Self, ExprError> {
        if text.len() > MAX_BYTES {
            return Err(ExprError { at: 1, why: "a condition is at most 1024 bytes" });
        }
        let mut parser = Parser { text, at: 0, depth: 0 };
        let expr = parser.either()?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.error("expected `and`, `or` or the end"));
        }
        Ok(Self { text: text.to_owned(), expr })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn error(&self, why: &'static str) -> ExprError {
        ExprError { at: self.text[..self.at].chars().count() + 1, why }
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start_matches([' ', '\t']).len();
    }

    /// Takes a word that is not the beginning of a longer one.
    fn word(&mut self, word: &str) -> bool {
        self.blanks();
        let Some(rest) = self.text[self.at..].strip_prefix(word) else { return false };
        if rest.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            return false;
        }
        self.at += word.len();
        true
    }

    fn sign(&mut self, sign: char) -> bool {
        self.blanks();
        let found = self.text[self.at..].starts_with(sign);
        self.at += if found { sign.len_utf8() } else { 0 };
        found
    }

    fn either(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.both()?;
        while self.word("or") {
            left = Expr::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Expr, ExprError> {
        let mut left = self.one()?;
        while self.word("and") {
            left = Expr::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expr, ExprError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("brackets and `not` nest at most 32 deep"));
        }
        self.depth += 1;
        let found = self.one_deeper();
        self.depth -= 1;
        found
    }

    fn one_deeper(&mut self) -> Result<Expr, ExprError> {
        if self.word("not") {
            return Ok(Expr::Not(Box::new(self.one()?)));
        }
        if self.sign('(') {
            let inner = self.either()?;
            return if self.sign(')') { Ok(inner) } else { Err(self.error("expected )")) };
        }
        if self.sign('\'') {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find('\'') else { return Err(self.error("expected the other '")) };
            let text = rest[..end].to_owned();
            self.at += end + 1;
            if !self.word("in") {
                return Err(self.error("expected `in params.x`"));
            }
            return Ok(Expr::In(text, self.name("params.")?.to_owned()));
        }
        self.blanks();
        if self.text[self.at..].starts_with("params.") {
            return Ok(Expr::Param(self.name("params.")?.to_owned()));
        }
        if self.text[self.at..].starts_with("facts.") {
            return Ok(Expr::Fact(self.name("facts.")?.to_owned()));
        }
        Err(self.error("expected facts.x, params.x, `not`, 'a' in params.x or brackets"))
    }

    fn name(&mut self, prefix: &str) -> Result<&'a str, ExprError> {
        self.blanks();
        let Some(rest) = self.text[self.at..].strip_prefix(prefix) else {
            return Err(self.error("expected params.x"));
        };
        let length =
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
        let name = &rest[..length];
        if name.split('.').any(str::is_empty) {
            return Err(self.error("a name is missing after the dot"));
        }
        self.at += prefix.len() + length;
        Ok(name)
    }
}

/// `when` of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertWhen {
    text: String,
    rule: AlertRule,
}

/// The parsed rule of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertRule {
    /// A measured value is beyond a limit.
    Limit {
        /// A source of a metric such as `cpu_used` or `disk_used:/var`, `disk_free`, or `health_score`.
        metric: String,
        /// How it is compared.
        operator: Operator,
        /// With what.
        limit: Amount,
    },
    /// A check failed.
    CheckFailed(Id),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

impl Operator {
    /// Whether `value` stands in this relation to `limit`.
    pub const fn holds(self, value: i64, limit: i64) -> bool {
        match self {
            Self::Above => value > limit,
            Self::AtLeast => value >= limit,
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
        }
    }
}

impl AlertWhen {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed rule.
    pub const fn rule(&self) -> &AlertRule {
        &self.rule
    }
}

impl FromStr for AlertWhen {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Self, ExprError> {
        let error = |at: usize, why| ExprError { at: text[..at].chars().count() + 1, why };
        if text.len() > MAX_BYTES {
            return Err(error(0, "a condition is at most 1024 bytes"));
        }
        if let Some(rest) = text.trim().strip_prefix("check:") {
            let (id, failed) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            let id = id.parse().map_err(|_| error(0, "expected check:<id> failed"))?;
            if failed.trim() != "failed" {
                return Err(error(0, "expected check:<id> failed"));
            }
            return Ok(Self { text: text.to_owned(), rule: AlertRule::CheckFailed(id) });
        }
        let at = text
            .find(['<', '>'])
            .ok_or_else(|| error(0, "expected a metric, one of > >= < <= and a limit"))?;
        let metric = text[..at].trim();
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'-' | b'#');
        if metric.is_empty() || !metric.bytes().all(allowed) {
            return Err(error(0, "expected the name of a metric, disk_free or health_score"));
        }
        let (operator, length) = match (text.as_bytes()[at], text.as_bytes().get(at + 1)) {
            (b'>', Some(b'=')) => (Operator::AtLeast, 2),
            (b'>', _) => (Operator::Above, 1),
            (_, Some(b'=')) => (Operator::AtMost, 2),
            _ => (Operator::Below, 1),
        };
        let limit = text[at + length..]
            .parse()
            .map_err(|_| error(at + length, "expected a number or `cores * number`"))?;
        Ok(Self {
            text: text.to_owned(),
            rule: AlertRule::Limit { metric: metric.to_owned(), operator, limit },
        })
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(When);
as_text!(AlertWhen);

#[cfg(test)]
mod tests {
    use super::*;

    struct Node;

    impl Context for Node {
        fn fact(&self, name: &str) -> Option<Value> {
            match name {
                "lvm" => Some(Value::Bool(true)),
                "x" => Some(Value::Bool(false)),
                "os.id" => Some(Value::from("debian")),
                _ => None,
            }
        }

        fn param(&self, name: &str) -> Option<Value> {
            match name {
                "suites" => Some(Value::List(vec!["basic".into()])),
                "empty" => Some(Value::from("")),
                _ => None,
            }
        }
    }

    #[test]
    fn conditions_are_evaluated_with_the_usual_precedence() {
        for (text, expected) in [
            ("facts.lvm", true),
            ("facts.os.id and facts.lvm", true),
            ("not params.empty", true),
            ("'basic' in params.suites", true),
            ("'security' in params.suites or facts.lvm and params.nothing", false),
            ("facts.lvm or facts.x and params.nothing", true),
            ("(facts.lvm or facts.x) and not params.nothing", true),
            ("not facts.lvm or not facts.x", true),
            ("'basic'in params.suites and(facts.lvm)", true),
        ] {
            assert_eq!(text.parse::<When>().unwrap().eval(&Node), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_fact_that_is_not_known_decides_nothing() {
        for text in ["facts.nope", "not facts.nope", "facts.lvm and facts.nope", "facts.nope or facts.x"] {
            let unknown = Err(UnknownFact("nope".to_owned()));
            assert_eq!(text.parse::<When>().unwrap().eval(&Node), unknown, "{text}");
        }
        for (text, expected) in [("facts.nope and facts.x", false), ("facts.lvm or not facts.nope", true)] {
            assert_eq!(text.parse::<When>().unwrap().eval(&Node), Ok(expected), "{text}");
        }
        let when: When = "facts.a and not (facts.b or params.c)".parse().unwrap();
        assert_eq!((when.expr().facts(), when.expr().params()), (vec!["a", "b"], vec!["c"]));
    }

    #[test]
    fn nothing_else_is_a_condition() {
        let deep = format!("{}facts.x{}", "(".repeat(40), ")".repeat(40));
        let nots = format!("{}facts.x", "not ".repeat(200));
        for bad in [
            "",
            "lvm",
            "facts.",
            "facts.a..b",
            "params",
            "not",
            "facts.x facts.y",
            "(facts.x",
            "facts.x)",
            "'a' in facts.x",
            "'a",
            "facts.x && facts.y",
            "facts.x == 1",
            "labels.x",
            "$(x)",
            "{{7*7}}",
            "facts.x or",
            &deep,
            &nots,
            &"x".repeat(2000),
        ] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
        assert_eq!("facts.x und facts.y".parse::<When>().unwrap_err().at, 9);
    }

    #[test]
    fn alert_rules() {
        let rule = |text: &str| text.parse::<AlertWhen>().unwrap().rule;
        let AlertRule::Limit { metric, operator, limit } = rule("load1 > cores * 2") else {
            panic!("a limit")
        };
        assert_eq!((metric.as_str(), operator, limit.thousandths(2)), ("load1", Operator::Above, 4000));
        assert!(operator.holds(4001, 4000) && !operator.holds(4000, 4000));
        assert_eq!(
            rule("check:daily-report failed"),
            AlertRule::CheckFailed("daily-report".parse().unwrap())
        );
        for bad in [
            "cpu_used",
            "cpu_used > ",
            "> 5",
            "cpu used > 5",
            "check:x",
            "check:X failed",
            "a > 5 and b > 6",
            "a = 5",
        ] {
            assert!(bad.parse::<AlertWhen>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_kept_as_written(text in "(not |and |or |facts\\.|params\\.|in |'|\\(|\\)|[a-z<>=*0-9: é]){0,24}") {
            if let Ok(when) = text.parse::<When>() {
                proptest::prop_assert_eq!(when.as_str(), text.as_str());
                let _ = when.eval(&Node);
            }
            if let Ok(alert) = text.parse::<AlertWhen>() {
                proptest::prop_assert_eq!(alert.as_str(), text.as_str());
            }
        }
    }
}
