//! Settings of `[tuning.*]` of kind `sysctl`: the values of the running kernel, the drop-in that holds them over a
//! restart, and the modules that bring them. Called by `tuning_apply`.
//!
//! Keys are written as in `sysctl.d(5)`: the separator that comes first separates.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Tuning;
use fleet_types::document::value::Value;

use super::contract::TaskContext;
use super::fill::Filler;
use super::programs;
use super::tuning_setting::Setting;
use crate::host::{Exit, FileProblem, Invocation, Purpose, UnitName};

/// The one folder of drop-ins that an administrator owns and systemd reads.
const FOLDER: &str = "/etc/sysctl.d";
/// Modules that are loaded with the machine, before the settings are.
const MODULES_FOLDER: &str = "/etc/modules-load.d";
/// Loading a module takes well under a second; one that looks for a device takes some.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// The settings; values of the kernel first, so that what it refuses is not written for the next start.
pub(super) fn settings(context: &TaskContext<'_>, id: &Id, tuning: &Tuning) -> Result<Vec<Setting>, String> {
    let filler = Filler::new(context);
    let mut settings = Vec::with_capacity(tuning.set.len() + 2);
    let mut lines = format!("# Written by fleet-agent for tuning \"{id}\"; tuning.apply writes it anew.\n");
    for (key, value) in &tuning.set {
        let path = path_of(key)?;
        let value = text_of(key, value)?;
        let value = filler.text(key, &value).map_err(|e| e.to_string())?;
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(format!("{key}: a setting is one line of text"));
        }
        let _ = writeln!(lines, "{key} = {value}");
        settings.push(Setting::kernel(key, path, value));
    }
    let file = drop_in(&filler, tuning)?;
    if let Some(modules) = modules_file(tuning, &file)? {
        settings.push(modules);
    }
    settings.push(Setting::file(file, lines));
    Ok(settings)
}

/// `/etc/sysctl.d/60-x.conf`: read by systemd there and by that ending only.
fn drop_in(filler: &Filler<'_>, tuning: &Tuning) -> Result<PathBuf, String> {
    let file = tuning.file.as_deref().ok_or("`file` is missing")?;
    let path = filler.path("file", file).map_err(|e| e.to_string())?;
    let good =
        path.parent() == Some(Path::new(FOLDER)) && path.extension().is_some_and(|ending| ending == "conf");
    if good { Ok(path) } else { Err(format!("{} is no file {FOLDER}/….conf", path.display())) }
}

/// The file beside the drop-in that has its modules loaded with the machine.
fn modules_file(tuning: &Tuning, drop_in: &Path) -> Result<Option<Setting>, String> {
    if let Some(bad) = tuning.modules.iter().find(|name| !is_module(name)) {
        return Err(format!("\"{bad}\" is no name of a module"));
    }
    if tuning.modules.is_empty() {
        return Ok(None);
    }
    let path = Path::new(MODULES_FOLDER).join(drop_in.file_name().unwrap_or_default());
    Ok(Some(Setting::file(path, format!("{}\n", tuning.modules.join("\n")))))
}

fn is_module(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Where a key lies. `net.ipv4.conf.eth0/100.mtu` and `net/ipv4/conf/eth0.100/mtu` are the same.
fn path_of(key: &str) -> Result<PathBuf, String> {
    let slashes_separate = match (key.find('/'), key.find('.')) {
        (Some(slash), Some(dot)) => slash < dot,
        (slash, _) => slash.is_some(),
    };
    let relative = if slashes_separate {
        key.to_owned()
    } else {
        let swapped = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        key.chars().map(swapped).collect()
    };
    let good = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@".contains(&b))
    };
    let named = !key.starts_with('-') && relative.contains('/') && relative.split('/').all(good);
    if named {
        Ok(Path::new("/proc/sys").join(relative))
    } else {
        Err(format!("\"{key}\" is no key of one setting, such as vm.swappiness"))
    }
}

fn text_of(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Bool(_) | Value::List(_) | Value::Table(_) => {
            Err(format!("{key}: expected a number or a text, found {}", value.kind()))
        }
    }
}

/// The modules of a tuning that are not loaded.
pub(super) fn missing_modules(context: &TaskContext<'_>, tuning: &Tuning) -> Result<Vec<String>, String> {
    let files = context.host.files();
    let mut missing = Vec::new();
    for name in &tuning.modules {
        match files.stat(&Path::new("/sys/module").join(name.replace('-', "_"))) {
            Ok(_) => {}
            Err(error) if error.problem == FileProblem::NotFound => missing.push(name.clone()),
            Err(error) => return Err(error.to_string()),
        }
    }
    if missing.is_empty() || files.root() == Path::new("/") {
        return Ok(missing);
    }
    let names = missing.join(", ");
    Err(format!(
        "{names} is not loaded, and a node with a root of its own does not load modules into this machine"
    ))
}

/// The command that loads a module.
pub(super) fn load_command(module: &str) -> Vec<String> {
    ["modprobe", "--", module].map(str::to_owned).to_vec()
}

/// Loads a module; one that is there is left alone.
pub(super) fn load(context: &TaskContext<'_>, module: &str) -> Result<(), String> {
    let name = UnitName::new(context.step, &programs::part(context, &format!("modprobe-{module}")));
    let invocation = Invocation::new(load_command(module), LOAD_LIMIT);
    match programs::run(context, &invocation, Purpose::Effect(&name)) {
        Ok(outcome) if outcome.exit == Exit::Status(0) => Ok(()),
        Ok(outcome) => {
            let said = programs::tail(&outcome.output);
            Err(format!("module {module} cannot be loaded: {}; {}", outcome.exit, said.trim()))
        }
        Err(error) => Err(format!("module {module}: {error}")),
    }
}

/// Why a setting cannot be set, before anything is.
pub(super) fn unfit(context: &TaskContext<'_>, path: &Path, modules: &[String]) -> Option<String> {
    let files = context.host.files();
    match files.canonical(path).and_then(|real| files.stat(&real)) {
        Ok(stat) if stat.mode & 0o222 == 0 => Some("it is read-only".to_owned()),
        Ok(stat) if stat.mode & 0o444 == 0 => {
            Some("it is write-only: it does something and keeps no value that could be put back".to_owned())
        }
        Err(error) if error.problem == FileProblem::NotFound && modules.is_empty() => {
            Some("this kernel has no such setting; name the module that brings it in `modules`".to_owned())
        }
        Err(error) if error.problem != FileProblem::NotFound => Some(error.to_string()),
        // It is there, or comes with a module that is yet to be loaded.
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_sysctl() {
        for (key, path) in [
            ("vm.swappiness", "/proc/sys/vm/swappiness"),
            ("net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
            ("net/ipv4/conf/eth0.100/rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
        ] {
            assert_eq!(path_of(key).unwrap(), Path::new(path), "{key}");
        }
        for key in
            ["", "vm", "vm..x", "vm.*", "-vm.x", "../x", "vm/../../etc/passwd", "net./..passwd", "/vm/x"]
        {
            assert!(path_of(key).is_err(), "{key}");
        }
    }
}
