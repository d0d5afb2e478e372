//! The configuration files of a development fleet: the same files as in production, small. Pure.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

/// Where the controller serves: what it writes to its ready file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Served {
    /// For agents and operators, host:port.
    pub agent: String,
    /// For enrolment, host:port.
    pub enrol: String,
}

impl Served {
    /// Any free ports of this machine only.
    pub fn anywhere() -> Self {
        Self { agent: "127.0.0.1:0".to_owned(), enrol: "127.0.0.1:0".to_owned() }
    }
}

/// The name in the controller's certificate.
pub const SERVER_NAME: &str = "localhost";

/// The controller's.
pub fn controller(data: &Path, at: &Served) -> String {
    format!(
        "# Controller of a development fleet, written anew by each `fleetctl dev`.\n\
         data_directory = {}\n\n\
         [server]\n\
         agent_listen = {}\n\
         enrol_listen = {}\n\
         server_names = [{}]\n",
        quoted_path(data),
        quoted(&at.agent),
        quoted(&at.enrol),
        quoted(SERVER_NAME),
    )
}

/// A node's agent's.
pub fn agent(name: &str, folder: &Path, at: &Served) -> String {
    let mut text = format!(
        "# Agent of a development node, written anew by each `fleetctl dev`.\n\
         schema = \"fleet/v1\"\n\
         kind   = \"agent\"\n\
         name   = {}\n\n\
         [controller]\n\
         endpoints   = [{{ address = {} }}]\n\
         enrol       = {}\n\
         server_name = {}\n\
         backoff.max = \"2s\"           # a restarted controller is found again at once\n\n",
        quoted(name),
        quoted(&at.agent),
        quoted(&at.enrol),
        quoted(SERVER_NAME),
    );
    let _ = write!(
        text,
        "[identity]\n\
         directory = {}\n\n\
         [runtime]\n\
         state_directory = {}\n\
         work_directory  = {}\n\n\
         # The node owner's last word. A real node starts as read_only; a development node may be changed, also\n\
         # while nothing is known about its partner.\n\
         [policy]\n\
         mode = \"enforce\"\n\
         require_healthy_partner = false\n\
         max_disruptive_jobs = {{ count = 1000, within = \"24h\" }}\n\
         min_free_disk = \"64MiB\"\n\n\
         [timers]\n\
         drain = \"3s\"\n\n\
         [dev]\n\
         root = {}\n",
        quoted_path(&folder.join("identity")),
        quoted_path(&folder.join("state")),
        quoted_path(&folder.join("work")),
        quoted_path(&folder.join("root")),
    );
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_odd_characters_stay_whole() {
        let folder = Path::new("/tmp/it's \"odd\" \\ here");
        let at = Served { agent: "127.0.0.1:1".into(), enrol: "127.0.0.1:2".into() };
        let agent: toml::Table = agent("fw-1", folder, &at).parse().unwrap();
        assert_eq!(agent["dev"]["root"].as_str(), folder.join("root").to_str());
        assert_eq!(agent["controller"]["endpoints"][0]["address"].as_str(), Some("127.0.0.1:1"));
        assert_eq!(agent["policy"]["mode"].as_str(), Some("enforce"));
        let controller: toml::Table = controller(folder, &at).parse().unwrap();
        assert_eq!(controller["server"]["enrol_listen"].as_str(), Some("127.0.0.1:2"));
        assert_eq!(controller["data_directory"].as_str(), folder.to_str());
    }
}
