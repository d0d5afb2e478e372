//! Settings of `[tuning.*]` of kind `mount`: the options of a mount point, now and in `/etc/fstab`; and what is mounted
//! where, read from `mountinfo` (`proc_pid_mountinfo(5)`, `fstab(5)`, `mount(8)`). Called by the other files of tunings.
//!
//! A remount gives the whole list of options, so that none comes in from elsewhere, and one that could not be taken back
//! is refused before it is given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::profile::{ApplyMount, Tuning};

use super::contract::TaskContext;
use super::fill::Filler;
use super::programs;
use super::tuning_setting::{Place, Setting, put_file, text_file};
use crate::host::{Exit, FileError, FileProblem, Files, Invocation, Purpose, UnitName, read_all};

/// What is mounted at start.
pub(super) const FSTAB: &str = "/etc/fstab";
/// A machine with thousands of mounts has a list of a MiB.
const MAX_MOUNTS_BYTES: u64 = 4 * 1024 * 1024;
/// A remount of a busy file system writes out what it holds.
const REMOUNT_LIMIT: Duration = Duration::from_mins(1);
/// Options of the mount itself, whatever file system it is of. Any other belongs to the file system.
const OF_MOUNT: [&str; 12] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
];
/// Options of file systems that may wait for the next mount, where nobody sees a mistake until the machine does not come
/// up: those of ext4(5), xfs(5) and btrfs(5) that tune.
const OF_FILE_SYSTEM: [&str; 16] = [
    "data",
    "commit",
    "barrier",
    "nobarrier",
    "discard",
    "nodiscard",
    "lazytime",
    "nolazytime",
    "errors",
    "journal_checksum",
    "journal_async_commit",
    "delalloc",
    "nodelalloc",
    "logbufs",
    "logbsize",
    "compress",
];
/// Words of which `mountinfo` shows the opposite only.
const UNSEEN: [&str; 4] = ["suid", "dev", "exec", "strictatime"];
/// They stand for each other.
const ACCESS_TIMES: [&str; 3] = ["noatime", "relatime", "strictatime"];

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Where.
    pub(super) path: PathBuf,
    /// `major:minor`.
    pub(super) device: String,
    /// The kind of file system.
    pub(super) kind: String,
    /// From what.
    pub(super) source: String,
    /// Options of the mount, then those of its file system.
    options: (Vec<String>, Vec<String>),
}

/// The settings of a mount point.
pub(super) fn settings(context: &TaskContext<'_>, tuning: &Tuning) -> Result<Vec<Setting>, String> {
    let files = context.host.files();
    let path = tuning.path.as_deref().ok_or("`path` is missing")?;
    let path = Filler::new(context).path("path", path).map_err(|e| e.to_string())?;
    let good = |option: &String| {
        !option.is_empty() && option.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=.:-".contains(&b))
    };
    if let Some(bad) = tuning.options.iter().find(|option| !good(option)) {
        return Err(format!("\"{bad}\" is no option of a mount"));
    }
    let name = |what: &str| format!("{}: {what}", path.display());
    let listed = in_fstab(files, &path)?;
    let mut settings = Vec::new();
    if tuning.apply.unwrap_or(ApplyMount::Live) == ApplyMount::Live {
        let keys: Vec<String> =
            tuning.options.iter().filter(|o| !is_of_mount(o)).map(|o| key(o).to_owned()).collect();
        let now = mounted(files, &path, &keys)?
            .ok_or_else(|| format!("nothing is mounted at {}", path.display()))?;
        let had: Vec<&str> = now.split(',').collect();
        if let Some(lost) =
            keys.iter().find(|wanted| !had.iter().any(|option| key(option) == wanted.as_str()))
        {
            return Err(format!(
                "{lost} is not among the options that {} shows, so it could not be put back live; use apply = \
                 \"at_next_mount\"",
                path.display()
            ));
        }
        let place = Place::Mounted { path: path.clone(), keys };
        settings.push(Setting {
            name: name("mounted with"),
            place,
            value: Some(merged(&now, &tuning.options)),
        });
    } else if let Some(bad) =
        tuning.options.iter().find(|o| !is_of_mount(o) && !OF_FILE_SYSTEM.contains(&key(o)))
    {
        return Err(format!(
            "nobody can tell before the next mount whether {bad} is right, and a wrong one keeps the machine from \
             starting; use apply = \"live\""
        ));
    } else if listed.is_none() {
        return Err(format!("{FSTAB} has no line for {}, so there is no next mount", path.display()));
    }
    if let Some(listed) = listed {
        let place = Place::Fstab { path: path.clone() };
        settings.push(Setting {
            name: name("in fstab"),
            place,
            value: Some(merged(&listed, &tuning.options)),
        });
    }
    Ok(settings)
}

fn key(option: &str) -> &str {
    option.split('=').next().unwrap_or(option)
}

fn is_of_mount(option: &str) -> bool {
    OF_MOUNT.contains(&option)
}

/// Options with these in place of those that they contradict.
fn merged(now: &str, wanted: &[String]) -> String {
    let mut options: Vec<&str> = now.split(',').filter(|option| !option.is_empty()).collect();
    for wanted in wanted.iter().map(String::as_str) {
        if options.contains(&wanted) {
            continue;
        }
        options.retain(|option| !contradicts(option, wanted));
        options.push(wanted);
    }
    options.join(",")
}

fn contradicts(one: &str, other: &str) -> bool {
    let negated = |a: &str, b: &str| a.strip_prefix("no") == Some(b);
    negated(one, other)
        || negated(other, one)
        || (one.contains('=') && key(one) == key(other))
        || (ACCESS_TIMES.contains(&one) && ACCESS_TIMES.contains(&other))
        || matches!((one, other), ("ro", "rw") | ("rw", "ro") | ("defaults", _))
}

/// What is mounted, newest last.
fn mounts(files: &dyn Files) -> Result<Vec<Mounted>, String> {
    let bytes = read_all(files, Path::new("/proc/self/mountinfo"), MAX_MOUNTS_BYTES)
        .map_err(|e| format!("what is mounted cannot be read: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

/// `36 35 98:0 /in/it /where rw,noatime shared:1 - ext4 /dev/sda1 rw,commit=5`
fn parse(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let [_, _, device, _, path, options, ..] = fields.as_slice() else { return None };
    let mut after = after.split(' ');
    let (kind, source, of_file_system) = (after.next()?, after.next()?, after.next()?);
    let list = |options: &str| options.split(',').map(str::to_owned).collect();
    Some(Mounted {
        path: PathBuf::from(unescaped(path)),
        device: (*device).to_owned(),
        kind: kind.to_owned(),
        source: unescaped(source),
        options: (list(options), list(of_file_system)),
    })
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The mount that a path lies on.
pub(super) fn containing(files: &dyn Files, path: &Path) -> Result<Mounted, String> {
    let path = files.canonical(path).map_err(|e| e.to_string())?;
    let all = mounts(files)?.into_iter().filter(|mount| path.starts_with(&mount.path));
    // Of two at one place the newer one is seen.
    let nearest = all.max_by_key(|mount| mount.path.components().count());
    nearest.ok_or_else(|| format!("nothing is mounted above {}", path.display()))
}

/// Are these the same options? Their order says nothing, and of some words the kernel shows the opposite only.
pub(super) fn same_options(one: &str, other: &str) -> bool {
    let shown = |options: &str| -> BTreeSet<String> {
        options.split(',').filter(|option| !UNSEEN.contains(option)).map(str::to_owned).collect()
    };
    shown(one) == shown(other)
}

/// The options of a mount point: those of the mount, and of its file system those with these names.
pub(super) fn mounted(files: &dyn Files, path: &Path, keys: &[String]) -> Result<Option<String>, String> {
    let Some(mount) = mounts(files)?.into_iter().rfind(|mount| mount.path == path) else { return Ok(None) };
    let (of_mount, of_file_system) = mount.options;
    let named = of_file_system.into_iter().filter(|option| keys.iter().any(|wanted| wanted == key(option)));
    Ok(Some(of_mount.into_iter().chain(named).collect::<Vec<_>>().join(",")))
}

/// Remounts with exactly these options.
pub(super) fn remount(context: &TaskContext<'_>, path: &Path, options: &str) -> Result<(), String> {
    let mut list = format!("remount,{options}");
    if !options.split(',').any(|option| ACCESS_TIMES.contains(&option)) {
        // Without a word the kernel takes relatime.
        list.push_str(",strictatime");
    }
    let mount = ["mount", "--options-mode", "ignore", "-o", &list].map(str::to_owned);
    let argv = mount.into_iter().chain([path.to_string_lossy().into_owned()]).collect();
    // A name of its own for each list: a program of one name is started once for a step.
    let part = format!("remount-{}", fleet_types::digest::Digest::of(list.as_bytes()));
    let name = UnitName::new(context.step, &programs::part(context, &part));
    match programs::run(context, &Invocation::new(argv, REMOUNT_LIMIT), Purpose::Effect(&name)) {
        Ok(outcome) if outcome.exit == Exit::Status(0) => Ok(()),
        Ok(outcome) => Err(format!("mount: {}; {}", outcome.exit, programs::tail(&outcome.output).trim())),
        Err(error) => Err(error.to_string()),
    }
}

/// The options field of a mount point's line, and where it stands in the file.
fn fstab_field(text: &str, path: &Path) -> Result<Option<(usize, usize)>, String> {
    let mut found = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let begin = at;
        at += line.len();
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut fields = line.split_whitespace();
        let (Some(_), Some(point), Some(_), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if Path::new(&unescaped(point)) != path {
            continue;
        }
        if found.is_some() {
            return Err(format!("{FSTAB} has more than one line for {}", path.display()));
        }
        let offset = options.as_ptr() as usize - line.as_ptr() as usize;
        found = Some((begin + offset, begin + offset + options.len()));
    }
    Ok(found)
}

/// The options of a mount point in fstab; none where it has no line, or there is no fstab.
pub(super) fn in_fstab(files: &dyn Files, path: &Path) -> Result<Option<String>, String> {
    let Some(text) = text_file(files, Path::new(FSTAB))? else { return Ok(None) };
    Ok(fstab_field(&text, path)?.map(|(from, to)| text[from..to].to_owned()))
}

/// Puts other options into a mount point's line, and leaves all the rest as it is.
pub(super) fn write_fstab(files: &dyn Files, path: &Path, options: &str) -> Result<(), String> {
    let gone = || format!("{FSTAB} has no line for {} any more", path.display());
    let mut text = text_file(files, Path::new(FSTAB))?.ok_or_else(gone)?;
    let (from, to) = fstab_field(&text, path)?.ok_or_else(gone)?;
    text.replace_range(from..to, options);
    put_file(files, Path::new(FSTAB), &text).map_err(|e: FileError| match e.problem {
        FileProblem::Full => format!("the disk is full: {e}"),
        _ => e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_take_the_place_of_those_that_they_contradict() {
        for (now, wanted, expected) in [
            ("rw,relatime", "noatime", "rw,noatime"),
            ("rw,noatime", "noatime", "rw,noatime"),
            ("defaults", "noatime", "noatime"),
            ("rw,nosuid,relatime", "suid", "rw,relatime,suid"),
            ("rw,commit=5", "commit=30", "rw,commit=30"),
            ("ro,nodev", "rw", "nodev,rw"),
        ] {
            assert_eq!(merged(now, &[wanted.to_owned()]), expected, "{now} {wanted}");
        }
    }

    #[test]
    fn one_field_of_fstab_is_found_and_nothing_else() {
        let text = "# /var/log is big\n/dev/sda1 / ext4 defaults 0 1\nUUID=x  /var/log\\040x ext4\tnoatime,nodev 0 2\n\n";
        let (from, to) = fstab_field(text, Path::new("/var/log x")).unwrap().unwrap();
        assert_eq!(&text[from..to], "noatime,nodev");
        assert_eq!(fstab_field(text, Path::new("/var/log")).unwrap(), None);
        let twice = format!("{text}/dev/sdb / ext4 ro 0 0\n");
        assert!(fstab_field(&twice, Path::new("/")).is_err());
    }

    #[test]
    fn a_line_of_mountinfo() {
        let mount =
            parse("36 35 98:0 /sub /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/sda1 rw,commit=5").unwrap();
        assert_eq!((mount.path.as_path(), mount.device.as_str()), (Path::new("/mnt/a b"), "98:0"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext4", "/dev/sda1"));
        assert_eq!(mount.options.1, ["rw", "commit=5"]);
        assert_eq!(parse("36 35"), None);
    }
}
