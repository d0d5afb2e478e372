//! What systemd knows of unit files, and which units need one another; asked over the bus.
//!
//! `org.freedesktop.systemd1(5)`. Must not start or stop anything. Called by `systemd` alone.

use std::collections::{BTreeSet, VecDeque};

use zbus::proxy::CacheProperties;
use zbus::{Connection, Error, OwnedObjectPath, proxy};

use super::systemd::unit_error;
use super::units::{UnitError, UnitRelations};

/// So many units are asked whether they need one that is to be stopped. A unit that more need is the machine's own, and
/// no step stops that.
const MAX_ASKED: usize = 256;

/// A changed link of a unit file: what was done, where, to what.
type Link = (String, String, String);

#[proxy(
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    interface = "org.freedesktop.systemd1.Manager"
)]
trait Manager {
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<Link>)>;
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<Link>>;
    fn reload(&self) -> zbus::Result<()>;
}

#[proxy(default_service = "org.freedesktop.systemd1", interface = "org.freedesktop.systemd1.Unit")]
trait Unit {
    #[zbus(property)]
    fn id(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn unit_file_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn can_reload(&self) -> zbus::Result<bool>;
    #[zbus(property)]
    fn required_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property)]
    fn bound_by(&self) -> zbus::Result<Vec<String>>;
}

/// A unit, loaded and never from a cache.
async fn loaded<'b>(bus: &'b Connection, unit: &str) -> zbus::Result<UnitProxy<'b>> {
    let path = ManagerProxy::new(bus).await?.load_unit(unit).await?;
    UnitProxy::builder(bus).path(path).cache_properties(CacheProperties::No).build().await
}

/// See [`UnitRelations`].
pub(super) async fn relations(bus: &Connection, unit: &str) -> Result<UnitRelations, UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let about = loaded(bus, unit).await.map_err(wrong)?;
    Ok(UnitRelations {
        name: about.id().await.map_err(wrong)?,
        masked: about.load_state().await.map_err(wrong)? == "masked",
        can_reload: about.can_reload().await.map_err(wrong)?,
        needed_by: needed_by(bus, &about).await.map_err(wrong)?,
    })
}

/// The units that systemd stops with this one: those that run and require it or are bound to it, and what needs them in
/// turn. Parts of it (`PartOf=`) are none of these: they are meant to follow it.
async fn needed_by(bus: &Connection, unit: &UnitProxy<'_>) -> zbus::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::from([unit.id().await?]);
    let mut to_ask: VecDeque<String> = needers(unit).await?.into();
    while let Some(name) = to_ask.pop_front() {
        if !seen.insert(name.clone()) || seen.len() > MAX_ASKED {
            continue;
        }
        let needer = loaded(bus, &name).await?;
        if matches!(needer.active_state().await?.as_str(), "inactive" | "failed") {
            continue;
        }
        to_ask.extend(needers(&needer).await?);
        if !name.ends_with(".target") {
            found.insert(name);
        }
    }
    Ok(found.into_iter().collect())
}

async fn needers(unit: &UnitProxy<'_>) -> zbus::Result<Vec<String>> {
    let mut needers = unit.required_by().await?;
    needers.extend(unit.bound_by().await?);
    Ok(needers)
}

/// `systemctl(1)`, is-enabled: what has no installation of its own starts with what needs it.
pub(super) async fn is_enabled(bus: &Connection, unit: &str) -> Result<bool, UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let state = loaded(bus, unit).await.map_err(wrong)?.unit_file_state().await.map_err(wrong)?;
    Ok(matches!(state.as_str(), "enabled" | "static" | "alias" | "indirect" | "generated" | "linked"))
}

/// Makes or removes the links of its `[Install]`, and takes them up.
pub(super) async fn set_enabled(bus: &Connection, unit: &str, enabled: bool) -> Result<(), UnitError> {
    let wrong = |error: Error| unit_error(unit, &error);
    let manager = ManagerProxy::new(bus).await.map_err(wrong)?;
    if enabled {
        manager.enable_unit_files(&[unit], false, false).await.map_err(wrong)?;
    } else {
        manager.disable_unit_files(&[unit], false).await.map_err(wrong)?;
    }
    manager.reload().await.map_err(wrong)
}

/// Has the manager read its files again.
pub(super) async fn load_files(bus: &Connection) -> Result<(), UnitError> {
    let wrong = |error: Error| unit_error("systemd", &error);
    ManagerProxy::new(bus).await.map_err(wrong)?.reload().await.map_err(wrong)
}
