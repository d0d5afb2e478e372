//! What the machine boots next, and how it boots a kernel once: GRUB's menu and its block of variables.
//!
//! `grub-mkconfig` writes the menu, the newest kernel first; `grub-editenv` alone writes the block, as grub-reboot(8) and
//! grub-set-default(8) do. Touches nothing else. Called by `reboot`.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_types::report::TaskReport;
use serde::{Deserialize, Serialize};

use super::contract::{TaskContext, TaskError};
use super::programs;
use crate::host::{FileProblem, Invocation, Purpose, UnitName, read_all};

const MENU: &str = "/boot/grub/grub.cfg";
const BLOCK: &str = "/boot/grub/grubenv";
const EDITOR: &str = "grub-editenv";
/// What GRUB boots where nothing else was asked for, and what it boots once.
const SAVED: &str = "saved_entry";
const ONCE: &str = "next_entry";
/// A menu of 200 kernels is a quarter of this.
const MAX_MENU_BYTES: u64 = 4 * 1024 * 1024;
/// Editing a file of a kilobyte.
const EDITOR_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A kernel that is to be tried once, and the one that comes back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial {
    /// Its release.
    pub(super) release: String,
    /// Its entry in the menu.
    entry: String,
    /// The entry of the kernel that runs now.
    former_entry: String,
    /// What was saved before; none where the first entry was booted.
    saved: Option<String>,
}

/// What a restart would boot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The kernel that runs.
    Same,
    /// Another one, once.
    Trial(Trial),
    /// Another one for good: why not once.
    ForGood(String),
}

/// An entry of the menu that boots a kernel as usual.
struct Entry {
    release: String,
    /// Ids from the outermost menu inwards, as GRUB wants them.
    path: String,
}

/// Reads what a restart would boot.
pub(super) fn next(context: &TaskContext<'_>, running: &str) -> Result<Next, TaskError> {
    let unread = |why: String| TaskError::failed(format!("{why}; nothing was done"), TaskReport::default());
    let menu = match read_all(context.host.files(), Path::new(MENU), MAX_MENU_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.problem == FileProblem::NotFound => {
            let others = other_kernels(context, running);
            return Ok(match others.first() {
                None => Next::Same,
                Some(other) => Next::ForGood(format!("kernel {other} is installed and there is no {MENU}")),
            });
        }
        Err(error) => return Err(unread(error.to_string())),
    };
    let entries = entries(&menu);
    let Some(newest) = entries.first() else {
        return Ok(Next::ForGood(format!("no kernel is found in {MENU}")));
    };
    if newest.release == running {
        return Ok(Next::Same);
    }
    // The entry of its own: the one at the top of the menu is always the newest kernel.
    let own = |release: &str| entries.iter().find(|e| e.release == release && e.path.contains(release));
    let (Some(wanted), Some(former)) = (own(&newest.release), own(running)) else {
        let why = format!("{MENU} has no entry of its own for kernel {running} or {}", newest.release);
        return Ok(Next::ForGood(why));
    };
    if !menu.lines().any(|line| line.trim() == "set default=\"${saved_entry}\"") {
        let why = "GRUB_DEFAULT is not \"saved\" in /etc/default/grub (then run update-grub)";
        return Ok(Next::ForGood(why.to_owned()));
    }
    if let Some(why) = unwritable(context) {
        return Ok(Next::ForGood(why));
    }
    let saved = variables(context)?.remove(SAVED);
    Ok(Next::Trial(Trial {
        release: newest.release.clone(),
        entry: wanted.path.clone(),
        former_entry: former.path.clone(),
        saved,
    }))
}

/// Kernels with an image that are not the one which runs.
fn other_kernels(context: &TaskContext<'_>, running: &str) -> Vec<String> {
    let images = context.host.files().list(Path::new("/boot")).unwrap_or_default();
    let releases =
        images.iter().filter_map(|image| image.path.file_name()?.to_str()?.strip_prefix("vmlinuz-"));
    releases.filter(|release| *release != running).map(str::to_owned).collect()
}

/// GRUB itself takes the entry of once back when it boots, so it must be able to write the block: it cannot through
/// device mapper, RAID, btrfs and ZFS (GRUB manual, "The GRUB environment block").
fn unwritable(context: &TaskContext<'_>) -> Option<String> {
    let mounts = context.host.system().mounts().unwrap_or_default();
    let mount = mounts.iter().filter(|mount| Path::new(BLOCK).starts_with(&mount.path));
    let Some(mount) = mount.max_by_key(|mount| mount.path.len()) else {
        return Some(format!("the disk that {BLOCK} lies on is not known"));
    };
    let device = Path::new(&mount.device);
    let mapped = device.starts_with("/dev/mapper")
        || device.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            ["dm-", "md"].iter().any(|kind| name.starts_with(kind)) || mount.device.starts_with("/dev/md")
        });
    let kind = mount.kind.as_str();
    (mapped || matches!(kind, "btrfs" | "zfs"))
        .then(|| format!("GRUB cannot write {BLOCK} on {} ({kind})", mount.device))
}

/// The entries that boot a kernel as usual, in the order of the menu.
fn entries(menu: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    // Ids of the open menus; none for what is none.
    let mut open: Vec<Option<String>> = Vec::new();
    for line in menu.lines().map(str::trim) {
        let is_menu = line.starts_with("submenu ") || line.starts_with("menuentry ");
        if line.ends_with('{') {
            open.push(is_menu.then(|| id_of(line)).flatten());
        } else if line == "}" {
            open.pop();
        } else if let Some(release) = release_of(line) {
            let path: Option<Vec<&str>> = open.iter().map(Option::as_deref).collect();
            let path = path.unwrap_or_default().join(">");
            if !path.is_empty() && !path.contains("-recovery-") {
                entries.push(Entry { release, path });
            }
        }
    }
    entries
}

/// `menuentry 'Debian' --class os $menuentry_id_option 'gnulinux-simple' {`
fn id_of(line: &str) -> Option<String> {
    let (_, after) = line.split_once("$menuentry_id_option '")?;
    after.split_once('\'').map(|(id, _)| id.to_owned())
}

/// `linux /boot/vmlinuz-6.1.0-18-amd64 root=UUID=… ro quiet`
fn release_of(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| matches!(*word, "linux" | "linux16" | "linuxefi"))?;
    let image = words.next()?.rsplit('/').next()?;
    image.strip_prefix("vmlinuz-").map(str::to_owned)
}

impl Trial {
    /// Has it booted once, and the kernel that runs whenever that does not come to its end.
    pub(super) fn prepare(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        set(context, "prepare", &[(SAVED, Some(&self.former_entry)), (ONCE, Some(&self.entry))])
    }

    /// It stays: what was booted by default is so again.
    pub(super) fn keep(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        let saved = self.saved.as_ref().map(|_| self.entry.as_str());
        set(context, "keep", &[(SAVED, saved), (ONCE, None)])
    }

    /// The former kernel is booted from now on.
    pub(super) fn pin_former(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        set(context, "pin", &[(SAVED, Some(&self.former_entry)), (ONCE, None)])
    }

    /// All is as it was before.
    pub(super) fn forget(&self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        set(context, "forget", &[(SAVED, self.saved.as_deref()), (ONCE, None)])
    }
}

/// Writes variables and sees that they are written; nothing where they are so already.
fn set(context: &TaskContext<'_>, part: &str, wanted: &[(&str, Option<&str>)]) -> Result<(), TaskError> {
    let is = |now: &BTreeMap<String, String>| {
        wanted
            .iter()
            .all(|(name, value)| now.get(*name).map(String::as_str).filter(|v| !v.is_empty()) == *value)
    };
    if is(&variables(context)?) {
        return Ok(());
    }
    for (name, value) in wanted {
        let argument = value.map_or_else(|| (*name).to_owned(), |value| format!("{name}={value}"));
        let verb = if value.is_some() { "set" } else { "unset" };
        let unit = UnitName::new(context.step, &programs::part(context, &format!("{part}-{name}")));
        edit(context, &[verb, &argument], Purpose::Effect(&unit))?;
    }
    let now = variables(context)?;
    if is(&now) {
        return Ok(());
    }
    Err(TaskError::failed(format!("{BLOCK} was written and says {now:?}"), TaskReport::default()))
}

fn variables(context: &TaskContext<'_>) -> Result<BTreeMap<String, String>, TaskError> {
    let listed = edit(context, &["list"], Purpose::ReadOnly)?;
    let pairs = listed.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn edit(context: &TaskContext<'_>, what: &[&str], purpose: Purpose<'_>) -> Result<String, TaskError> {
    let block = programs::on_machine(context, Path::new(BLOCK)).display().to_string();
    let argv = [EDITOR, &block].iter().chain(what).map(|&word| word.to_owned()).collect();
    let outcome = programs::run(context, &Invocation::new(argv, EDITOR_LIMIT), purpose)
        .map_err(|error| programs::broken(&error, TaskReport::default()))?;
    if outcome.exit.is_success() {
        return Ok(String::from_utf8_lossy(&outcome.output).into_owned());
    }
    let output_tail = programs::tail(&outcome.output);
    let message = format!("{EDITOR} {}: {}", what.join(" "), outcome.exit);
    Err(TaskError::failed(message, TaskReport { output_tail, ..TaskReport::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shaped as grub-mkconfig of Debian 12 writes it.
    pub(in crate::tasks) const MENU_OF_TWO: &str = include_str!("boot_loader_test.cfg");

    #[test]
    fn kernels_are_found_with_their_path_and_without_recovery() {
        let found = entries(MENU_OF_TWO);
        let found: Vec<_> = found.iter().map(|e| (e.release.as_str(), e.path.as_str())).collect();
        let inner = |release: &str| format!("gnulinux-advanced-0f1e>gnulinux-{release}-advanced-0f1e");
        let (new, old) = (inner("6.1.0-28-amd64"), inner("6.1.0-25-amd64"));
        assert_eq!(
            found,
            [
                ("6.1.0-28-amd64", "gnulinux-simple-0f1e"),
                ("6.1.0-28-amd64", new.as_str()),
                ("6.1.0-25-amd64", old.as_str())
            ]
        );
    }
}
