//! Which of the global flags each command acts on: those are shown first in its help, and the others are refused by
//! name, so that `--dry-run` or `--node` is never passed over in silence.
//!
//! How output looks (`-o`, `--color`, …), `--context`, `--timeout` and `--no-input` belong to every command.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

type Group = &'static [&'static str];

const TARGETS: Group = &["selector", "site", "node", "all"];
const ALL: Group = &["all"];
const WATCH: Group = &["watch"];
const WAIT: Group = &["wait", "no_wait"];
const CHANGE: Group = &["yes", "confirm", "reason", "dry_run"];
const JUDGED: [Group; 4] = [TARGETS, WAIT, CHANGE, WATCH];

/// Commands with the flags that mean something to them. One that is not named here takes all.
const COMMANDS: &[(&[&str], &[Group])] = &[
    (&["dev"], &[]),
    (&["login"], &[]),
    (&["whoami"], &[]),
    (&["status"], &[WATCH]),
    (&["node", "list"], &[TARGETS, WATCH]),
    (&["node", "show"], &[WATCH]),
    (&["node", "packages"], &[WATCH]),
    (&["node", "hold"], &[CHANGE]),
    (&["node", "release"], &[CHANGE]),
    (&["node", "reset-fence"], &[CHANGE]),
    (&["node", "remove"], &[CHANGE]),
    (&["cert", "list"], &[WATCH]),
    (&["cert", "revoke"], &[CHANGE]),
    (&["operator", "invite"], &[CHANGE]),
    (&["operator", "list"], &[WATCH]),
    (&["operator", "admit"], &[CHANGE]),
    (&["operator", "approve"], &[CHANGE]),
    (&["operator", "revoke"], &[CHANGE]),
    (&["operator", "delegate"], &[CHANGE]),
    (&["join-token", "create"], &[CHANGE]),
    (&["config", "validate"], &[]),
    (&["config", "apply"], &[CHANGE]),
    (&["config", "diff"], &[]),
    (&["config", "fmt"], &[]),
    (&["config", "schema"], &[]),
    (&["procedure", "list"], &[]),
    (&["procedure", "show"], &[]),
    (&["profile", "list"], &[]),
    (&["profile", "show"], &[]),
    (&["schedule", "list"], &[WATCH]),
    (&["schedule", "show"], &[WATCH]),
    (&["schedule", "next"], &[]),
    (&["schedule", "history"], &[CHANGE]),
    (&["schedule", "pause"], &[ALL, CHANGE]),
    (&["schedule", "resume"], &[ALL, CHANGE]),
    (&["schedule", "apply"], &[CHANGE]),
    (&["schedule", "trigger"], &[WAIT, CHANGE]),
    (&["run", "plan"], &[TARGETS, WAIT, CHANGE]),
    (&["run", "start"], &[TARGETS, WAIT, CHANGE]),
    (&["run", "task"], &[TARGETS, WAIT, CHANGE]),
    (&["run", "list"], &[WATCH]),
    (&["run", "show"], &[WATCH]),
    (&["run", "logs"], &[]),
    (&["run", "wait"], &[]),
    (&["run", "cancel"], &[CHANGE]),
    (&["patch", "list"], &[TARGETS, WATCH]),
    (&["patch", "show"], &[TARGETS, WATCH]),
    (&["patch", "sla"], &[TARGETS, WATCH]),
    (&["patch", "plan"], &[TARGETS]),
    (&["patch", "hold"], &[TARGETS, CHANGE]),
    (&["patch", "release"], &[TARGETS, CHANGE]),
    (&["patch", "holds"], &[WATCH]),
    (&["advisory", "import"], &[CHANGE]),
    (&["advisory", "list"], &[WATCH]),
    (&["advisory", "show"], &[WATCH]),
    (&["patch", "score"], &[]),
    (&["patch", "compare-versions"], &[]),
    (&["rollout", "status"], &[WATCH]),
    (&["rollout", "pause"], &[CHANGE]),
    (&["rollout", "resume"], &[CHANGE]),
    (&["rollout", "promote"], &[CHANGE]),
    (&["rollout", "abort"], &[CHANGE]),
    (&["backup", "list"], &[TARGETS, WATCH]),
    (&["backup", "diff"], &[]),
    (&["backup", "fetch"], &[]),
    (&["audit", "list"], &[]),
    (&["audit", "verify"], &[]),
    (&["explain"], &[]),
    (&["completion"], &[]),
    (&["version"], &[]),
];

fn groups_of(words: &[&str]) -> Option<&'static [Group]> {
    COMMANDS.iter().find(|(named, _)| *named == words).map(|(_, groups)| *groups)
}

/// The tree, in which each command shows the global flags that it acts on before its own and hides the others.
#[must_use]
pub fn with_own_flags(root: Command) -> Command {
    let flags: Vec<Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    COMMANDS
        .iter()
        .fold(root, |root, (words, groups)| at(root, words, &|leaf| own_flags(leaf, &flags, groups)))
}

fn at(command: Command, words: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match words {
        [] => change(command),
        [first, rest @ ..] => command.mut_subcommand(first, |next| at(next, rest, change)),
    }
}

/// Places for the flags that come first; a command has fewer than these.
const FIRST: usize = 100;

fn own_flags(leaf: Command, flags: &[Arg], groups: &[Group]) -> Command {
    let mut place = FIRST;
    let leaf = leaf.mut_args(|arg| {
        place += 1;
        if arg.is_positional() { arg } else { arg.display_order(place) }
    });
    JUDGED.iter().copied().flatten().enumerate().fold(leaf, |leaf, (place, id)| {
        let Some(flag) = flags.iter().find(|flag| flag.get_id() == id) else { return leaf };
        let flag = flag.clone();
        leaf.arg(if groups.iter().copied().flatten().any(|used| used == id) {
            flag.hide_short_help(false).help_heading(None::<&str>).display_order(place)
        } else {
            flag.hide(true)
        })
    })
}

/// Commands of the design that this build does not have, by what comes before them: they are refused by name.
const PLANNED: &[(&str, &str)] = &[
    ("", "admin advisory alert baseline context doctor incident signoff site support-bundle tuning verify"),
    ("node", "label approve replace logs wait import export"),
    ("join-token", "list revoke"),
    ("cert", "renew rotate"),
    ("config", "lint"),
    ("profile", "diff"),
    ("procedure", "lint"),
    ("run", "retry rollback report"),
    ("rollout", "start list rollback retry history report"),
    ("backup", "run verify restore-test restore"),
    ("audit", "show export prove prune"),
];

/// Is this word behind these ones a command that is yet to come?
#[must_use]
pub fn is_planned(words: &[&str], word: &str) -> bool {
    let words = words.join(" ");
    PLANNED.iter().any(|(before, next)| *before == words && next.split(' ').any(|next| next == word))
}

/// The command on a line and a flag on it that means nothing to it, such as `--node`.
#[must_use]
pub fn unused_flag(matches: &ArgMatches) -> Option<(String, String)> {
    let (mut words, mut leaf) = (Vec::new(), matches);
    while let Some((word, next)) = leaf.subcommand() {
        words.push(word);
        leaf = next;
    }
    let used = groups_of(&words)?;
    let typed = |id: &&&str| leaf.value_source(id) == Some(ValueSource::CommandLine);
    let unused = JUDGED
        .into_iter()
        .flatten()
        .filter(|id| !used.iter().copied().flatten().any(|used| used == *id))
        .find(typed)?;
    Some((words.join(" "), format!("--{}", unused.replace('_', "-"))))
}

/// The command that a line names, as far as it can be told from a line that cannot be parsed.
#[must_use]
pub fn words_of<'a>(root: &'a Command, args: &[OsString]) -> (Vec<&'a str>, &'a Command) {
    let (mut words, mut at) = (Vec::new(), root);
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        let arg = arg.to_string_lossy();
        if wants_value(root, &arg) || wants_value(at, &arg) {
            // Whatever it is, it names no command: a context may be called "dev".
            rest.next();
        } else if let Some(next) = at.get_subcommands().find(|next| next.get_name() == arg) {
            words.push(next.get_name());
            at = next;
        }
    }
    (words, at)
}

/// Is this a flag of the command whose value is the next word of the line?
fn wants_value(command: &Command, word: &str) -> bool {
    let named = |arg: &Arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.strip_prefix('-').is_some_and(|short| short.chars().eq(arg.get_short())),
    };
    command.get_arguments().any(|arg| named(arg) && arg.get_action().takes_values())
}

/// Is this a flag that the command hides?
#[must_use]
pub fn is_hidden(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|arg| arg.is_hide_set() && arg.get_long() == flag.strip_prefix("--"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_value_names_no_command() {
        let root = Cli::command();
        let words = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            words_of(&root, &args).0.join(" ")
        };
        assert_eq!(words("fleetctl --context dev run start"), "run start");
        assert_eq!(words("fleetctl -l run node list"), "node list");
        assert_eq!(words("fleetctl --context=dev run --site dev wait"), "run wait");
        assert_eq!(words("fleetctl -v dev"), "dev");
    }

    #[test]
    fn every_command_says_which_flags_it_acts_on() {
        fn walk<'a>(command: &'a Command, words: &mut Vec<&'a str>, unnamed: &mut Vec<String>) {
            if !command.has_subcommands() && groups_of(words).is_none() {
                unnamed.push(words.join(" "));
            }
            for next in command.get_subcommands() {
                words.push(next.get_name());
                walk(next, words, unnamed);
                words.pop();
            }
        }
        let mut unnamed = Vec::new();
        walk(&Cli::command(), &mut Vec::new(), &mut unnamed);
        assert_eq!(unnamed, [""; 0], "name them in COMMANDS");
    }

    #[test]
    fn the_tree_is_sound_and_flags_may_stand_anywhere() {
        with_own_flags(Cli::command()).debug_assert();
        for line in [
            "fleetctl --node fw-1 run start p",
            "fleetctl run --node fw-1 start p",
            "fleetctl run start p --node fw-1",
        ] {
            let matches = with_own_flags(Cli::command()).try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(unused_flag(&matches), None, "{line}");
            assert_eq!(matches.get_many::<String>("node").unwrap().collect::<Vec<_>>(), ["fw-1"], "{line}");
        }
    }

    #[test]
    fn what_means_nothing_to_a_command_is_found() {
        for (line, flag) in [
            ("fleetctl audit list --node fw-1", "--node"),
            ("fleetctl --node fw-1 run list", "--node"),
            ("fleetctl run list -l ring=x", "--selector"),
            ("fleetctl whoami --watch", "--watch"),
            ("fleetctl run show r-0000000000 --no-wait", "--no-wait"),
            ("fleetctl login x --dry-run", "--dry-run"),
        ] {
            let matches = with_own_flags(Cli::command()).try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(unused_flag(&matches).map(|(_, flag)| flag).as_deref(), Some(flag), "{line}");
        }
    }
}
