//! What a schema is made of.

use fleet_types::action::Table;

/// A table: its keys and, where a key `kind` decides which of them count, the rules for that.
#[derive(Debug)]
pub(crate) struct TableSchema {
    /// Its name in headers and in `explain`.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
    /// What each kind needs and takes; empty where there is no kind.
    pub kinds: &'static [KindRule],
}

/// What one word of `kind` needs and takes beside the keys that all kinds take.
#[derive(Debug)]
pub(crate) struct KindRule {
    /// The word after `kind =`.
    pub word: &'static str,
    /// Groups of keys; of each group at least one must be given.
    pub needs: &'static [&'static [&'static str]],
    /// Further keys that only count for some kinds.
    pub takes: &'static [&'static str],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Field {
    /// The key.
    pub name: &'static str,
    /// What stands after it.
    pub kind: FieldKind,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when left out, for people; may be empty.
    pub default: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Why this build does nothing with it; empty when it does.
    pub idle: &'static str,
    /// Words of a [`FieldKind::Word`] or [`FieldKind::Words`] that this build does nothing with, and why.
    pub idle_words: &'static [(&'static str, &'static str)],
}

/// What may stand after a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FieldKind {
    /// A text for people.
    Text,
    /// A text with placeholders.
    Template,
    /// A list of texts with placeholders.
    Templates,
    /// An absolute path with placeholders.
    Path,
    /// A list of absolute paths with placeholders, globs allowed.
    Paths,
    /// A list of texts.
    Texts,
    /// A whole number within limits.
    Integer(i64, i64),
    /// Yes or no.
    Bool,
    /// `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// A duration that may have `-` in front.
    Offset,
    /// A document's or notifier's name.
    Name,
    /// A list of names.
    Names,
    /// The name of a procedure.
    Procedure,
    /// The name of a rollout policy.
    RolloutPolicy,
    /// An id that is defined here.
    Id,
    /// A list of ids of steps.
    StepIds,
    /// The id of a contact.
    Contact,
    /// An id of a table of the same profile.
    IdOf(Table),
    /// A list of ids of a table of the same profile.
    IdsOf(Table),
    /// One of the words.
    Word(&'static [&'static str]),
    /// A list of the words.
    Words(&'static [&'static str]),
    /// One of the words, or a list of texts.
    WordOrTexts(&'static [&'static str]),
    /// A selector of nodes.
    Selector,
    /// A cron expression.
    Cron,
    /// A time zone or `site`.
    Zone,
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
    /// A table.
    Table(&'static TableSchema),
    /// A list of tables.
    Tables(&'static TableSchema),
    /// Tables by kebab-case id.
    ById(&'static TableSchema),
    /// Tables by `snake_case` key.
    ByKey(&'static TableSchema),
}

impl Field {
    pub const fn required(name: &'static str, kind: FieldKind, help: &'static str) -> Self {
        Self { name, kind, required: true, default: "", help, idle: "", idle_words: &[] }
    }

    pub const fn optional(
        name: &'static str,
        kind: FieldKind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind, required: false, default, help, idle: "", idle_words: &[] }
    }

    /// Marks a key that is kept and not acted on. `why` completes "this build does not act on x: ".
    pub const fn idle(self, why: &'static str) -> Self {
        Self { idle: why, ..self }
    }

    /// Marks words that are kept and not acted on.
    pub const fn idle_words(self, words: &'static [(&'static str, &'static str)]) -> Self {
        Self { idle_words: words, ..self }
    }
}

impl TableSchema {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl FieldKind {
    /// What is expected, for messages and `explain`.
    pub fn expects(self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Template => "a string, placeholders allowed".to_owned(),
            Self::Templates => "a list of strings, placeholders allowed".to_owned(),
            Self::Path => "an absolute path".to_owned(),
            Self::Paths => "a list of absolute paths".to_owned(),
            Self::Texts => "a list of strings".to_owned(),
            Self::Integer(min, max) => format!("an integer from {min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::Duration => "a duration such as \"30s\", \"5m\", \"24h\" or \"7d\"".to_owned(),
            Self::Offset => "a duration, \"-14d\" is before".to_owned(),
            Self::Name => "a name".to_owned(),
            Self::Names => "a list of names".to_owned(),
            Self::Procedure => "the name of a procedure".to_owned(),
            Self::RolloutPolicy => "the name of a rollout policy".to_owned(),
            Self::Id => "an id in kebab-case".to_owned(),
            Self::StepIds => "a list of ids of steps".to_owned(),
            Self::Contact => "an id of [contact.*]".to_owned(),
            Self::IdOf(table) => format!("an id of [{table}.*]"),
            Self::IdsOf(table) => format!("a list of ids of [{table}.*]"),
            Self::Word(words) => format!("one of: {}", words.join(", ")),
            Self::Words(words) => format!("a list of: {}", words.join(", ")),
            Self::WordOrTexts(words) => format!("\"{}\", or a list of strings", words.join("\", \"")),
            Self::Selector => "a selector such as \"product=edgefw,ring!=test\"".to_owned(),
            Self::Cron => "a cron expression of five fields".to_owned(),
            Self::Zone => "an IANA time zone or \"site\"".to_owned(),
            Self::Day => "a day such as \"2026-11-22\"".to_owned(),
            Self::Instant => "an instant such as \"2026-12-28T00:00:00Z\"".to_owned(),
            Self::When => "a condition such as \"facts.lvm and not params.offline\"".to_owned(),
            Self::AlertWhen => "a rule such as \"cpu_used > 90\" or \"check:web failed\"".to_owned(),
            Self::Threshold => "a number, or \"cores * 2\"".to_owned(),
            Self::MetricSource => "a source such as \"cpu_used\" or \"disk_used:/var/log\"".to_owned(),
            Self::Unit => "a systemd unit such as \"nginx.service\"".to_owned(),
            Self::Action => "the name of an action such as \"health.check\"".to_owned(),
            Self::With => "a table of the action's parameters".to_owned(),
            Self::ParamValues => "a table of the procedure's parameters".to_owned(),
            Self::Any => "a value".to_owned(),
            Self::Settings => "a table of strings and integers".to_owned(),
            Self::Vars => "a table of strings".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Tables(table) => format!("a list of tables [[{}]]", table.name),
            Self::ById(table) => format!("tables [{}.<id>]", table.name),
            Self::ByKey(_) => "a table of declarations".to_owned(),
        }
    }
}
