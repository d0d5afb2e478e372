//! `fleetctl run task`: one action of the catalogue, once, without a file (docs/adr/0017).
//!
//! What is typed becomes a procedure of one step. It is written as a file would be, checked by the same front end
//! against the profile, signed like a document and sent with the request, so that plan, policy, signature and
//! audit are those of any procedure.

use std::collections::BTreeMap;

use fleet_documents::{Lint, SourceFile, parse_set, to_canonical_json};
use fleet_types::action::{Action, Answer as Changes, BUILT, Parameter, Takes};
use fleet_types::document::procedure::{Guard, Procedure};
use fleet_types::document::profile::Profile;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::Name;
use fleet_types::request::Verb;
use fleet_types::time::Span;
use serde::Serialize;

use super::order::{self, Shown, Work};
use super::start;
use crate::args::TaskArgs;
use crate::client::Client;
use crate::confirm::Danger;
use crate::error::{ExitCode, Failure};
use crate::session::Session;
use crate::signing::Signer;
use crate::targets;

/// Runs an action on the chosen nodes and waits for what comes of it; what changes nothing asks nobody.
pub async fn run(session: &mut Session<'_>, args: &TaskArgs) -> Result<ExitCode, Failure> {
    let action = action(&args.action)?;
    let client = session.connect().await?;
    let chosen = targets::resolve(&client, &session.settings.targets, "run task").await?;
    let profile = match &args.profile {
        Some(name) => order::profile(&client, name).await?,
        None => order::profile(&client, &only_profile(&client).await?).await?,
    };
    let text = written(action, &args.with, &profile.document, args)?;
    let procedure = checked(&text, profile_of(&profile))?;
    let bytes = to_canonical_json(&Document::Procedure(Box::new(procedure.clone())))
        .map_err(|error| Failure::usage("the task cannot be written").because(&error))?;
    let envelope = Signer::load(&session.context()?)?.document(bytes);
    let verb = if args.plan { Verb::Plan } else { Verb::Run };
    let work = (Work::Made(Box::new(procedure), envelope), &profile);
    let prepared = order::prepared(session, chosen, work, BTreeMap::new(), &args.how, verb)?;
    if session.settings.dry_run {
        session.print(&prepared.preview("would start"))?;
        return Ok(ExitCode::Done);
    }
    let is_mild = args.plan || !prepared.procedure.changes;
    let danger = if is_mild { Danger::Mild } else { start::danger(session, &prepared, Danger::Moderate)? };
    let is_waiting = session.settings.wait != Some(false);
    start::start(session, &client, prepared, &danger, is_waiting).await
}

fn profile_of(shown: &Shown<Profile>) -> Document {
    Document::Profile(Box::new(shown.document.clone()))
}

fn action(name: &str) -> Result<&'static Action, Failure> {
    let Some(action) = Action::find(name) else {
        let failure = Failure::new(ExitCode::NotFound, "not-found", format!("there is no action \"{name}\""));
        let failure = match Action::nearest(name) {
            Some(meant) => failure.fix(format!("did you mean \"{meant}\"?")),
            None => failure,
        };
        return Err(failure.fix("fleetctl explain actions"));
    };
    if !BUILT.contains(&name) {
        return Err(Failure::new(
            ExitCode::Blocked,
            "not-built",
            format!("agents cannot carry out {name} yet"),
        )
        .fix(format!("they have: {}", BUILT.join(", "))));
    }
    Ok(action)
}

/// The profile where there is one alone.
async fn only_profile(client: &Client) -> Result<Name, Failure> {
    let names: Vec<String> = client
        .documents(Some(DocumentKind::Profile))
        .await?
        .items
        .into_iter()
        .map(|item| item.name)
        .collect();
    match names.as_slice() {
        [] => Err(Failure::new(ExitCode::NotFound, "not-found", "no profile is applied")
            .fix("fleetctl config apply FILES")),
        [name] => name.parse().map_err(|error| Failure::unexpected("the profile has a bad name", &error)),
        _ => Err(Failure::usage(format!("{} profiles are applied, and their ids differ", names.len()))
            .fix(format!("add --profile NAME, one of {}", names.join(", ")))),
    }
}

/// The procedure as its file would say it.
#[derive(Serialize)]
struct File<'a> {
    schema: &'a str,
    kind: &'a str,
    name: String,
    version: u32,
    description: String,
    profile: &'a str,
    changes: bool,
    timeout: String,
    step: [Step<'a>; 1],
}

#[derive(Serialize)]
struct Step<'a> {
    id: &'a str,
    kind: &'a str,
    title: &'a str,
    uses: &'a str,
    timeout: String,
    with: toml::Table,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
}

/// Name of the one step.
const STEP: &str = "task";

fn written(
    action: &Action,
    given: &[(String, String)],
    profile: &Profile,
    args: &TaskArgs,
) -> Result<String, Failure> {
    let mut with = toml::Table::new();
    for (key, text) in given {
        let value = action.parameter(key).map_or_else(|| text.as_str().into(), |takes| value(takes, text));
        if with.insert(key.clone(), value).is_some() {
            return Err(Failure::usage(format!("--with {key} is given twice")));
        }
    }
    let limit = args.step_timeout.to_string();
    let guard = args.guard.clone().map(|confirm_within| Guard { confirm_within });
    let whole = args.step_timeout.length() + args.guard.as_ref().map(Span::length).unwrap_or_default();
    let file = File {
        schema: "fleet/v1",
        kind: "procedure",
        name: format!("task.{}", action.name),
        version: 1,
        description: format!("{}, once", action.name),
        profile: profile.name.as_str(),
        changes: changes(action, &with, profile),
        timeout: format!("{}s", whole.as_secs()),
        step: [Step {
            id: STEP,
            kind: "task",
            title: action.name,
            uses: action.name,
            timeout: limit,
            with,
            guard,
        }],
    };
    toml::to_string(&file).map_err(|error| Failure::usage("the task cannot be written").because(&error))
}

/// What was typed, as the parameter takes it; whether it is right is for the front end to say.
fn value(parameter: &Parameter, text: &str) -> toml::Value {
    let list = || toml::Value::from(text.split(',').map(str::trim).collect::<Vec<_>>());
    match parameter.takes {
        Takes::IdsOrAll(_) if text == "all" => text.into(),
        Takes::Ids(_)
        | Takes::IdsOrAll(_)
        | Takes::Words(_)
        | Takes::Texts
        | Takes::Paths
        | Takes::Notifiers => list(),
        Takes::Integer => text.parse::<i64>().map_or_else(|_| text.into(), toml::Value::from),
        Takes::Bool => text.parse::<bool>().map_or_else(|_| text.into(), toml::Value::from),
        Takes::Params => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

/// Does it change the node? As the profile declares it, where the catalogue leaves it to the ids.
fn changes(action: &Action, with: &toml::Table, profile: &Profile) -> bool {
    if action.changes != Changes::ById {
        return action.changes == Changes::Yes;
    }
    let with = with.iter().filter_map(|(key, value)| {
        let value = serde_json::to_value(value).and_then(serde_json::from_value).ok()?;
        Some((key.clone(), value))
    });
    let declared = |id: &str| {
        profile.commands.iter().find(|(known, _)| known.as_str() == id).map(|(_, command)| command.changes)
    };
    action.changes_node(&with.collect(), declared)
}

fn checked(text: &str, profile: Document) -> Result<Procedure, Failure> {
    let built = BUILT.iter().copied().collect();
    let applied = [profile];
    let lint = Lint { applied: &applied, built_actions: Some(&built), ..Lint::default() };
    let set = parse_set(&[SourceFile { name: "task", text }], &lint).map_err(|problems| {
        let what = "this cannot be a step; nothing was signed";
        problems.into_iter().fold(
            Failure::new(ExitCode::Usage, "config-invalid", what),
            |failure, problem| {
                // What is a key in a file is a flag here.
                let is_guard = problem.code == "guard-missing";
                let fix = if is_guard { "add --guard 10m".to_owned() } else { problem.fix };
                failure.cause(problem.message).fix(fix)
            },
        )
    })?;
    match set.documents.into_iter().next().map(|parsed| parsed.document) {
        Some(Document::Procedure(procedure)) => Ok(*procedure),
        _ => Err(Failure::new(ExitCode::Unexpected, "unexpected", "the task is no procedure")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "schema = \"fleet/v1\"\nkind = \"profile\"\nname = \"edge\"\nversion = 1\n\n\
        [check.load]\ntitle = \"Load\"\nkind = \"load\"\nwarn = 4\ncritical = 8\nevery = \"1m\"\n\n\
        [command.show]\nargv = [\"/bin/show\"]\ntimeout = \"1m\"\nchanges = false\n\n\
        [command.set]\nargv = [\"/bin/set\"]\ntimeout = \"1m\"\nchanges = true\n\n\
        [tuning.net]\nkind = \"sysctl\"\nfile = \"/etc/sysctl.d/60-x.conf\"\nset = { \"net.core.somaxconn\" = 1 }\n";

    fn profile() -> Profile {
        let files = [SourceFile { name: "profile.toml", text: PROFILE }];
        let set = parse_set(&files, &Lint::default()).unwrap();
        let Document::Profile(profile) = set.documents[0].document.clone() else { panic!("no profile") };
        *profile
    }

    fn made(name: &str, with: &[(&str, &str)]) -> Result<Procedure, Failure> {
        made_with(name, with, &TaskArgs::of(name))
    }

    fn made_with(name: &str, with: &[(&str, &str)], args: &TaskArgs) -> Result<Procedure, Failure> {
        let profile = profile();
        let with: Vec<_> = with.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let text = written(action(name)?, &with, &profile, args)?;
        checked(&text, Document::Profile(Box::new(profile)))
    }

    #[test]
    fn what_is_typed_becomes_a_procedure_that_says_truly_whether_it_changes() {
        for (name, with, changes) in [
            ("health.check", &[("checks", "all")][..], false),
            ("health.check", &[("checks", "load")], false),
            ("command.run", &[("command", "show")], false),
            ("command.run", &[("command", "set")], true),
        ] {
            let procedure = made(name, with).unwrap_or_else(|failure| panic!("{name} {with:?}: {failure:?}"));
            assert_eq!((procedure.changes, procedure.steps.len()), (changes, 1), "{name} {with:?}");
            assert_eq!(procedure.name.as_str(), format!("task.{name}"));
        }
    }

    #[test]
    fn what_can_cut_a_node_off_wants_a_guard() {
        let with = [("tuning", "net")];
        let failure = made("tuning.apply", &with).unwrap_err();
        assert!(format!("{:?}", failure.causes).contains("can cut the node off"), "{:?}", failure.causes);
        assert_eq!(failure.fixes, ["add --guard 10m"]);
        let guard = Some("5m".parse().unwrap());
        let procedure =
            made_with("tuning.apply", &with, &TaskArgs { guard, ..TaskArgs::of("tuning.apply") }).unwrap();
        assert_eq!(
            procedure.timeout.length().as_secs(),
            15 * 60,
            "its own ten minutes, and those of the guard"
        );
    }

    #[test]
    fn mistakes_are_found_before_anything_is_signed() {
        for (name, with, word) in [
            ("helth.check", &[][..], "did you mean \"health.check\"?"),
            ("hardening.run", &[], "they have: "),
            ("health.check", &[("checks", "laod")], "did you mean \"load\"?"),
            ("health.check", &[("chekcs", "all")], "did you mean \"checks\"?"),
            ("command.run", &[], "command"),
            ("health.check", &[("checks", "load"), ("checks", "all")], "given twice"),
        ] {
            let failure = made(name, with).unwrap_err();
            let text = format!("{} {:?} {:?}", failure.what, failure.causes, failure.fixes);
            assert!(text.replace("\\\"", "\"").contains(word), "{name} {with:?}: {text}");
        }
    }
}
