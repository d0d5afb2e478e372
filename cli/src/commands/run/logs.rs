//! `fleetctl run logs`: what steps wrote, resumed by offset when the connection breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::digest::Hasher;
use fleet_types::document::Id;
use fleet_types::id::{Name, RunId};
use fleet_types::report::Report;
use serde::Serialize;
use serde_json::json;

use super::show;
use super::what::What;
use crate::client::{Client, Part};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, OutputFormat};
use crate::session::Session;

/// Pause before a broken stream is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// Broken streams in a row before a command without `--follow` gives up.
const MAX_TRIES: u32 = 3;

/// Prints the output of one job, or of all jobs one after the other.
pub async fn run(
    session: &mut Session<'_>,
    what: &str,
    step: Option<&Id>,
    follow: bool,
) -> Result<ExitCode, Failure> {
    let what = What::parse(what)?;
    session.when_interrupted = None;
    let client = session.connect().await?;
    let nodes: Vec<Name> = match what.node {
        Some(node) => {
            // A job that does not exist has no output either, and would pass for a silent one.
            show::get_job(&client, what.run, &node).await?;
            vec![node]
        }
        None => show::all_jobs(&client, what.run).await?.into_iter().map(|job| job.node_name).collect(),
    };
    if follow && nodes.len() > 1 {
        let first = &nodes[0];
        return Err(Failure::usage("--follow follows one job")
            .fix(format!("name the node: fleetctl run logs {}/{first} --follow", what.run)));
    }
    let is_one_document = !is_text(session) && session.settings.format != OutputFormat::JsonLines;
    if follow && is_one_document {
        return Err(Failure::usage("--follow has no end that one document could wait for")
            .fix("add -o jsonl, a line for each piece of output"));
    }
    let mut items = Vec::new();
    let mut fits = true;
    for node in &nodes {
        let mut output = Output::new(what.run, node, step.map_or("", Id::as_str));
        if nodes.len() > 1 && session.settings.format.is_human() {
            session.data(&format!("==> {node} <==\n"))?;
        }
        let environment = session.environment;
        tokio::select! {
            printed = output.print(session, &client, follow) => printed?,
            () = environment.until_reader_gone() => return Err(Failure::reader_gone()),
        }
        items.append(&mut output.items);
        let job = show::get_job(&client, what.run, node).await?;
        if let Some(report) = &job.report {
            for why in output.against(report) {
                fits = false;
                session.say(format!("{}/{node}: {why}", what.run));
            }
        }
    }
    if is_one_document {
        session.print(&Answer::local("fleet/v1/output-list", &json!({ "items": items })))?;
    }
    Ok(if fits { ExitCode::Done } else { ExitCode::Verification })
}

/// What one step wrote.
#[derive(Debug, Clone, Serialize)]
struct Item {
    run: RunId,
    node: Name,
    step: String,
    text: String,
}

/// The output of one job, as far as it has been printed.
struct Output<'a> {
    run: RunId,
    node: &'a Name,
    /// The one step that was asked for; empty for all.
    only: &'a str,
    /// The step that is being printed.
    current: String,
    /// Bytes printed of each step.
    offsets: BTreeMap<String, u64>,
    /// What was printed of each step, for comparing it with the node's signed report.
    printed: BTreeMap<String, Hasher>,
    /// Bytes of a character whose rest is in the next part.
    pending: Vec<u8>,
    /// What goes into one document at the end, where that is asked for.
    items: Vec<Item>,
}

impl<'a> Output<'a> {
    const fn new(run: RunId, node: &'a Name, only: &'a str) -> Self {
        Self {
            run,
            node,
            only,
            current: String::new(),
            offsets: BTreeMap::new(),
            printed: BTreeMap::new(),
            pending: Vec::new(),
            items: Vec::new(),
        }
    }

    /// What of the output is not what the node's report says. Compared is the output as the node sends it: whole, or
    /// head and tail of which the report has the digest too. Nothing that comes with the output changes that.
    fn against(mut self, report: &Report) -> Vec<String> {
        let mut wrong = Vec::new();
        for step in report.steps.iter().filter(|step| self.only.is_empty() || step.id == self.only) {
            let id = &step.id;
            match (self.printed.remove(id).map(Hasher::finish), step.sent_output()) {
                (printed, reported) if printed == reported => {}
                (None, _) => {
                    wrong.push(format!("step {id} has output by the report, and none of it is here"));
                }
                // It printed nothing, or an agent's restart has lost count of it: which, nobody can tell here.
                (_, None) => wrong.push(format!("the report says nothing of the output of step {id}")),
                _ => wrong.push(format!("the output of step {id} does not match the report")),
            }
        }
        let unknown = self.printed.into_keys();
        wrong.extend(unknown.map(|step| format!("the output of step {step} does not match the report")));
        wrong
    }

    async fn print(
        &mut self,
        session: &mut Session<'_>,
        client: &Client,
        follow: bool,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        let mut pause = tokio::time::interval(RETRY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            match self.read(session, client, follow, &mut tries).await {
                Ok(()) => {
                    if self.offsets.is_empty() {
                        session.say(format!("no output of {}/{}", self.run, self.node));
                    }
                    return self.flush(session);
                }
                Err(failure) if failure.exit == ExitCode::NotReachable && (follow || tries < MAX_TRIES) => {
                    if tries == 0 {
                        session.say(format!("lost the controller ({}); trying again", failure.what));
                    }
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One stream, from where the last one broke.
    async fn read(
        &mut self,
        session: &mut Session<'_>,
        client: &Client,
        follow: bool,
        tries: &mut u32,
    ) -> Result<(), Failure> {
        // An offset is a place in one step; all steps come from their beginning, and what was printed is left
        // out below.
        let offset = self.offsets.get(self.only).copied().unwrap_or_default();
        let mut parts = client.read_output((self.run, self.node), self.only, offset, follow).await?;
        while let Some(part) = parts.next().await? {
            if std::mem::take(tries) > 0 {
                let at = self.offsets.get(&self.current).copied().unwrap_or_default();
                session.say(format!("the controller is back; resumed step {} at byte {at}", self.current));
            }
            self.take(session, &part)?;
        }
        Ok(())
    }

    /// Prints what of a part is new.
    fn take(&mut self, session: &mut Session<'_>, part: &Part) -> Result<(), Failure> {
        let at = self.offsets.get(&part.step).copied().unwrap_or_default();
        let end = part.offset + part.data.len() as u64;
        if end <= at {
            return Ok(());
        }
        if part.step != self.current {
            self.flush(session)?;
            self.current.clone_from(&part.step);
            if self.only.is_empty() && is_text(session) {
                session.data(&format!("--> {}\n", part.step))?;
            }
        }
        if part.offset > at {
            self.flush(session)?;
            session.say(format!("{} bytes of step {} were left out", part.offset - at, part.step));
        }
        self.offsets.insert(part.step.clone(), end);
        let seen = usize::try_from(at.saturating_sub(part.offset)).unwrap_or(usize::MAX);
        let new = part.data.get(seen..).unwrap_or_default();
        self.printed.entry(part.step.clone()).or_default().update(new);
        self.emit(session, new, false)
    }

    fn flush(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        self.emit(session, &[], true)
    }

    /// Prints bytes as text; a character cut in two waits for its rest unless this is the end.
    fn emit(&mut self, session: &mut Session<'_>, new: &[u8], is_end: bool) -> Result<(), Failure> {
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(new);
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
            && !is_end
        {
            self.pending = bytes.split_off(error.valid_up_to());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        if is_text(session) {
            return session.data(&text);
        }
        if session.settings.format != OutputFormat::JsonLines {
            match self.items.last_mut().filter(|item| item.step == self.current) {
                Some(item) => item.text.push_str(&text),
                None => self.items.push(self.item(&text)),
            }
            return Ok(());
        }
        let answer = Answer::local("fleet/v1/output", &self.item(&text));
        session.print(&answer)
    }

    fn item(&self, text: &str) -> Item {
        let (node, step) = (self.node.clone(), self.current.clone());
        Item { run: self.run, node, step, text: text.to_owned() }
    }
}

fn is_text(session: &Session<'_>) -> bool {
    session.settings.format.is_human() || session.settings.format == OutputFormat::Name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::settings::Settings;
    use fleet_types::time::Timestamp;

    fn printed(parts: &[(&str, u64, &[u8])]) -> (String, String) {
        let environment = Environment::fixed(&[], || Timestamp::clamped(0));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut session = Session::new(Settings::default(), &environment, &mut out, &mut err);
        let node: Name = "fw-1".parse().unwrap();
        let mut output = Output::new(RunId::from_number(1), &node, "");
        for (step, offset, data) in parts {
            let part = Part { step: (*step).to_owned(), offset: *offset, data: data.to_vec() };
            output.take(&mut session, &part).unwrap();
        }
        output.flush(&mut session).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn what_comes_twice_is_printed_once() {
        let (out, _) = printed(&[
            ("a", 0, b"one\n"),
            ("b", 0, b"two\n"),
            // The stream broke and began again from the first step.
            ("a", 0, b"one\n"),
            ("b", 0, b"two\nthree\n"),
        ]);
        assert_eq!(out, "--> a\none\n--> b\ntwo\nthree\n");
    }

    #[test]
    fn a_gap_is_told_and_hostile_output_is_escaped() {
        let (out, err) = printed(&[("a", 0, b"x\x1b[2J\t\xff\n"), ("a", 100, "\u{202e}y".as_bytes())]);
        assert_eq!(out, "--> a\nx\\u{1b}[2J\t\u{fffd}\n\\u{202e}y");
        assert_eq!(err, "92 bytes of step a were left out\n");
    }

    #[test]
    fn a_character_cut_in_two_stays_one() {
        let (out, _) = printed(&[("a", 0, b"gr\xc3"), ("a", 3, b"\xbcn\xe2")]);
        assert_eq!(out, "--> a\ngr\u{fc}n\u{fffd}");
    }
}
