//! The configuration files of a fleet on one machine: the same files as in production, small. Pure.

use std::path::{Path, PathBuf};

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

/// The controller's; `rest` is added as it is.
pub fn controller(data: &Path, at: &Served, rest: &str) -> String {
    format!(
        "data_directory = {}\n\n\
         [server]\n\
         agent_listen = {}\n\
         enrol_listen = {}\n\
         server_names = [{}]\n{rest}",
        quoted_path(data),
        quoted(&at.agent),
        quoted(&at.enrol),
        quoted(SERVER_NAME),
    )
}

/// Where a node's agent keeps what is its own, and the root that it works below.
#[derive(Debug, Clone)]
pub struct NodeFolders {
    /// Its certificate and key.
    pub identity: PathBuf,
    /// Journal, reports, records.
    pub state: PathBuf,
    /// Scratch.
    pub work: PathBuf,
    /// The private root.
    pub root: PathBuf,
}

impl NodeFolders {
    /// All in one folder.
    pub fn below(folder: &Path) -> Self {
        let [identity, state, work, root] =
            ["identity", "state", "work", "root"].map(|name| folder.join(name));
        Self { identity, state, work, root }
    }
}

/// A node's agent's; `rest` is added as it is.
pub fn agent(name: &str, folders: &NodeFolders, at: &Served, rest: &str) -> String {
    format!(
        "schema = \"fleet/v1\"\n\
         kind   = \"agent\"\n\
         name   = {}\n\n\
         [controller]\n\
         endpoints   = [{{ address = {} }}]\n\
         enrol       = {}\n\
         server_name = {}\n\n\
         [identity]\n\
         directory = {}\n\n\
         [runtime]\n\
         state_directory = {}\n\
         work_directory  = {}\n\n\
         [dev]\n\
         root = {}\n\n{rest}",
        quoted(name),
        quoted(&at.agent),
        quoted(&at.enrol),
        quoted(SERVER_NAME),
        quoted_path(&folders.identity),
        quoted_path(&folders.state),
        quoted_path(&folders.work),
        quoted_path(&folders.root),
    )
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
        let agent: toml::Table =
            agent("fw-1", &NodeFolders::below(folder), &at, "[policy]\nmode = \"enforce\"\n")
                .parse()
                .unwrap();
        assert_eq!(agent["dev"]["root"].as_str(), folder.join("root").to_str());
        assert_eq!(agent["controller"]["endpoints"][0]["address"].as_str(), Some("127.0.0.1:1"));
        assert_eq!(agent["policy"]["mode"].as_str(), Some("enforce"));
        let controller: toml::Table = controller(folder, &at, "").parse().unwrap();
        assert_eq!(controller["server"]["enrol_listen"].as_str(), Some("127.0.0.1:2"));
        assert_eq!(controller["data_directory"].as_str(), folder.to_str());
    }
}
