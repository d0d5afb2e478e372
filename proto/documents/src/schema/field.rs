//! What a schema is made of, as the walk and `explain` read it.

use fleet_types::action::Table;
use serde::Deserialize;

/// A table: its keys and, where a key `kind` decides which of them count, the rules for that.
#[derive(Debug)]
pub(crate) struct TableSchema {
    /// Its name in headers and in `explain`.
    pub name: String,
    /// One line for people.
    pub help: String,
    /// Its keys: the required ones, then the others by name.
    pub fields: Vec<Field>,
    /// What each kind needs and takes; empty where there is no kind.
    pub kinds: Vec<KindRule>,
}

/// What one word of `kind` needs and takes beside the keys that all kinds take.
#[derive(Debug)]
pub(crate) struct KindRule {
    /// The word after `kind =`.
    pub word: String,
    /// Groups of keys; of each group at least one must be given.
    pub needs: Vec<Vec<String>>,
    /// Further keys that only count for some kinds.
    pub takes: Vec<String>,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Field {
    /// The key.
    pub name: String,
    /// What stands after it.
    pub kind: FieldKind,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when left out, for people; may be empty.
    pub default: String,
    /// One line for people.
    pub help: String,
    /// Why this build does nothing with it; empty when it does.
    pub idle: String,
    /// Its words that this build does nothing with, and why.
    pub idle_words: Vec<(String, String)>,
}

/// What may stand after a key.
#[derive(Debug)]
pub(crate) enum FieldKind {
    /// One value.
    One(ValueKind),
    /// A list of values.
    Many(ValueKind),
    /// One of the words, or a list of texts.
    WordOrTexts(Vec<String>),
    /// A whole number within limits.
    Integer(i64, i64),
    /// Yes or no.
    Bool,
    /// A table.
    Table(Box<TableSchema>),
    /// A list of tables.
    Tables(Box<TableSchema>),
    /// Tables by kebab-case id.
    ById(Box<TableSchema>),
    /// Tables by `snake_case` key.
    ByKey(Box<TableSchema>),
}

/// What a value is: `x-takes` of the derived schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ValueKind {
    /// A text for people.
    #[serde(skip)]
    Text,
    /// One of the words.
    #[serde(skip)]
    Word(Vec<String>),
    /// A text with placeholders.
    Template,
    /// An absolute path with placeholders; globs allowed in lists.
    Path,
    /// `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// A duration that may have `-` in front.
    Offset,
    /// A document's or notifier's name.
    Name,
    /// The name of a procedure.
    Procedure,
    /// The name of a rollout policy.
    RolloutPolicy,
    /// An id that is defined here.
    Id,
    /// The id of a step.
    StepId,
    /// The id of a contact.
    Contact,
    /// An id of a table of the same profile.
    IdOf(Table),
    /// A selector of nodes.
    Selector,
    /// The same, or `*` for every node.
    AnySelector,
    /// A number of nodes or a percentage.
    Share,
    /// A cron expression.
    Cron,
    /// A time zone or `site`.
    Zone,
    /// Time zones by site.
    SiteZones,
    /// A day.
    Day,
    /// An instant.
    Instant,
    /// A condition over facts and parameters.
    When,
    /// The rule of an alert.
    AlertWhen,
    /// A number or `cores * number`.
    Threshold,
    /// The source of a metric.
    MetricSource,
    /// A systemd unit.
    Unit,
    /// The name of an action.
    Action,
    /// The parameters of an action.
    With,
    /// Parameters of a procedure: keys and values.
    ParamValues,
    /// Any value; checked with what it belongs to.
    Any,
    /// Settings: texts and integers by any key.
    Settings,
    /// Variables: texts with placeholders by `snake_case` key.
    Vars,
}

impl TableSchema {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl KindRule {
    /// Whether it speaks of the key.
    pub fn names(&self, key: &str) -> bool {
        self.takes.iter().chain(self.needs.iter().flatten()).any(|named| named == key)
    }
}

impl FieldKind {
    /// The schema of the tables below it.
    pub fn table(&self) -> Option<&TableSchema> {
        match self {
            Self::Table(table) | Self::Tables(table) | Self::ById(table) | Self::ByKey(table) => Some(table),
            _ => None,
        }
    }

    /// Its words, where only some are allowed.
    pub fn words(&self) -> Option<&[String]> {
        match self {
            Self::One(ValueKind::Word(words))
            | Self::Many(ValueKind::Word(words))
            | Self::WordOrTexts(words) => Some(words),
            _ => None,
        }
    }

    /// What is expected, for messages and `explain`.
    pub fn expects(&self) -> String {
        match self {
            Self::One(kind) => kind.expects(),
            Self::Many(ValueKind::Template) => "a list of strings, placeholders allowed".to_owned(),
            Self::Many(ValueKind::Path) => "a list of absolute paths".to_owned(),
            Self::Many(ValueKind::Name) => "a list of names".to_owned(),
            Self::Many(ValueKind::StepId) => "a list of ids of steps".to_owned(),
            Self::Many(ValueKind::IdOf(table)) => format!("a list of ids of [{table}.*]"),
            Self::Many(ValueKind::Word(words)) => format!("a list of: {}", words.join(", ")),
            Self::Many(_) => "a list of strings".to_owned(),
            Self::WordOrTexts(words) => format!("\"{}\", or a list of strings", words.join("\", \"")),
            Self::Integer(min, max) => format!("an integer from {min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Tables(table) => format!("a list of tables [[{}]]", table.name),
            Self::ById(table) => format!("tables [{}.<id>]", table.name),
            Self::ByKey(_) => "a table of declarations".to_owned(),
        }
    }
}

impl ValueKind {
    fn expects(&self) -> String {
        let expects = match self {
            Self::Text => "a string",
            Self::Word(words) => return format!("one of: {}", words.join(", ")),
            Self::Template => "a string, placeholders allowed",
            Self::Path => "an absolute path",
            Self::Duration => "a duration such as \"30s\", \"5m\", \"24h\" or \"7d\"",
            Self::Offset => "a duration, \"-14d\" is before",
            Self::Name => "a name",
            Self::Procedure => "the name of a procedure",
            Self::RolloutPolicy => "the name of a rollout policy",
            Self::Id => "an id in kebab-case",
            Self::StepId => "an id of a step",
            Self::Contact => "an id of [contact.*]",
            Self::IdOf(table) => return format!("an id of [{table}.*]"),
            Self::Selector => "a selector such as \"product=edgefw,ring!=test\"",
            Self::AnySelector => "a selector such as \"ring=canary\", or \"*\"",
            Self::Share => "a number from 1, or a percentage such as \"25%\"",
            Self::Cron => "a cron expression of five fields",
            Self::Zone => "an IANA time zone or \"site\"",
            Self::SiteZones => "a table of IANA time zones by site",
            Self::Day => "a day such as \"2026-11-22\"",
            Self::Instant => "an instant such as \"2026-12-28T00:00:00Z\"",
            Self::When => "a condition such as \"facts.lvm and not params.offline\"",
            Self::AlertWhen => "a rule such as \"cpu_used > 90\" or \"check:web failed\"",
            Self::Threshold => "a number, or \"cores * 2\"",
            Self::MetricSource => "a source such as \"cpu_used\" or \"disk_used:/var/log\"",
            Self::Unit => "a systemd unit such as \"nginx.service\"",
            Self::Action => "the name of an action such as \"health.check\"",
            Self::With => "a table of the action's parameters",
            Self::ParamValues => "a table of the procedure's parameters",
            Self::Any => "a value",
            Self::Settings => "a table of strings and integers",
            Self::Vars => "a table of strings",
        };
        expects.to_owned()
    }
}
