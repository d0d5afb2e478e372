//! The trait carried out by apt and dpkg.
//!
//! A change takes its archives from the node's own store, with no archive of the network in sight: what apt would have to
//! fetch it does not know. So nothing but what was noted can come in, and a package that would go beside it stops all of
//! it. Made by the Linux host.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use fleet_types::package_version::dpkg;
use fleet_types::packages::{Available, Package};

use super::super::clock::{Clock, LinuxClock};
use super::super::files::Files;
use super::super::packages::{
    Build, Direction, InstalledPackages, Kept, KeptFrom, Marks, PackageChange, PackageError, PackageFault,
    PackageResult, PackageWork, Packages, SetAside, Standing, Wanted,
};
use super::super::processes::Processes;
use super::copies::Copies;
use super::programs::{Programs, complaint, left};
use super::store::{Store, copy};
use super::{database, listed, parse, repack};

/// Where apt keeps archives that it fetched.
const CACHE: &str = "/var/cache/apt/archives";
/// How often is looked whether another job has done with the store.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Names of packages in one program's arguments, so that what it prints can be read whole.
const NAMES_AT_ONCE: usize = 40;
/// No archive but those that are named: lists of the network are not looked at, and apt's cache of them stays as it is.
const OFFLINE: [&str; 4] = [
    "-oDir::Etc::sourcelist=/dev/null",
    "-oDir::Etc::sourceparts=/dev/null",
    "-oDir::Cache::pkgcache=",
    "-oDir::Cache::srcpkgcache=",
];

/// Packages through apt and dpkg.
pub(in super::super) struct AptPackages {
    programs: Programs,
    store: Store,
    copies: Copies,
    /// One changes the store at a time: reading jobs run beside each other.
    storing: Mutex<()>,
    /// The same for contents of files, which takes no time.
    copying: Mutex<()>,
    native: OnceLock<String>,
}

impl AptPackages {
    /// Keeps its state below `state`.
    pub(in super::super) fn new(files: Arc<dyn Files>, processes: Arc<dyn Processes>, state: &Path) -> Self {
        let folder = state.join("packages");
        let store = Store::new(folder.join("archives"));
        let copies = Copies::new(folder.join("files"));
        Self {
            copies,
            programs: Programs { files, processes, folder },
            store,
            storing: Mutex::new(()),
            copying: Mutex::new(()),
            native: OnceLock::new(),
        }
    }

    fn files(&self) -> &dyn Files {
        &*self.programs.files
    }

    fn ready(&self) -> PackageResult<()> {
        if self.manager().is_some() {
            return Ok(());
        }
        let message = "this node has no package manager that this build speaks to (apt and dpkg)";
        Err(PackageError::new(PackageFault::NoManager, message))
    }

    /// Waits for its turn to change the store: another job may be fetching.
    fn turn(&self, work: PackageWork<'_>) -> PackageResult<MutexGuard<'_, ()>> {
        loop {
            match self.storing.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if !LinuxClock.pause(LOOK_EVERY.min(left(work)), work.cancel) {
                return Err(PackageError::new(PackageFault::Cancelled, "stopped on request"));
            }
            if left(work).is_zero() {
                let message = "another job of this node keeps packages, and the step's time is over";
                return Err(PackageError::new(PackageFault::LockHeld, message));
            }
        }
    }

    fn native(&self, work: PackageWork<'_>) -> PackageResult<&str> {
        if let Some(known) = self.native.get() {
            return Ok(known);
        }
        let printed = self.programs.read("dpkg", &["--print-architecture"], work)?;
        Ok(self.native.get_or_init(|| printed.trim().to_owned()))
    }

    /// A package that no list of an archive has is not up to date: nobody knows.
    fn check_published(
        &self,
        names: &[(String, Option<String>)],
        changes: &[PackageChange],
        work: PackageWork<'_>,
    ) -> PackageResult<()> {
        let changes = |name: &str| changes.iter().any(|change| change.name == name);
        let asked = names.iter().filter(|(name, version)| version.is_none() && !changes(name));
        let asked: Vec<&str> = asked.map(|(name, _)| name.as_str()).collect();
        for some in asked.chunks(NAMES_AT_ONCE) {
            let arguments: Vec<&str> = std::iter::once("policy").chain(some.iter().copied()).collect();
            let archives = parse::archives(&self.programs.read("apt-cache", &arguments, work)?);
            let published = |name: &str| {
                let of = archives.iter().filter(|((of, _), _)| of == name).flat_map(|(_, archives)| archives);
                of.into_iter().any(|archive| !archive.ends_with("/dpkg/status"))
            };
            if let Some(name) = some.iter().find(|name| !published(name)) {
                let message = format!("no archive that this node knows has package {name}");
                return Err(PackageError::new(PackageFault::NoPackage, message));
            }
        }
        Ok(())
    }

    /// What the lists on the node tell of the new builds of these.
    fn told_of(&self, changes: &[PackageChange], work: PackageWork<'_>) -> PackageResult<String> {
        let builds: Vec<String> = changes
            .iter()
            .filter_map(|change| Some(format!("{}={}", change.name, change.to.as_ref()?.version)))
            .collect();
        if builds.is_empty() {
            return Ok(String::new());
        }
        let mut arguments = vec!["show", "--no-all-versions"];
        arguments.extend(builds.iter().map(String::as_str));
        self.programs.read("apt-cache", &arguments, work)
    }

    /// Adds who publishes the new builds and how large they are, by the lists on the node.
    fn describe(&self, changes: &mut [PackageChange], work: PackageWork<'_>) -> PackageResult<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let releases = parse::releases(&self.programs.read("apt-cache", &["policy"], work)?);
        for some in changes.chunks_mut(NAMES_AT_ONCE) {
            let names: Vec<&str> = some.iter().map(|change| change.name.as_str()).collect();
            let mut arguments = vec!["policy"];
            arguments.extend(&names);
            let archives = parse::archives(&self.programs.read("apt-cache", &arguments, work)?);
            let sizes = parse::sizes(&self.told_of(some, work)?);
            for change in some {
                let Some(to) = &change.to else { continue };
                let key = (change.name.clone(), to.version.clone());
                let of = archives.get(&key).into_iter().flatten().filter_map(|archive| releases.get(archive));
                for release in of {
                    change.security |= release.security;
                    if !release.origin.is_empty() && !change.origins.contains(&release.origin) {
                        change.origins.push(release.origin.clone());
                    }
                }
                if change.origins.is_empty()
                    && let Some(kept) = self.store.find(to)?
                {
                    change.origins = kept.origins;
                }
                let plain = to.name.split(':').next().unwrap_or(&to.name).to_owned();
                let (archive, unpacked) =
                    sizes.get(&(plain, to.version.clone())).copied().unwrap_or_default();
                (change.archive_bytes, change.installed_bytes) = (archive, unpacked);
            }
        }
        Ok(())
    }

    /// The arguments that carry a change out.
    fn install_arguments(&self, changes: &[PackageChange]) -> PackageResult<Vec<String>> {
        let has = |direction| changes.iter().any(|change| change.direction == direction);
        let mut arguments: Vec<String> = OFFLINE.iter().map(|option| (*option).to_owned()).collect();
        arguments.push("install".to_owned());
        // Who may be moved was decided before; apt is not asked again.
        arguments.push("--allow-change-held-packages".to_owned());
        if has(Direction::Downgraded) {
            arguments.push("--allow-downgrades".to_owned());
        }
        if has(Direction::Reinstalled) {
            arguments.push("--reinstall".to_owned());
        }
        if !has(Direction::Removed) {
            arguments.push("--no-remove".to_owned());
        }
        arguments.push("--".to_owned());
        for change in changes {
            match &change.to {
                None => arguments.push(format!("{}-", change.name)),
                Some(build) => {
                    if self.store.find(build)?.is_none() {
                        let message = format!("no archive of {build} is kept on this node");
                        return Err(PackageError::new(PackageFault::NotKept, message));
                    }
                    arguments.push(self.store.path(build)?.display().to_string());
                }
            }
        }
        Ok(arguments)
    }

    /// The archive of a build in apt's own cache.
    fn cached(&self, build: &Build) -> Option<PathBuf> {
        let name = build.name.split(':').next().unwrap_or(&build.name);
        let version = build.version.replace(':', "%3a");
        let path = Path::new(CACHE).join(format!("{name}_{version}_{}.deb", build.architecture));
        self.files().stat(&path).is_ok().then_some(path)
    }

    /// Takes an archive that lies on the node, after asking what it is.
    fn take(
        &self,
        build: &Build,
        path: &Path,
        from: KeptFrom,
        origins: Vec<String>,
        work: PackageWork<'_>,
    ) -> PackageResult<Kept> {
        let on_machine = self.files().root().join(path.strip_prefix("/").unwrap_or(path));
        let shown = on_machine.display().to_string();
        let fields = self.programs.read(
            "dpkg-deb",
            &["--show", "--showformat=pkg\\t${Package}\\t${Version}\\t${Architecture}\\n", &shown],
            work,
        )?;
        let name = build.name.split(':').next().unwrap_or(&build.name);
        let expected = format!("pkg\t{name}\t{}\t{}", build.version, build.architecture);
        if !fields.lines().any(|line| line == expected) {
            return Err(PackageError::new(PackageFault::Altered, format!("{shown} is not {build}")));
        }
        let of = |e: &super::super::files::FileError| PackageError::new(PackageFault::Other, e.to_string());
        let mut file = self.files().open(path).map_err(|e| of(&e))?;
        let size = file.stat().map_err(|e| of(&e))?.size;
        self.store.keep(build, from, origins, size, |to| copy(&mut *file, to, &on_machine))
    }

    /// Fetches one archive from its publisher. What apt puts down it has checked against the signed index.
    fn fetch(&self, build: &Build, work: PackageWork<'_>) -> PackageResult<Kept> {
        let of = |e: &super::super::files::FileError| PackageError::new(PackageFault::Other, e.to_string());
        let files = self.files();
        let incoming = Path::new(CACHE).join("fleet-incoming");
        files.make_directories(&incoming, 0o755).map_err(|e| of(&e))?;
        let sweep = || {
            for entry in files.list(&incoming).unwrap_or_default() {
                // A rest that cannot be removed is overwritten or found wrong below.
                let _ = files.remove_file(&entry.path);
            }
        };
        sweep();
        let taken = (|| {
            let wanted = format!("{}={}", build.name, build.version);
            self.programs.read_in(&incoming, "apt-get", &["download", "--", &wanted], work)?;
            let found = files.list(&incoming).map_err(|e| of(&e))?;
            let [one] = found.as_slice() else {
                let message = format!("{build}: apt fetched {} files instead of one", found.len());
                return Err(PackageError::new(PackageFault::Other, message));
            };
            let mut described = [PackageChange {
                name: build.name.clone(),
                from: None,
                to: Some(build.clone()),
                direction: Direction::Added,
                origins: Vec::new(),
                security: false,
                archive_bytes: 0,
                installed_bytes: 0,
            }];
            self.describe(&mut described, work)?;
            let [described] = described;
            self.take(build, &one.path, KeptFrom::Publisher, described.origins, work)
        })();
        sweep();
        // It is made anew for the next; one that stays is empty.
        let _ = files.remove_directory(&incoming);
        taken
    }
}

/// The changes of a simulation, against what is installed.
fn changes_of(text: &str, installed: &InstalledPackages) -> Vec<PackageChange> {
    let simulated = parse::simulation(text).into_iter();
    simulated
        .filter_map(|one| {
            let known = installed.get(&one.name).filter(|known| known.standing != Standing::Removed);
            let from = known.map(|known| known.build.clone());
            let to =
                one.to.map(|(version, architecture)| Build { name: one.name.clone(), version, architecture });
            let direction = direction(from.as_ref(), to.as_ref())?;
            Some(PackageChange {
                name: one.name,
                from,
                to,
                direction,
                origins: Vec::new(),
                security: false,
                archive_bytes: 0,
                installed_bytes: 0,
            })
        })
        .collect()
}

/// Which way a change goes; none when there is nothing on either side.
fn direction(from: Option<&Build>, to: Option<&Build>) -> Option<Direction> {
    Some(match (from, to) {
        (None, None) => return None,
        (None, Some(_)) => Direction::Added,
        (Some(_), None) => Direction::Removed,
        (Some(from), Some(to)) => match dpkg::order(&to.version, &from.version) {
            Ordering::Greater => Direction::Upgraded,
            Ordering::Less => Direction::Downgraded,
            Ordering::Equal => Direction::Reinstalled,
        },
    })
}

/// `deb-control(5)` and `deb-version(7)`: no name or version is an option, a path or a second argument.
fn check_words(name: &str, version: Option<&str>) -> PackageResult<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-:".contains(&b);
    // A sign at the end would be apt's word for installing or removing it.
    if !first || !name.bytes().all(good) || name.ends_with(['-', '+']) {
        let message = format!("{name:?} is no name of a package");
        return Err(PackageError::new(PackageFault::NoPackage, message));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b".+~:-".contains(&b);
    match version {
        Some(version) if version.is_empty() || !version.bytes().all(good) => {
            let message = format!("{version:?} is no version of a package");
            Err(PackageError::new(PackageFault::NoVersion, message))
        }
        _ => Ok(()),
    }
}

impl Packages for AptPackages {
    fn manager(&self) -> Option<&'static str> {
        let files = self.files();
        let database = files.stat(Path::new(database::STATUS)).is_ok();
        // The machine's own programs work on the root of a development node.
        let there = |name: &str| {
            self.programs.processes.has_program(name)
                || (self.programs.root().is_some() && Path::new("/usr/bin").join(name).exists())
        };
        (database && there("apt-get") && there("dpkg")).then_some("apt")
    }

    fn damage(&self) -> Option<String> {
        database::damage(self.files())
    }

    fn installed(&self, work: PackageWork<'_>) -> PackageResult<InstalledPackages> {
        self.ready()?;
        let format = format!("--showformat={}", parse::INSTALLED_FORMAT);
        match self.programs.read("dpkg-query", &["--show", &format], work) {
            Ok(text) => Ok(parse::installed(&text, self.native(work)?)),
            // A database without any package.
            Err(error) if error.evidence.contains("no packages found") => Ok(InstalledPackages::new()),
            Err(error) => Err(error),
        }
    }

    fn listed(&self) -> PackageResult<Vec<Package>> {
        self.ready()?;
        listed::listed(self.files())
    }

    fn available(&self, work: PackageWork<'_>) -> PackageResult<BTreeMap<String, Available>> {
        let installed = self.installed(work)?;
        let text =
            self.programs.read("apt-get", &["-s", "--ignore-hold", "--with-new-pkgs", "upgrade"], work)?;
        let mut changes = changes_of(&text, &installed);
        changes.retain(|change| change.direction == Direction::Upgraded);
        self.describe(&mut changes, work)?;
        let mut available = BTreeMap::new();
        for some in changes.chunks(NAMES_AT_ONCE) {
            let sources = parse::sources(&self.told_of(some, work)?);
            for change in some {
                let Some(to) = &change.to else { continue };
                let name = change.name.split(':').next().unwrap_or(&change.name).to_owned();
                let version = to.version.clone();
                let (_, source_version) =
                    listed::source(sources.get(&(name.clone(), version.clone())).cloned(), &name, &version);
                let origin = change.origins.join(", ");
                available.insert(name, Available { version, source_version, origin });
            }
        }
        Ok(available)
    }

    fn owners(&self, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
        listed::owners(self.files(), paths)
    }

    fn automatic(&self, work: PackageWork<'_>) -> PackageResult<BTreeSet<String>> {
        self.ready()?;
        let text = self.programs.read("apt-mark", &["showauto"], work)?;
        Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn audit(&self, work: PackageWork<'_>) -> PackageResult<Vec<String>> {
        self.ready()?;
        let text = self.programs.read("dpkg", &["--audit"], work)?;
        let mut found: Vec<String> = Vec::new();
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            let (entries, words): (Vec<&str>, Vec<&str>) =
                paragraph.lines().partition(|line| line.starts_with(' '));
            let names: Vec<&str> = entries.iter().filter_map(|line| line.split_whitespace().next()).collect();
            let words = words.join(" ");
            let first = words.split(['.', ':']).next().unwrap_or(&words);
            found.push(if names.is_empty() { words } else { format!("{}: {first}", names.join(", ")) });
        }
        if found.is_empty() {
            found.extend(self.damage());
        }
        Ok(found)
    }

    fn refresh(&self, work: PackageWork<'_>) -> PackageResult<()> {
        self.ready()?;
        let text = self.programs.read("apt-get", &["update"], work)?;
        match complaint(&text) {
            None => Ok(()),
            Some((fault, words)) => Err(PackageError::new(fault, format!("apt-get update: {words}"))),
        }
    }

    fn resolve(&self, wanted: &Wanted, work: PackageWork<'_>) -> PackageResult<Vec<PackageChange>> {
        let installed = self.installed(work)?;
        let mut arguments: Vec<String> = vec!["-s".to_owned()];
        match wanted {
            Wanted::AllUpdates => {
                arguments.extend(["--with-new-pkgs".to_owned(), "upgrade".to_owned()]);
            }
            Wanted::Named(names) => {
                // Holds and downgrades are for the caller to judge; without these apt only says that there is one.
                let asked = ["--allow-change-held-packages", "--allow-downgrades", "install", "--"];
                arguments.extend(asked.map(str::to_owned));
                for (name, version) in names {
                    check_words(name, version.as_deref())?;
                    let known = installed.get(name).filter(|known| known.standing != Standing::Removed);
                    if known.is_none() {
                        let message = format!("package {name} is not installed on this node");
                        return Err(PackageError::new(PackageFault::NoPackage, message));
                    }
                    arguments.push(version.as_ref().map_or_else(|| name.clone(), |v| format!("{name}={v}")));
                }
            }
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = self.programs.read("apt-get", &arguments, work)?;
        let mut changes = changes_of(&text, &installed);
        if let Wanted::Named(names) = wanted {
            self.check_published(names, &changes, work)?;
        }
        self.describe(&mut changes, work)?;
        Ok(changes)
    }

    fn kept(&self, build: &Build) -> PackageResult<Option<Kept>> {
        self.store.find(build)
    }

    fn keep(&self, build: &Build, fetch: bool, work: PackageWork<'_>) -> PackageResult<Kept> {
        self.ready()?;
        check_words(&build.name, Some(&build.version))?;
        let _one = self.turn(work)?;
        match self.store.find(build) {
            Ok(Some(kept)) => {
                self.store.touch(build)?;
                return Ok(kept);
            }
            Ok(None) => {}
            // One that was altered is fetched anew where it can be, and never used.
            Err(error) if error.fault == PackageFault::Altered && fetch => {}
            Err(error) => return Err(error),
        }
        // A cached archive was checked when it was fetched; that it is the right one is asked of itself.
        if let Some(path) = self.cached(build)
            && let Ok(kept) = self.take(build, &path, KeptFrom::Cache, Vec::new(), work)
        {
            return Ok(kept);
        }
        let fetched = fetch.then(|| self.fetch(build, work));
        if let Some(Ok(kept)) = fetched {
            return Ok(kept);
        }
        let installed = self.installed(work)?;
        let is_here = installed
            .get(&build.name)
            .is_some_and(|known| known.build == *build && known.standing == Standing::Installed);
        if is_here {
            let (parts, size) = repack::gather(self.files(), build)?;
            return self.store.keep(build, KeptFrom::Repacked, Vec::new(), size, |file| {
                repack::write(self.files(), &parts, file)
            });
        }
        fetched.unwrap_or_else(|| {
            let message = format!("no archive of {build} is kept on this node");
            Err(PackageError::new(PackageFault::NotKept, message))
        })
    }

    fn config_files(&self, builds: &[Build], work: PackageWork<'_>) -> PackageResult<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for build in builds {
            found.extend(repack::config_files(self.files(), build)?);
            if self.store.find(build)?.is_none() {
                continue;
            }
            let path = self.store.path(build)?.display().to_string();
            match self.programs.read("dpkg-deb", &["--info", &path, "conffiles"], work) {
                Ok(text) => found.extend(repack::paths(&text)),
                Err(error) if error.evidence.contains("control component") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn set_aside(&self, path: &Path) -> PackageResult<Option<SetAside>> {
        let _one = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        self.copies.set_aside(self.files(), path)
    }

    fn put_back(&self, path: &Path, content: &SetAside) -> PackageResult<()> {
        self.copies.put_back(self.files(), path, content)
    }

    fn rehearse(
        &self,
        changes: &[PackageChange],
        work: PackageWork<'_>,
    ) -> PackageResult<Vec<PackageChange>> {
        let installed = self.installed(work)?;
        let arguments = self.install_arguments(changes)?;
        let arguments: Vec<&str> =
            std::iter::once("-s").chain(arguments.iter().map(String::as_str)).collect();
        let text = self.programs.read("apt-get", &arguments, work)?;
        Ok(changes_of(&text, &installed))
    }

    fn change(&self, changes: &[PackageChange], part: &str, work: PackageWork<'_>) -> PackageResult<()> {
        self.ready()?;
        let arguments = self.install_arguments(changes)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.programs.effect("apt-get", &arguments, part, work).map(drop)
    }

    fn purge(&self, names: &[String], part: &str, work: PackageWork<'_>) -> PackageResult<()> {
        self.ready()?;
        let mut arguments = vec!["--purge", "--"];
        arguments.extend(names.iter().map(String::as_str));
        self.programs.effect("dpkg", &arguments, part, work).map(drop)
    }

    fn repair(&self, part: &str, work: PackageWork<'_>) -> PackageResult<()> {
        self.ready()?;
        self.programs.effect("dpkg", &["--configure", "-a"], part, work).map(drop)
    }

    fn mark(&self, marks: &Marks, part: &str, work: PackageWork<'_>) -> PackageResult<()> {
        let installed = self.installed(work)?;
        let automatic = self.automatic(work)?;
        let there =
            |name: &&String| installed.get(*name).is_some_and(|known| known.standing != Standing::Removed);
        let names: Vec<&String> = marks.names.iter().filter(there).collect();
        let held = |name: &String| installed.get(name).is_some_and(|known| known.held);
        let of = |wanted: &dyn Fn(&String) -> bool| -> Vec<&str> {
            names.iter().filter(|name| wanted(name)).map(|name| name.as_str()).collect()
        };
        let all = [
            ("auto", of(&|name| marks.automatic.contains(name) && !automatic.contains(name))),
            ("hold", of(&|name| marks.held.contains(name) && !held(name))),
            ("unhold", of(&|name| !marks.held.contains(name) && held(name))),
        ];
        for (verb, names) in all.iter().filter(|(_, names)| !names.is_empty()) {
            let mut arguments = vec![*verb, "--"];
            arguments.extend(names);
            self.programs.effect("apt-mark", &arguments, &format!("{part}-{verb}"), work)?;
        }
        Ok(())
    }
}
