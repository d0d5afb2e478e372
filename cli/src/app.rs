//! From arguments to exit code, in one function without a child process.

use std::ffi::OsString;
use std::io::Write;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{self, Cli, Command};
use crate::commands;
use crate::environment::Environment;
use crate::error::{self, ExitCode, Failure};
use crate::render::escape::Charset;
use crate::render::{ColorChoice, Paint};
use crate::session::Session;
use crate::settings::Settings;

/// Help is not stretched over very wide terminals: lines over 100 columns are hard to read.
const MAX_HELP_COLUMNS: usize = 100;

/// Runs one invocation; data goes to `out`, talk and errors to `err`. Gives the exit code.
pub fn run<I, T>(args: I, out: &mut dyn Write, err: &mut dyn Write, environment: &Environment) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let outcome = match parse(&args, environment) {
        Ok(cli) => return run_parsed(&cli, out, err, environment).number(),
        Err(Unparsed::Help(text)) => out.write_all(text.as_bytes()).map_err(Failure::from),
        Err(Unparsed::Failure(failure)) => Err(failure),
    };
    let Err(failure) = outcome else { return ExitCode::Done.number() };
    report(&failure, wants_json(&args, environment), ColorChoice::Auto, err, environment).number()
}

/// The command line as fleetctl knows it, for help, completion and documentation.
pub fn command_line(columns: usize) -> clap::Command {
    args::with_own_flags(Cli::command()).term_width(columns.min(MAX_HELP_COLUMNS))
}

fn run_parsed(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write, environment: &Environment) -> ExitCode {
    let settings = match Settings::merged(&cli.global, environment) {
        Ok(settings) => settings,
        Err(failure) => {
            let is_json = cli.global.output.as_ref().is_some_and(crate::render::OutputFormat::is_json);
            return report(&failure, is_json, ColorChoice::Auto, err, environment);
        }
    };
    let (is_json, color) = (settings.format.is_json(), settings.color);
    let mut session = Session::new(settings, environment, out, err);
    let outcome = in_runtime(&mut session, &cli.command);
    match outcome {
        Ok(code) => code,
        Err(failure) => report(&failure, is_json, color, err, environment),
    }
}

fn in_runtime(session: &mut Session<'_>, command: &Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unexpected("the runtime cannot be started", &error))?;
    runtime.block_on(async {
        // It ends its own processes on Ctrl-C, which takes longer than dropping a future.
        if let Command::Dev(args) = command {
            return crate::dev::run(session, args).await;
        }
        let interrupted = tokio::select! {
            // First, so that the signal is listened for before the command has done anything.
            biased;
            signal = tokio::signal::ctrl_c() => signal,
            outcome = commands::run(session, command) => return outcome,
        };
        match interrupted {
            Ok(()) => Err(session.interrupted()),
            Err(error) => Err(Failure::unexpected("ctrl-c cannot be noticed", &error)),
        }
    })
}

/// The one place where a failure is told.
fn report(
    failure: &Failure,
    is_json: bool,
    color: ColorChoice,
    err: &mut dyn Write,
    environment: &Environment,
) -> ExitCode {
    if !failure.is_silent() {
        let text = if is_json {
            error::json(failure) + "\n"
        } else {
            let paint = Paint::new(color, environment.stderr_is_terminal, environment);
            Charset::of(environment).fit(&error::text(failure, paint)).into_owned()
        };
        // When stderr is gone too, the exit code still tells.
        let _ = err.write_all(text.as_bytes());
    }
    failure.exit
}

enum Unparsed {
    Help(String),
    Failure(Failure),
}

fn parse(args: &[OsString], environment: &Environment) -> Result<Cli, Unparsed> {
    let mut tree = command_line(environment.columns());
    let matches = tree.try_get_matches_from_mut(args).map_err(|error| unparsed(&error, &tree, args))?;
    if let Some((command, flag)) = args::unused_flag(&matches) {
        let what = format!("{flag} means nothing to \"fleetctl {command}\"");
        return Err(Unparsed::Failure(Failure::usage(what).fix(format!("fleetctl {command} --help"))));
    }
    Cli::from_arg_matches(&matches).map_err(|error| unparsed(&error, &tree, args))
}

fn unparsed(error: &clap::Error, tree: &clap::Command, args: &[OsString]) -> Unparsed {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Unparsed::Help(text);
    }
    let (words, at) = args::words_of(tree, args);
    let command = [&["fleetctl"], &words[..]].concat().join(" ");
    if let Some(word) = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string)
        && args::is_planned(&words, &word)
    {
        let what = format!("\"{command} {word}\" is not built yet");
        return Unparsed::Failure(Failure::new(ExitCode::Blocked, "not-built", what));
    }
    let help = format!("{command} --help");
    if matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let verbs = at.get_subcommands().map(clap::Command::get_name);
        let verbs: Vec<_> = verbs.filter(|verb| *verb != "help").collect();
        let what = format!("\"{command}\" wants one of: {}", verbs.join(", "));
        return Unparsed::Failure(Failure::usage(what).fix(help));
    }
    // clap says `error: what`, indented details, `tip: …` lines and the usage, and quotes with apostrophes.
    let text = text.replace('\'', "\"");
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage: "));
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let (tips, what): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("tip: "));
    let what: Vec<_> = what.into_iter().map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect();
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .filter_map(|kind| error.get(kind))
        .map(ToString::to_string)
        // What looks like a mistyped word may be near to a flag that this command refuses.
        .filter(|meant| !args::is_hidden(at, meant))
        .map(|meant| format!("did you mean \"{meant}\"?"));
    let others =
        tips.iter().filter(|tip| !tip.contains("similar")).map(|tip| tip["tip: ".len()..].to_owned());
    let what = what.join(" ");
    let what = match what.split_once(" [possible values: ") {
        Some((value, words)) => format!("{value}: expected one of {}", words.trim_end_matches(']')),
        None => what,
    };
    let failure = meant.chain(others).fold(Failure::usage(what), Failure::fix);
    Unparsed::Failure(failure.fix(help))
}

/// Whether errors are to be JSON when the line could not be parsed.
fn wants_json(args: &[OsString], environment: &Environment) -> bool {
    let is_json = |text: &str| matches!(text, "json" | "jsonl");
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let mut typed = words.iter().enumerate().filter_map(|(n, word)| match word.as_ref() {
        "-o" | "--output" => words.get(n + 1).map(AsRef::as_ref),
        word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
    });
    typed.next_back().map_or_else(|| environment.get("FLEET_OUTPUT").is_some_and(is_json), is_json)
}
