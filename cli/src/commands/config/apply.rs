//! `fleetctl config apply`.

use std::path::PathBuf;

use fleet_documents::{ParsedSet, Problem, to_canonical_json};
use fleet_types::view::ApplyView;

use super::read::{applied_documents, checked};
use crate::client::{Client, SourceDocument};
use crate::commands::files::{self, TextFile};
use crate::confirm::{Danger, confirm};
use crate::context::{Revision, Seen, Sighting};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Tone, units};
use crate::session::Session;
use crate::signing::Signer;

/// Checks, shows what would change, asks, signs and stores.
pub async fn apply(session: &mut Session<'_>, paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let ready = Ready::of(session, paths).await?;
    if session.settings.dry_run || ready.changed() == 0 {
        session.print(&answer(&ready.preview))?;
        return Ok(ExitCode::Done);
    }
    ready.check_reason()?;
    let doing = format!("apply {}", units::count(ready.changed(), "changed document"));
    // A file that cannot be read is told before anything is stored.
    Seen::load(&session.context()?.seen_file())?;
    confirm(session, &Danger::Moderate, &doing, &answer(&ready.preview)).await?;
    let stored = ready.store(session).await?;
    session.print(&answer(&stored))?;
    Ok(ExitCode::Done)
}

/// Documents that were checked and signed, and what the controller would make of them. Nothing is stored yet.
pub struct Ready {
    /// The way to the controller.
    pub client: Client,
    /// The key that signed them.
    pub signer: Signer,
    /// What the files hold.
    pub set: ParsedSet,
    /// As they are sent.
    pub documents: Vec<SourceDocument>,
    /// What would change.
    pub preview: ApplyView,
    reason: String,
}

impl Ready {
    /// Reads, checks and signs files, and says what is worth a warning.
    pub async fn of(session: &mut Session<'_>, paths: &[PathBuf]) -> Result<Self, Failure> {
        let texts = files::read(paths)?;
        let signer = Signer::load(&session.context()?)?;
        let client = session.connect().await?;
        let applied = applied_documents(&client).await?;
        let set = checked(&texts, &applied)?;
        if set.documents.is_empty() {
            let what = "none of the files holds a document";
            return Err(Failure::new(ExitCode::NotFound, "no-documents", what));
        }
        let documents = signed(&signer, &set, &texts)?;
        let warnings: Vec<String> = set.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            session.say(format!("warning: {warning}"));
        }
        let reason = session.settings.reason.clone().unwrap_or_default();
        let preview = client.apply(&documents, &reason, true).await?;
        for warning in preview.warnings.iter().filter(|warning| !warnings.contains(warning)) {
            session.say(format!("warning: {warning}"));
        }
        Ok(Self { client, signer, set, documents, preview, reason })
    }

    /// How many of them are new or changed.
    pub fn changed(&self) -> usize {
        self.preview.items.iter().filter(|item| item.action != "unchanged").count()
    }

    /// Some warnings ask for a reason.
    pub fn check_reason(&self) -> Result<(), Failure> {
        if !self.reason.trim().is_empty() || !self.set.warnings.iter().any(Problem::needs_reason) {
            return Ok(());
        }
        Err(Failure::new(
            ExitCode::Confirmation,
            "reason-needed",
            "documents with warnings are applied with a reason only; nothing was stored",
        )
        .fix("mend what the warnings say, or add --reason TEXT"))
    }

    /// Stores them, and remembers what was shown.
    pub async fn store(&self, session: &mut Session<'_>) -> Result<ApplyView, Failure> {
        let stored = self.client.apply(&self.documents, &self.reason, false).await?;
        let documents = stored.items.iter().filter_map(|item| {
            let revision = Revision { revision: item.revision, digest: item.digest };
            Some((item.kind.parse().ok()?, item.name.clone(), revision))
        });
        let shown = Sighting { documents: documents.collect(), ..Sighting::default() };
        if let Err(failure) = Seen::keep(&session.context()?.seen_file(), &shown) {
            session.say(format!("warning: stored, and not remembered on this machine: {}", failure.what));
        }
        Ok(stored)
    }
}

fn signed(signer: &Signer, set: &ParsedSet, texts: &[TextFile]) -> Result<Vec<SourceDocument>, Failure> {
    let mut documents = Vec::new();
    for parsed in &set.documents {
        let bytes = to_canonical_json(&parsed.document)
            .map_err(|error| Failure::usage(format!("{} cannot be written", parsed.file)).because(&error))?;
        let source = texts.iter().find(|file| file.name == parsed.file).map(|file| file.text.clone());
        documents.push(SourceDocument {
            envelope: signer.document(bytes),
            source: source.unwrap_or_default(),
            source_name: parsed.file.clone(),
        });
    }
    Ok(documents)
}

fn answer(view: &ApplyView) -> Answer {
    let mut table = Table::new(&[
        Column::whole("ACTION"),
        Column::whole("KIND"),
        Column::whole("NAME"),
        Column::number("REVISION"),
        Column::whole("DIGEST").wide(),
    ]);
    for item in &view.items {
        let tone = if item.action == "unchanged" { Tone::Dim } else { Tone::Good };
        table.row([
            Cell::toned(tone, item.action.as_str()),
            item.kind.as_str().into(),
            item.name.as_str().into(),
            item.revision.to_string().into(),
            item.digest.to_string().into(),
        ]);
    }
    let changed = view.items.iter().filter(|item| item.action != "unchanged").count();
    let word = if view.dry_run { "would change" } else { "changed" };
    Answer::of(view)
        .names(view.items.iter().map(|item| format!("{}/{}", item.kind, item.name)))
        .table(table, "nothing to apply")
        .line(format!("{changed} of {} {word}", units::count(view.items.len(), "document")))
}
