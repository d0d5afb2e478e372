//! The rules of `[log.*]` as files of logrotate, and calling that program. Shared by `log.configure` and `log.rotate`.
//!
//! `logrotate(8)`. Every switch is written, so that a default of the machine changes nothing. What it prints is judged by
//! its lines: it ends with status 0 although it left out what it did not understand.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Log, RotateEvery};

use super::args;
use super::contract::{TaskContext, TaskError};
use super::fill::Filler;
use super::programs;
use crate::host::{Files, Glob, Invocation, ProcessError, ProcessOutcome, Purpose, UnitsKind};

/// What the node's own timer runs hourly instead of daily, where a rule is hourly.
pub const ROTATION_TIMER: &str = "/etc/systemd/system/logrotate.timer.d/fleet.conf";
/// The program.
const LOGROTATE: &str = "logrotate";
/// A dry run lists files and reads one state.
const CHECK_LIMIT: Duration = Duration::from_mins(1);

/// The file of a rule; the machine's own logrotate reads that folder.
pub fn log_file(id: &str) -> String {
    format!("/etc/logrotate.d/fleet-{id}")
}

/// A rule of the step.
pub(super) struct Rule<'a> {
    /// Its id.
    pub(super) id: &'a Id,
    /// Its file.
    pub(super) path: PathBuf,
    /// What stands in it.
    pub(super) content: String,
    /// The logs, as declared.
    pub(super) logs: Vec<Glob>,
    /// Units that open their logs anew after a rotation, where logrotate cannot tell them.
    pub(super) reload: Vec<String>,
}

fn wrong(id: &Id, why: &str) -> TaskError {
    TaskError::Declared(format!("log {id}: {why}"))
}

/// The rules of the step, in order.
pub(super) fn rules<'a>(context: &TaskContext<'a>) -> Result<Vec<Rule<'a>>, TaskError> {
    // A node with a root of its own may use the machine's.
    if !is_rooted(context.host.files()) && !context.host.processes().has_program(LOGROTATE) {
        return Err(TaskError::Declared(
            "logrotate is not installed; install the package logrotate".to_owned(),
        ));
    }
    let named = args::ids(context, "logs", &context.profile.logs, false)?;
    named.into_iter().map(|(id, log)| rule(context, id, log)).collect()
}

fn rule<'a>(context: &TaskContext<'a>, id: &'a Id, log: &'a Log) -> Result<Rule<'a>, TaskError> {
    let Some(rotate) = &log.rotate else { return Err(wrong(id, "it has no `rotate`")) };
    if !log.exclude.is_empty() {
        return Err(wrong(id, "logrotate cannot leave files out; take `exclude` away, or name the paths"));
    }
    let filler = Filler::new(context);
    let what = format!("log {id}");
    let logs = filler.globs(&what, &log.paths)?;
    let mut rendered = format!("# Written by fleet-agent for log \"{id}\"; log.configure writes it anew.\n");
    for path in &log.paths {
        let path = filler.path(&what, path)?;
        let text = path.to_string_lossy();
        if text.contains("**") || text.contains(['"', '\\']) || text.chars().any(char::is_control) {
            return Err(wrong(id, &format!("logrotate does not take the path {text:?}")));
        }
        let _ = write!(rendered, "\"{}\" ", on_machine(context.host.files(), &path).display());
    }
    let every = match rotate.every {
        RotateEvery::Hourly => "hourly",
        RotateEvery::Daily => "daily",
        RotateEvery::Weekly => "weekly",
    };
    let word = |yes: bool, word: &'static str, other: &'static str| if yes { word } else { other };
    let mut lines = vec![
        every.to_owned(),
        format!("rotate {}", rotate.keep),
        word(log.compress, "compress", "nocompress").to_owned(),
        word(log.delay_compress, "delaycompress", "nodelaycompress").to_owned(),
        word(log.missing_ok, "missingok", "nomissingok").to_owned(),
        word(log.skip_empty, "notifempty", "ifempty").to_owned(),
        "nodateext".to_owned(),
        "noolddir".to_owned(),
        "nomail".to_owned(),
    ];
    lines.push(match &log.create {
        None => "nocreate".to_owned(),
        Some(create) => {
            let plain = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            };
            let octal = (3..=4).contains(&create.mode.len())
                && create.mode.bytes().all(|b| (b'0'..b'8').contains(&b));
            if !octal || !plain(&create.user) || !plain(&create.group) {
                return Err(wrong(id, "`create` takes a mode such as 0640, a user and a group"));
            }
            format!("create {} {} {}", create.mode, create.user, create.group)
        }
    });
    let reload = reloaded(context, id, log)?;
    let by_logrotate = context.host.units().kind() == UnitsKind::Systemd;
    if by_logrotate && !reload.is_empty() {
        lines.push("sharedscripts".to_owned());
        lines.push("postrotate".to_owned());
        // A name of a unit holds nothing that a shell reads inside of these quotes.
        let tell = |unit| format!("if systemctl -q is-active '{unit}'; then systemctl reload '{unit}'; fi");
        lines.extend(reload.iter().map(tell));
        lines.push("endscript".to_owned());
    }
    rendered.push_str("{\n");
    for line in lines {
        let _ = writeln!(rendered, "    {line}");
    }
    rendered.push_str("}\n");
    let path = PathBuf::from(log_file(id.as_str()));
    Ok(Rule { id, path, content: rendered, logs, reload: if by_logrotate { Vec::new() } else { reload } })
}

/// The units that are told after a rotation; one that cannot take that up without a restart is refused.
fn reloaded(context: &TaskContext<'_>, id: &Id, log: &Log) -> Result<Vec<String>, TaskError> {
    let mut units = Vec::new();
    for service in log.after.iter().flat_map(|after| &after.reload) {
        let unit = context.profile.services.get(service).map(|service| &service.unit);
        let unit =
            unit.ok_or_else(|| wrong(id, &format!("the profile declares no service \"{service}\"")))?;
        let relations = context.host.units().relations(unit).map_err(|e| wrong(id, &e.to_string()))?;
        if !relations.can_reload {
            let why =
                format!("{unit} cannot be reloaded: its unit has no ExecReload=; take it out of `after`");
            return Err(wrong(id, &why));
        }
        units.push(unit.clone());
    }
    Ok(units)
}

/// Where a declared path lies: logrotate knows nothing of a root of its own.
pub(super) fn on_machine(files: &dyn Files, path: &Path) -> PathBuf {
    files.root().join(path.strip_prefix("/").unwrap_or(path))
}

/// Does this node have a root of its own?
pub(super) fn is_rooted(files: &dyn Files) -> bool {
    files.root() != Path::new("/")
}

/// A call of logrotate on these files of rules.
pub(super) fn call(context: &TaskContext<'_>, options: &[&str], rules: &[&Path]) -> Invocation {
    let files = context.host.files();
    let mut argv: Vec<String> =
        [LOGROTATE].into_iter().chain(options.iter().copied()).map(str::to_owned).collect();
    argv.extend(rules.iter().map(|path| on_machine(files, path).display().to_string()));
    Invocation::new(argv, programs::left(context))
}

/// A dry run; `/dev/null` as its state takes no part in the real one.
pub(super) fn dry_run(
    context: &TaskContext<'_>,
    options: &[&str],
    rules: &[&Path],
) -> Result<ProcessOutcome, ProcessError> {
    let mut invocation = call(context, options, rules);
    invocation.time_limit = invocation.time_limit.min(CHECK_LIMIT);
    programs::run(context, &invocation, Purpose::ReadOnly)
}

/// What it complained of.
pub(super) fn errors(output: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(output);
    let complaints = text.lines().filter(|line| line.starts_with("error:"));
    complaints.map(|line| programs::tail(line.as_bytes()).trim().to_owned()).collect()
}

/// The logs that it rotates, or would.
pub(super) fn due(files: &dyn Files, output: &[u8]) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(output);
    let mut due: Vec<PathBuf> = Vec::new();
    let mut at = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("considering log ") {
            at = Some(Path::new(path));
        } else if line.trim() == "log needs rotating" {
            let declared =
                at.take().map(|path| Path::new("/").join(path.strip_prefix(files.root()).unwrap_or(path)));
            due.extend(declared);
        }
    }
    due
}
