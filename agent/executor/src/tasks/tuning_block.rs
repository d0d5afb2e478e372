//! Settings of `[tuning.*]` of kind `block`: the queues of the disks under a mount point, and the udev rule that holds
//! them over a restart. Called by `tuning_apply`.
//!
//! A disk is found from the mount point each time and never by its name, which changes from one start to the next.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Persist, Tuning};
use fleet_types::document::value::Value;

use super::contract::TaskContext;
use super::fill::Filler;
use super::tuning_mount;
use super::tuning_setting::Setting;
use crate::host::{FileProblem, Files, read_all};

/// Volumes on volumes on disks: more layers than anybody builds.
const MAX_LAYERS: usize = 8;
/// A file of sysfs is one page; udev's record of a disk is some lines.
const MAX_BYTES: u64 = 64 * 1024;
/// What udev knows a disk by, best first.
const STABLE: [&str; 4] = ["ID_SERIAL", "ID_WWN", "ID_SERIAL_SHORT", "ID_PATH"];

/// The settings of every disk under the mount point.
pub(super) fn settings(context: &TaskContext<'_>, id: &Id, tuning: &Tuning) -> Result<Vec<Setting>, String> {
    let files = context.host.files();
    let under = tuning.device_of.as_deref().ok_or("`device_of` is missing")?;
    let under = Filler::new(context).path("device_of", under).map_err(|e| e.to_string())?;
    let wanted =
        tuning.set.iter().map(|(key, value)| attribute(key, value)).collect::<Result<Vec<_>, _>>()?;
    let mut settings = Vec::new();
    let mut rule = format!("# Written by fleet-agent for tuning \"{id}\"; tuning.apply writes it anew.\n");
    for disk in disks(files, &under)? {
        let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = write!(rule, "ACTION==\"add|change\", SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"disk\", ");
        if tuning.persist == Some(Persist::Udev) {
            let (key, value) = stable_name(files, &disk, &name)?;
            let _ = write!(rule, "ENV{{{key}}}==\"{value}\"");
        }
        for (key, value) in &wanted {
            let shown = format!("{name}: {key}");
            settings.push(Setting::kernel(
                shown,
                Path::new("/sys/class/block").join(&name).join("queue").join(key),
                value,
            ));
            let _ = write!(rule, ", ATTR{{queue/{key}}}=\"{value}\"");
        }
        rule.push('\n');
    }
    if tuning.persist == Some(Persist::Udev) {
        settings.push(Setting::file(rule_file(id.as_str()), rule));
    }
    Ok(settings)
}

/// After 60-persistent-storage.rules, which finds out what a disk is called.
pub(super) fn rule_file(id: &str) -> PathBuf {
    PathBuf::from(format!("/etc/udev/rules.d/61-fleet-{id}.rules"))
}

/// A file of the queue and its value. `read_ahead_sectors` is what `blockdev --setra` takes, half a KiB each.
fn attribute(key: &str, value: &Value) -> Result<(String, String), String> {
    let number = || value.as_integer().filter(|number| *number >= 0);
    let text = match value {
        Value::Integer(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => return Err(format!("{key}: expected a number or a word, found {}", other.kind())),
    };
    if key == "read_ahead_sectors" {
        let sectors = number().filter(|number| number % 2 == 0);
        let sectors =
            sectors.ok_or_else(|| format!("{key}: expected an even number of sectors, found {text}"))?;
        return Ok(("read_ahead_kb".to_owned(), (sectors / 2).to_string()));
    }
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    match (is_word(key), is_word(&text)) {
        (true, true) => Ok((key.to_owned(), text)),
        (false, _) => Err(format!("\"{key}\" is no setting of a disk's queue")),
        (_, false) => Err(format!("{key}: \"{text}\" is neither a number nor a word")),
    }
}

/// The folders of the disks that a mount point's file system lies on.
fn disks(files: &dyn Files, under: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mount = tuning_mount::containing(files, under)?;
    let none = || {
        let (kind, at) = (&mount.kind, mount.path.display());
        format!("no disk lies under {}: {at} is a {kind} of {}", under.display(), mount.source)
    };
    let by_number = files.canonical(&Path::new("/sys/dev/block").join(&mount.device));
    let device = by_number.or_else(|error| {
        // btrfs gives its volumes numbers that are no device's.
        let source = files.canonical(Path::new(&mount.source)).map_err(|_| error)?;
        files.canonical(&Path::new("/sys/class/block").join(source.file_name().unwrap_or_default()))
    });
    let mut found = BTreeSet::new();
    below(files, &device.map_err(|_| none())?, MAX_LAYERS, &mut found)?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// The whole disks that a device lies on: itself, the disk of a partition, the disks of a volume.
fn below(
    files: &dyn Files,
    device: &Path,
    layers: usize,
    found: &mut BTreeSet<PathBuf>,
) -> Result<(), String> {
    let whole = if files.stat(&device.join("partition")).is_ok() {
        device.parent().unwrap_or(device)
    } else {
        device
    };
    let slaves = match files.list(&whole.join("slaves")) {
        Ok(slaves) => slaves,
        Err(error) if error.problem == FileProblem::NotFound => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    if slaves.is_empty() {
        if files.stat(&whole.join("queue")).is_ok() {
            found.insert(whole.to_owned());
        }
        return Ok(());
    }
    let layers =
        layers.checked_sub(1).ok_or_else(|| format!("{} lies on too many layers", device.display()))?;
    for slave in slaves {
        let device = files.canonical(&slave.path).map_err(|e| e.to_string())?;
        below(files, &device, layers, found)?;
    }
    Ok(())
}

/// What udev will know this disk by after a restart.
fn stable_name(files: &dyn Files, disk: &Path, name: &str) -> Result<(&'static str, String), String> {
    let number = read_all(files, &disk.join("dev"), MAX_BYTES).map_err(|e| e.to_string())?;
    let record = format!("/run/udev/data/b{}", String::from_utf8_lossy(&number).trim());
    let known = read_all(files, Path::new(&record), MAX_BYTES).unwrap_or_default();
    let known = String::from_utf8_lossy(&known).into_owned();
    let plain = |value: &&str| {
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:+/#=".contains(&b))
    };
    let named = STABLE.into_iter().find_map(|key| {
        let value =
            known.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('='));
        value.filter(plain).map(|value| (key, value.to_owned()))
    });
    named.ok_or_else(|| {
        format!(
            "udev knows disk {name} by no name that stays; use persist = \"none\", which a restart undoes"
        )
    })
}
