//! The shipped procedures of a guide, made to run with what this build has. The rule, and all that it leaves out, is told.
//!
//! A step that uses an action which is not built, and a step for a person, is taken out whole with the steps of the way back that
//! belong to it; what is left is the shipped text to the byte, but for the time that a gate watches a node: minutes are made
//! seconds. Nothing in the shipped files is ever changed.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fleet_types::action::BUILT;

/// How long a gate watches here.
const WATCHED: &str = "stable_for = \"2s\"";

/// What one procedure runs without, by the ids of its steps.
#[derive(Debug)]
pub struct LeftOut {
    pub procedure: String,
    pub steps: Vec<String>,
}

/// Copies a guide's documents to `to`, each procedure as it can run here.
pub fn runnable(guide: &str, to: &Path) -> Result<Vec<LeftOut>> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/profiles").join(guide);
    let procedures = to.join("procedures");
    std::fs::create_dir_all(&procedures)?;
    std::fs::copy(from.join("profile.toml"), to.join("profile.toml"))?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(from.join("procedures"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name that is no text")?;
        let (text, steps) =
            of_this_build(&std::fs::read_to_string(&path)?).with_context(|| format!("{name} of {guide}"))?;
        // One that is for people alone has nothing left.
        if text.contains("\n[[step]]") {
            std::fs::write(procedures.join(format!("{name}.toml")), text)?;
        }
        all.push(LeftOut { procedure: name.to_owned(), steps });
    }
    Ok(all)
}

/// Says what a procedure runs without, and refuses to leave out more than the story knows of.
pub fn says_what_is_left_out(all: &[LeftOut], procedure: &str, known: &[&str]) -> Result<()> {
    let left_out = all.iter().find(|one| one.procedure == procedure).context("no such procedure")?;
    eprintln!("LEFT OUT of {procedure}, not built yet: {}", left_out.steps.join(", "));
    let unknown: Vec<_> = left_out.steps.iter().filter(|step| !known.contains(&step.as_str())).collect();
    ensure!(unknown.is_empty(), "{procedure} would run without {unknown:?}");
    Ok(())
}

/// The text without what this build lacks, and the ids that it is without.
fn of_this_build(text: &str) -> Result<(String, Vec<String>)> {
    let mut kept = String::with_capacity(text.len());
    let mut left_out = Vec::new();
    // A step goes from its header to the next one.
    for (at, part) in text.split("\n[[").enumerate() {
        let part = if at == 0 { part.to_owned() } else { format!("\n[[{part}") };
        let table: toml::Table = toml::from_str(&part)?;
        let steps = ["step", "rollback", "finally"].iter().filter_map(|kind| table.get(*kind)?.as_array());
        let step = steps.flatten().next().and_then(toml::Value::as_table);
        let text_of = |key: &str| step.and_then(|step| step.get(key)?.as_str());
        let lacks =
            text_of("kind") == Some("manual") || text_of("uses").is_some_and(|uses| !BUILT.contains(&uses));
        if lacks {
            left_out.push(text_of("id").context("a step without an id")?.to_owned());
        } else {
            kept.push_str(&seconds(&part));
        }
    }
    Ok((kept, left_out))
}

/// The text with each `stable_for` made short.
fn seconds(text: &str) -> String {
    let mut parts = text.split("stable_for = \"");
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        short.push_str(WATCHED);
        short.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
    }
    short
}

#[test]
fn what_is_not_built_is_left_out_and_nothing_else_is_touched() -> Result<()> {
    let head = "name = \"x\"\n\n";
    let stays = "\n[[step]]\nid = \"a\"\nkind = \"gate\" # why\nuses = \"health.check\"\n";
    let manual = "\n[[step]]\nid = \"b\"\nkind = \"manual\"\n";
    let unbuilt = "\n[[finally]]\nid = \"c\"\nuses = \"not.built\"\n";
    let watched =
        "\n[[rollback]]\nid = \"d\"\nuses = \"health.check\"\nwith = { stable_for = \"10m\" } # x\n";
    let (kept, left_out) = of_this_build(&[head, stays, manual, unbuilt, watched].concat())?;
    assert_eq!(left_out, ["b", "c"]);
    assert_eq!(kept, [head, stays, &watched.replace("10m", "2s")].concat());
    Ok(())
}
