//! A restart of the machine: through logind, which lets programs that hold it up finish, else by systemd's own target.
//!
//! logind lets root pass over those who block a restart, so they are asked for first. Called by the systemd backend.

use zbus::{Connection, Error, fdo, proxy};

use super::systemd::{ManagerProxy, unit_error};
use super::units::UnitError;

/// What errors are told of.
const TARGET: &str = "reboot.target";

/// Who holds what up, how, and why: what, who, why, mode, user, process (`org.freedesktop.login1(5)`).
type Inhibitor = (String, String, String, String, u32, u32);

#[proxy(
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    interface = "org.freedesktop.login1.Manager"
)]
trait Login {
    fn list_inhibitors(&self) -> zbus::Result<Vec<Inhibitor>>;
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
}

/// Is there no logind, and none that could be started?
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::FDO(fault) if matches!(**fault, fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_)))
        || matches!(error, Error::MethodError(name, _, _)
            if name.as_str() == "org.freedesktop.DBus.Error.ServiceUnknown" || name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Those who block a restart; those who only delay it are waited for by logind.
pub(super) async fn against(bus: &Connection) -> Result<Vec<String>, UnitError> {
    let wrong = |error: &Error| unit_error(TARGET, error);
    let login = LoginProxy::new(bus).await.map_err(|error| wrong(&error))?;
    let all = match login.list_inhibitors().await {
        Ok(all) => all,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error)),
    };
    let blocks = |(what, _, _, mode, ..): &Inhibitor| {
        mode.starts_with("block") && what.split(':').any(|what| what == "shutdown")
    };
    Ok(all.into_iter().filter(blocks).map(|(_, who, why, ..)| format!("{who}: {why}")).collect())
}

/// Asks for the restart.
pub(super) async fn restart(bus: &Connection) -> Result<(), UnitError> {
    let wrong = |error: &Error| unit_error(TARGET, error);
    let login = LoginProxy::new(bus).await.map_err(|error| wrong(&error))?;
    match login.reboot(false).await {
        Err(error) if is_absent(&error) => {
            let manager = ManagerProxy::new(bus).await.map_err(|error| wrong(&error))?;
            // As systemctl(1) does: nothing that is started meanwhile stops it again.
            let given = manager.start_unit(TARGET, "replace-irreversibly").await;
            given.map(drop).map_err(|error| wrong(&error))
        }
        asked => asked.map_err(|error| wrong(&error)),
    }
}
