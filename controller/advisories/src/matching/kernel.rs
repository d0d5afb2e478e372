//! Kernels: of those that are installed the running one counts. Pure.

use std::borrow::Cow;

use fleet_types::package_version::PackageFormat;

use crate::inventory::{Inventory, Package};

/// The packages that hold a kernel that can be booted, by name: dpkg puts the release of the kernel behind it.
const DPKG_IMAGES: &[&str] = &["linux-image-unsigned-", "linux-image-"];
/// What is built with a kernel beside it, in every flavour.
const DPKG_BESIDE: &[&str] = &[
    "linux-image-",
    "linux-headers-",
    "linux-modules-",
    "linux-tools-",
    "linux-cloud-tools-",
    "linux-buildinfo-",
];
/// Those of rpm, which keeps several versions of one name.
const RPM_IMAGES: &[&str] = &["kernel-core", "kernel-rt-core", "kernel-64k-core", "kernel"];

/// What a package has to do with a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    None,
    /// It holds one.
    Image,
    /// It is built with one and runs by itself or not at all: headers, tools, meta packages.
    Beside,
}

/// The source package, and the version to compare, that advisories name. Images are signed in a source package of
/// their own, whose version has other letters; the binary's version is that of the kernel.
pub(super) fn named(package: &Package) -> (Cow<'_, str>, &str) {
    match package.source.strip_prefix("linux-signed") {
        // Debian signs for each architecture, Ubuntu for each flavour.
        Some("" | "-amd64" | "-arm64" | "-i386") => (Cow::Borrowed("linux"), &package.version),
        Some(flavour) if flavour.starts_with('-') => {
            (Cow::Owned(format!("linux{flavour}")), &package.version)
        }
        _ => (Cow::Borrowed(&package.source), &package.source_version),
    }
}

/// The role of an installed package.
pub(super) fn role(package: &Package, format: PackageFormat) -> Role {
    let name = package.name.as_str();
    match format {
        PackageFormat::Dpkg if image_release(package).is_some() => Role::Image,
        PackageFormat::Dpkg => {
            let is_beside = DPKG_BESIDE.iter().any(|prefix| name.starts_with(prefix));
            if is_beside || named(package).0 == "linux" { Role::Beside } else { Role::None }
        }
        PackageFormat::Rpm if RPM_IMAGES.contains(&name) => Role::Image,
        PackageFormat::Rpm if name.starts_with("kernel") => Role::Beside,
        PackageFormat::Rpm => Role::None,
    }
}

/// The newest kernel that is installed: the one that is booted next.
pub fn newest_kernel(inventory: &Inventory) -> Option<&Package> {
    let format = inventory.format();
    let images = inventory.packages().iter().filter(|package| role(package, format) == Role::Image);
    images.max_by(|a, b| format.order(&a.version, &b.version))
}

/// The release that a package of dpkg boots; none of a meta package.
fn image_release(package: &Package) -> Option<&str> {
    let release = DPKG_IMAGES.iter().find_map(|prefix| package.name.strip_prefix(prefix))?;
    release.starts_with(|c: char| c.is_ascii_digit()).then_some(release)
}

/// Whether a package of this name brings another kernel: of dpkg a new one comes under a name of its own, pulled in by
/// a meta package.
pub(super) fn may_bring(name: &str, format: PackageFormat) -> bool {
    match format {
        PackageFormat::Dpkg => DPKG_IMAGES.iter().any(|prefix| name.starts_with(prefix)),
        PackageFormat::Rpm => RPM_IMAGES.contains(&name),
    }
}

/// Whether this package is the kernel that runs, by what `uname -r` says.
pub(super) fn is_running(package: &Package, format: PackageFormat, running: &str) -> bool {
    match format {
        PackageFormat::Dpkg => image_release(package) == Some(running),
        PackageFormat::Rpm => {
            // 5.14.0-503.11.1.el9_5.x86_64, and +rt or +64k behind that of a variant.
            let running = running.split('+').next().unwrap_or(running);
            let version = package.version.split_once(':').map_or(package.version.as_str(), |(_, rest)| rest);
            let architecture = running.strip_prefix(version).and_then(|rest| rest.strip_prefix('.'));
            architecture == Some(&package.architecture)
        }
    }
}
