//! `fleetctl node packages`: what a node has installed, as it says itself.

use fleet_types::id::Name;
use fleet_types::view::{NodePackages, PackageItem};

use super::watching;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;

/// Shows one node's packages; `newer` those alone of which an archive of the node has a newer version.
pub async fn run(session: &mut Session<'_>, name: &Name, newer: bool) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| {
        let mut whole = client.node_packages(name, String::new()).await?;
        while let Some(after) = whole.next.take() {
            let page = client.node_packages(name, after).await?;
            // One that changed meanwhile is another list: what was read of both is none.
            if page.digest != whole.digest {
                let what = "the packages of the node changed while they were read";
                return Err(Failure::new(ExitCode::Conflict, "changed-meanwhile", what).fix("ask again"));
            }
            whole.items.extend(page.items);
            whole.next = page.next;
        }
        if newer {
            whole.items.retain(|item| item.available.is_some() || !item.old_files_in.is_empty());
        }
        Ok(answer(&whole, newer, &session.times()))
    })
    .await
}

fn answer(packages: &NodePackages, newer: bool, times: &Times) -> Answer {
    let mut fields = vec![
        ("node", Cell::from(packages.node.as_str())),
        ("system", format!("{} {}", packages.os, packages.os_version).into()),
        ("packages", packages.count.to_string().into()),
        (
            "as of",
            format!("{}, unchanged since {}", times.show(packages.heard), times.show(packages.since)).into(),
        ),
    ];
    if let Some(running) = &packages.running_kernel {
        let newest = packages.newest_kernel.as_ref().filter(|newest| !newest.ends_with(running.as_str()));
        let cell = match newest {
            Some(newest) => {
                Cell::toned(Tone::Warn, format!("{running} runs, {newest} is the newest installed"))
            }
            None => running.as_str().into(),
        };
        fields.push(("kernel", cell));
    }
    if packages.reboot_pending {
        fields.push(("reboot", Cell::toned(Tone::Warn, "a package asks for one")));
    }
    let archives = match &packages.archives_unknown {
        Some(why) => Cell::toned(Tone::Warn, format!("not known what they have: {why}")),
        None => units::count(packages.newer as usize, "newer version").into(),
    };
    fields.push(("archives", archives));
    let mut table = Table::new(&[
        Column::text("PACKAGE"),
        Column::whole("VERSION"),
        Column::whole("NEWER"),
        Column::text("OLD FILES IN"),
        Column::whole("ARCH").wide(),
        Column::text("SOURCE").wide(),
        Column::whole("SOURCE VERSION").wide(),
        Column::text("ORIGIN").wide(),
    ]);
    for item in &packages.items {
        table.row(row(item));
    }
    let nothing = if newer { "nothing newer, and no service runs an old file" } else { "no packages" };
    Answer::of(packages)
        .names(packages.items.iter().map(|item| item.name.clone()))
        .block(Block::Fields(fields))
        .block(Block::Gap)
        .table(table, nothing)
}

fn row(item: &PackageItem) -> [Cell; 8] {
    let old = item.old_files_in.join(", ");
    [
        item.name.as_str().into(),
        item.version.as_str().into(),
        item.available.as_ref().map_or_else(|| "-".into(), |newer| Cell::toned(Tone::Warn, newer.as_str())),
        if old.is_empty() { "-".into() } else { Cell::toned(Tone::Warn, old) },
        item.architecture.as_str().into(),
        item.source.as_str().into(),
        item.source_version.as_str().into(),
        item.origin.as_str().into(),
    ]
}
