//! Facts: what this node says about itself at connect and when it changes. Reads only.
//!
//! Facts inform and decide `when`; they never authorise or select targets (security-and-delivery §1.13).
//! Called by the executor at start and before a job is resolved; upgrades ask for the pending reboot.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_types::document::placeholder::{Sources, expand};
use fleet_types::document::profile::Profile;
use fleet_types::facts::{FLAGS, MAX_FACTS_ENTRIES, NO_PACKAGE_MANAGER, NodeFacts, REBOOT_REQUIRED};

use crate::host::{FileProblem, Host, read_all};

/// Largest os-release that is read; real ones have half a kilobyte.
const MAX_OS_RELEASE_BYTES: u64 = 64 * 1024;

/// Gathers the facts of a node.
pub fn gather(host: &dyn Host, agent_version: &str) -> NodeFacts {
    let (kernel_name, kernel, arch) = host.system().names();
    let release = os_release(host);
    let field = |key: &str| release.get(key).cloned().unwrap_or_default();
    let clock = host.clock();
    let mut flags: BTreeMap<String, bool> = FLAGS
        .iter()
        .map(|(flag, programs)| {
            ((*flag).to_owned(), programs.iter().any(|program| host.processes().has_program(program)))
        })
        .collect();
    if let Some(is) = is_reboot_required(host) {
        flags.insert(REBOOT_REQUIRED.to_owned(), is);
    }
    let mut old: Vec<String> = host.system().running_old_files(host.files().root()).into_iter().collect();
    old.truncate(MAX_FACTS_ENTRIES);
    let mut interfaces: Vec<String> = host.system().interfaces().unwrap_or_default().into_keys().collect();
    interfaces.retain(|name| name != "lo");
    interfaces.truncate(MAX_FACTS_ENTRIES);
    NodeFacts {
        hostname: hostname(host).unwrap_or(kernel_name),
        os: field("ID"),
        os_version: field("VERSION_ID"),
        kernel,
        arch,
        cpus: host.system().cores(),
        memory_bytes: host.system().memory().map_or(0, |memory| memory.total),
        boot_id: clock.boot_id(),
        booted: Some(clock.now().minus(clock.since_boot())),
        agent_version: agent_version.to_owned(),
        units: host.units().kind().as_str().to_owned(),
        package_manager: host.packages().manager().unwrap_or(NO_PACKAGE_MANAGER).to_owned(),
        running_old_files: old,
        interfaces,
        flags,
        simulated: host.simulated(),
    }
}

/// Has a package asked for a reboot? Unknown where that cannot be seen.
pub fn is_reboot_required(host: &dyn Host) -> Option<bool> {
    // Written by packages' scripts; what links into the one from the other differs among distributions.
    let mut seen = Some(false);
    for path in ["/run/reboot-required", "/var/run/reboot-required"] {
        match host.files().stat(Path::new(path)) {
            Ok(_) => return Some(true),
            Err(error) if error.problem == FileProblem::NotFound => {}
            Err(_) => seen = None,
        }
    }
    seen
}

/// Adds the facts that a profile declares for its product. One that cannot be seen stays unknown.
pub fn of_product(host: &dyn Host, profile: &Profile, mut facts: NodeFacts) -> NodeFacts {
    for (name, fact) in &profile.facts {
        let seen = match (&fact.program, &fact.path) {
            (Some(program), _) => Some(host.processes().has_program(program)),
            (None, Some(path)) => is_there(host, profile, path),
            (None, None) => None,
        };
        if let Some(seen) = seen {
            // Those of every node cannot be declared anew.
            facts.flags.entry(name.to_string()).or_insert(seen);
        }
    }
    facts
}

fn is_there(host: &dyn Host, profile: &Profile, path: &str) -> Option<bool> {
    let path = expand(path, &Sources { vars: Some(&profile.vars), ..Sources::default() }).ok()?;
    match host.files().stat(Path::new(&path)) {
        Ok(_) => Some(true),
        Err(error) if error.problem == FileProblem::NotFound => Some(false),
        Err(_) => None,
    }
}

/// A development node has a name of its own in its root.
fn hostname(host: &dyn Host) -> Option<String> {
    if host.files().root() == Path::new("/") {
        return None;
    }
    let bytes = read_all(host.files(), Path::new("/etc/hostname"), 256).ok()?;
    let name = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// os-release(5) of the root, or of the machine where the root has none.
fn os_release(host: &dyn Host) -> BTreeMap<String, String> {
    let places = ["/etc/os-release", "/usr/lib/os-release"];
    let inside = places
        .iter()
        .find_map(|path| read_all(host.files(), Path::new(path), MAX_OS_RELEASE_BYTES).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = inside.or_else(|| places.iter().find_map(|path| std::fs::read_to_string(path).ok()));
    parse_os_release(&text.unwrap_or_default())
}

fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| {
            let value = value.trim();
            let plain = value
                .strip_prefix('"')
                .and_then(|v| v.strip_suffix('"'))
                .or_else(|| value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')))
                .unwrap_or(value);
            (key.trim().to_owned(), plain.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scripted::{Answer, ScriptedHost};

    #[test]
    fn what_a_profile_declares_is_gathered_and_what_cannot_be_seen_stays_unknown() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/edge")).unwrap();
        let host = ScriptedHost::new(root.path(), root.path()).unwrap();
        host.answer("edgefw", [Answer::NotStarted(String::new())]);
        host.fail("stat", "/hidden", FileProblem::Denied);
        let profile: Profile = toml::from_str(
            "schema = \"fleet/v1\"\nname = \"edge\"\nversion = 1\nvars = { etc = \"/etc/edge\" }\n\
             [fact.edgefw]\nprogram = \"edgefw\"\n[fact.other]\nprogram = \"other\"\n\
             [fact.config]\npath = \"{etc}\"\n[fact.gone]\npath = \"/gone\"\n[fact.hidden]\npath = \"/hidden/x\"\n",
        )
        .unwrap();
        let flags = of_product(&host, &profile, NodeFacts::default()).flags;
        let expected = [("config", true), ("edgefw", true), ("gone", false), ("other", false)];
        assert_eq!(flags, expected.map(|(name, is)| (name.to_owned(), is)).into());
    }

    #[test]
    fn the_root_speaks_for_a_development_node() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/edgefw")).unwrap();
        std::fs::write(root.path().join("etc/os-release"), "# x\nID=debian\nVERSION_ID=\"12\"\n").unwrap();
        std::fs::write(root.path().join("etc/hostname"), "fw-1\n").unwrap();
        let host = ScriptedHost::new(root.path(), root.path()).unwrap();
        host.answer("psql", [Answer::NotStarted(String::new())]);
        let facts = gather(&host, "0.1.0");
        assert_eq!((facts.os.as_str(), facts.os_version.as_str()), ("debian", "12"));
        assert_eq!(facts.hostname, "fw-1");
        assert_eq!(facts.units, "supervised");
        assert!(facts.flags["postgresql"] && !facts.flags["lvm"]);
        assert!(!facts.simulated.is_empty());
        assert_eq!((facts.package_manager.as_str(), facts.flags["reboot_required"]), ("none", false));
        assert_eq!(facts.running_old_files, ["old.service"]);
        std::fs::create_dir(root.path().join("run")).unwrap();
        std::fs::write(root.path().join("run/reboot-required"), "").unwrap();
        assert!(gather(&host, "0.1.0").flags["reboot_required"]);
        host.fail("stat", "/run/reboot-required", FileProblem::Denied);
        assert_eq!(gather(&host, "0.1.0").flags.get("reboot_required"), None, "unknown");
        assert!(facts.booted.unwrap() < host.clock().now());
    }
}
