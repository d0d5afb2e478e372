//! The archive of a development fleet, and how a node's private root becomes a system that apt and dpkg work on.
//!
//! ```text
//! FOLDER/archive/    the packages, their list, the signed statement about it
//!        template/   a root with the first version installed; nodes get its database
//!        key.gpg     whom the nodes trust
//!        log         what the programs said
//! ```
//!
//! The key that signs lives as long as the archive is being made and is kept nowhere: nobody can add to the archive later.
//! Nothing outside of the folder and of the roots that are named is written. Blocking.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fleet_types::digest::Digest;
use fleet_types::time::Timestamp;

use super::product::{ORIGIN, Product};
use super::programs::{Caller, PackagingError};

/// Whose key signs.
const SIGNER: &str = "dev@fleet.invalid";
/// Where dpkg keeps its database.
const DATABASE: &str = "var/lib/dpkg";
/// Folders that apt and dpkg expect on a system.
const FOLDERS: [&str; 11] = [
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "tmp",
    "usr",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/lib/dpkg/info",
    "var/lib/dpkg/updates",
    "var/log/apt",
];

/// An archive that is made.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// The archive that was made in this folder before; none where there is none, or a half-made one.
    pub fn open(folder: &Path) -> Option<Self> {
        // It is put there last.
        let made = folder.join("key.gpg").exists();
        made.then(|| Self { folder: folder.to_owned() })
    }

    /// Can packages be handled below this folder? Its name stands in files of apt, which has rules of its own for blanks,
    /// quotes and the like.
    pub fn can_be_in(folder: &Path) -> bool {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
        folder.is_absolute() && folder.as_os_str().as_encoded_bytes().iter().copied().all(good)
    }

    /// Makes an archive of these products, of which the first is the one that nodes begin with.
    pub fn make(
        folder: &Path,
        products: &[Product],
        now: Timestamp,
        caller: &Caller,
    ) -> Result<Self, PackagingError> {
        let archive = Self { folder: folder.to_owned() };
        make_folder(&archive.packages())?;
        for product in products {
            archive.build(product, caller)?;
        }
        if let Some(first) = products.first() {
            archive.install_in_template(first, caller)?;
        }
        archive.publish(now, caller)?;
        Ok(archive)
    }

    /// Makes an archive of packages that are built already, and no system that has one of them installed.
    pub fn of(
        folder: &Path,
        packages: &[PathBuf],
        now: Timestamp,
        caller: &Caller,
    ) -> Result<Self, PackagingError> {
        let archive = Self { folder: folder.to_owned() };
        make_folder(&archive.packages())?;
        for package in packages {
            let to = archive.packages().join(package.file_name().unwrap_or_default());
            fs::copy(package, &to).map_err(PackagingError::at(package))?;
        }
        archive.publish(now, caller)?;
        Ok(archive)
    }

    /// Lists the packages that lie there and signs the list.
    fn publish(&self, now: Timestamp, caller: &Caller) -> Result<(), PackagingError> {
        let folder = self.packages();
        let entries = fs::read_dir(&folder).map_err(PackagingError::at(&folder))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        paths.sort_unstable();
        let mut paragraphs = Vec::new();
        for path in &paths {
            let about = tempfile::tempdir_in(&self.folder).map_err(PackagingError::at(&self.folder))?;
            caller.run(Caller::command("dpkg-deb").arg("--control").arg(path).arg(about.path()))?;
            let control = about.path().join("control");
            let control = fs::read_to_string(&control).map_err(PackagingError::at(&control))?;
            let bytes = fs::read(path).map_err(PackagingError::at(path))?;
            let (file, size) = (path.file_name().unwrap_or_default().to_string_lossy(), bytes.len());
            paragraphs
                .push(format!("{control}Filename: ./{file}\nSize: {size}\nSHA256: {}\n", Digest::of(&bytes)));
        }
        let list = paragraphs.join("\n");
        write(&folder.join("Packages"), list.as_bytes(), 0o644)?;
        self.sign(&statement(&list, now), caller)
    }

    /// Makes a root that was laid out a system whose database knows the first version as installed.
    pub fn install(&self, root: &Path) -> Result<(), PackagingError> {
        for folder in FOLDERS {
            make_folder(&root.join(folder))?;
        }
        let (from, to) = (self.folder.join("template").join(DATABASE), root.join(DATABASE));
        copy_tree(&from, &to).map_err(PackagingError::at(&to))?;
        self.point_to(root)
    }

    /// Tells a root where the archive is and whom to trust; again after the folder was moved.
    pub fn point_to(&self, root: &Path) -> Result<(), PackagingError> {
        let key = self.folder.join("key.gpg");
        let trusted = root.join("etc/apt/trusted.gpg.d/zehrasec.gpg");
        fs::copy(&key, &trusted).map_err(PackagingError::at(&trusted))?;
        let line = format!("deb copy:{} ./\n", self.packages().display());
        write(&root.join("etc/apt/sources.list"), line.as_bytes(), 0o644)
    }

    /// Where the packages lie.
    pub fn packages(&self) -> PathBuf {
        self.folder.join("archive")
    }

    /// Builds a package.
    fn build(&self, product: &Product, caller: &Caller) -> Result<(), PackagingError> {
        let tree = tempfile::tempdir_in(&self.folder).map_err(PackagingError::at(&self.folder))?;
        let control = tree.path().join("DEBIAN");
        write(&control.join("control"), product.control().as_bytes(), 0o644)?;
        write(&control.join("conffiles"), product.conffiles().as_bytes(), 0o644)?;
        if let Some(script) = &product.postinst {
            write(&control.join("postinst"), script.as_bytes(), 0o755)?;
        }
        for (path, mode, text) in product.files() {
            write(&tree.path().join(path), text.as_bytes(), mode)?;
        }
        // What is temporary is private; what is unpacked is not.
        set_mode(tree.path(), 0o755)?;
        let path = self.packages().join(product.file_name());
        let mut command = Caller::command("dpkg-deb");
        // Text of a few kilobytes is not worth compressing.
        command.args(["--root-owner-group", "-Znone", "--build"]).arg(tree.path()).arg(&path);
        caller.run(&mut command)
    }

    fn install_in_template(&self, product: &Product, caller: &Caller) -> Result<(), PackagingError> {
        let root = self.folder.join("template");
        for folder in FOLDERS {
            make_folder(&root.join(folder))?;
        }
        write(&root.join(DATABASE).join("status"), b"", 0o644)?;
        let mut command = Caller::command("dpkg");
        command.arg(format!("--root={}", root.display()));
        command.arg(format!("--log={}", root.join("var/log/dpkg.log").display()));
        // A template that a power cut spoils is made anew.
        command.args(["--force-not-root", "--force-script-chrootless", "--force-unsafe-io", "--install"]);
        caller.run(command.arg(self.packages().join(product.file_name())))
    }

    /// Signs what the archive states, with a key that is made for it and gone afterwards.
    fn sign(&self, statement: &str, caller: &Caller) -> Result<(), PackagingError> {
        // Not below our folder: the socket of gpg's agent has a short path at most.
        let private = fs::Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().prefix("fleet-key-").permissions(private).tempdir();
        let key = Key { home: home.map_err(PackagingError::at(&self.folder))?, caller };
        let release = self.packages().join("Release");
        write(&release, statement.as_bytes(), 0o644)?;
        key.gpg(&["--passphrase", "", "--quick-generate-key", SIGNER, "ed25519", "sign", "never"], &[])?;
        let signed = self.packages().join("InRelease");
        key.gpg(&["--clearsign", "--output"], &[&signed, &release])?;
        let (exported, trusted) = (self.folder.join("key.new"), self.folder.join("key.gpg"));
        key.gpg(&["--output"], &[&exported, Path::new("--export")])?;
        set_mode(&exported, 0o644)?;
        fs::rename(&exported, &trusted).map_err(PackagingError::at(&trusted))
    }
}

/// A key that goes with the value, and its agent with it.
struct Key<'a> {
    home: tempfile::TempDir,
    caller: &'a Caller,
}

impl Key<'_> {
    fn gpg(&self, arguments: &[&str], paths: &[&Path]) -> Result<(), PackagingError> {
        let mut command = Caller::command("gpg");
        command.arg("--homedir").arg(self.home.path()).args(["--batch", "--yes", "--quiet"]);
        self.caller.run(command.args(arguments).args(paths))
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        let mut command = Caller::command("gpgconf");
        command.arg("--homedir").arg(self.home.path()).args(["--kill", "all"]);
        // An agent whose folder is gone ends by itself a little later.
        let _ = Caller::new(&self.caller.log).run(&mut command);
    }
}

/// What an archive states about its list (apt-secure(8)).
fn statement(list: &str, now: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    format!(
        "Origin: {ORIGIN}\nLabel: {ORIGIN}\nSuite: stable\nCodename: dev\nArchitectures: all amd64 arm64\nDate: {}\n\
         SHA256:\n {} {} Packages\n",
        at.strftime("%a, %d %b %Y %H:%M:%S UTC"),
        Digest::of(list.as_bytes()),
        list.len()
    )
}

fn make_folder(path: &Path) -> Result<(), PackagingError> {
    fs::create_dir_all(path).map_err(PackagingError::at(path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PackagingError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(PackagingError::at(path))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PackagingError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    fs::write(path, bytes).map_err(PackagingError::at(path))?;
    set_mode(path, mode)
}

/// Files and folders, each a copy of its own: dpkg locks some of them in place.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
