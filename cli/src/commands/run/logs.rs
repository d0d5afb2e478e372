//! `fleetctl run logs`: what steps wrote, resumed by offset when the connection breaks.

use std::time::Duration;

use fleet_proto::pb;
use fleet_types::document::Id;
use fleet_types::id::{Name, RunId};
use serde_json::json;

use super::show;
use super::what::What;
use crate::client::Client;
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
    "interrupted; the run goes on".clone_into(&mut session.when_interrupted);
    let client = session.connect().await?;
    let nodes: Vec<Name> = match what.node {
        Some(node) => vec![node],
        None => show::all_jobs(&client, what.run).await?.into_iter().map(|job| job.node_name).collect(),
    };
    if follow && nodes.len() > 1 {
        let first = &nodes[0];
        return Err(Failure::usage("--follow follows one job")
            .fix(format!("name the node: fleetctl run logs {}/{first} --follow", what.run)));
    }
    for node in &nodes {
        let mut output =
            Output { run: what.run, node, step: step.map_or("", |id| id.as_str()), at: Place::default() };
        if nodes.len() > 1 && session.settings.format.is_human() {
            session.data(&format!("==> {node} <==\n"))?;
        }
        output.print(session, &client, follow).await?;
    }
    Ok(ExitCode::Done)
}

/// How far a job's output has been printed.
#[derive(Debug, Default)]
struct Place {
    step: String,
    offset: u64,
    /// Bytes of a character whose rest is in the next part.
    pending: Vec<u8>,
    /// Steps that were printed to their end.
    done: Vec<String>,
}

struct Output<'a> {
    run: RunId,
    node: &'a Name,
    step: &'a str,
    at: Place,
}

impl Output<'_> {
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
                Ok(()) => return self.flush(session),
                Err(failure)
                    if matches!(failure.exit, ExitCode::NotReachable) && (follow || tries < MAX_TRIES) =>
                {
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
        let is_resumed = !self.at.step.is_empty();
        let step = if self.step.is_empty() { "" } else { self.at.step.as_str() };
        let request = pb::ReadOutputRequest {
            run: self.run.to_string(),
            node: self.node.to_string(),
            step: if is_resumed && !step.is_empty() { step.to_owned() } else { self.step.to_owned() },
            // An offset is a place in one step; all steps begin at the first again and are skipped below.
            offset: if self.step.is_empty() { 0 } else { self.at.offset },
            follow,
        };
        let mut parts = client.read_output(request).await?;
        while let Some(part) = client.next_of_quiet(&mut parts).await? {
            if std::mem::take(tries) > 0 {
                session.say(format!(
                    "the controller is back; resumed at byte {} of step {}",
                    self.at.offset, self.at.step
                ));
            }
            self.take(session, &part)?;
        }
        Ok(())
    }

    /// Prints what of a part is new.
    fn take(&mut self, session: &mut Session<'_>, part: &pb::OutputPart) -> Result<(), Failure> {
        if self.at.done.contains(&part.step) {
            return Ok(());
        }
        if part.step != self.at.step {
            self.flush(session)?;
            if !self.at.step.is_empty() {
                let done = std::mem::take(&mut self.at.step);
                self.at.done.push(done);
            }
            self.at.step.clone_from(&part.step);
            self.at.offset = 0;
            if self.step.is_empty() && session.settings.format.is_human() {
                session.data(&format!("--> {}\n", part.step))?;
            }
        }
        if part.offset > self.at.offset {
            let missing = part.offset - self.at.offset;
            self.flush(session)?;
            session.say(format!("{missing} bytes of step {} were left out by the node", part.step));
            self.at.offset = part.offset;
        }
        let seen = usize::try_from(self.at.offset - part.offset).unwrap_or(usize::MAX);
        let Some(new) = part.data.get(seen..) else { return Ok(()) };
        self.at.offset += new.len() as u64;
        self.emit(session, new, false)
    }

    fn flush(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        self.emit(session, &[], true)
    }

    /// Prints bytes as text; a character cut in two waits for its rest unless this is the end.
    fn emit(&mut self, session: &mut Session<'_>, new: &[u8], is_end: bool) -> Result<(), Failure> {
        let mut bytes = std::mem::take(&mut self.at.pending);
        bytes.extend_from_slice(new);
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
            && !is_end
        {
            self.at.pending = bytes.split_off(error.valid_up_to());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        match session.settings.format {
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name => session.data(&text),
            _ => {
                let value = json!({ "schema": "fleet/v1/output", "run": self.run, "node": self.node, "step": self.at.step, "text": text });
                session.print(&Answer { value, ..Answer::default() })
            }
        }
    }
}
