//! What of a node is compared before and after work on it: packages, files with owner, mode and content, rules, units, and a
//! database to the row. Asks the node's own programs, never the agent; changes nothing.

use std::fmt::Write as _;

use anyhow::Result;

use super::story::Story;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Folders, each with all that lies in it.
    pub folders: &'a [&'a str],
    /// Units: do they run, do they start with the machine?
    pub units: &'a [&'a str],
    /// A database of the node's `PostgreSQL`.
    pub database: Option<&'a str>,
    /// A command that tells more.
    pub more: &'a str,
}

const PACKAGES: &str =
    "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'; apt-mark showhold | sed 's/^/hold /'
    apt-mark showauto | sed 's/^/auto /'\n";
/// Names of files here have no line ends.
const FILES: &str = "find $folders -printf '%M %u:%g %p -> %l\n' | sort -k3
    find $folders -type f -print0 | sort -z | xargs -0r sha256sum\n";
/// Sizes of pages, positions of rows and the order of tables are not the database's content. The two lines with a key that is
/// drawn anew for each dump are left out.
const DATABASE: &str = "sql() { runuser -u postgres -- psql -X -q -A -t -v ON_ERROR_STOP=1 \"$@\"; }
    sql -d postgres -c 'SELECT datname FROM pg_database ORDER BY 1' | sed 's/^/database /'
    runuser -u postgres -- pg_dump -s -d $database | grep -v -e '^.restrict' -e '^.unrestrict' -e '^--' -e '^$'
    for table in $(sql -d $database -c \"SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1\"); do
        sql -d $database -c \"SELECT '$table', t::text FROM $table t ORDER BY 2\"
    done
    sql -d $database -c \"SELECT sequencename, last_value FROM pg_sequences ORDER BY 1\"\n";

impl Watched<'_> {
    fn script(&self) -> String {
        let mut script = PACKAGES.to_owned();
        let _ = writeln!(script, "folders='{}'", self.folders.join(" "));
        script.push_str(FILES);
        script.push_str("nft -s list ruleset\n");
        for unit in self.units {
            let _ =
                writeln!(script, "echo {unit} $(systemctl is-active {unit}; systemctl is-enabled {unit})");
        }
        if let Some(database) = self.database {
            let _ = writeln!(script, "database={database}");
            script.push_str(DATABASE);
        }
        script.push_str(self.more);
        script
    }
}

impl Story {
    /// Looks.
    pub async fn look(&self, watched: &Watched<'_>) -> Result<String> {
        self.lab.shell("n1", &watched.script()).await
    }
}

/// The lines that one of two looks has and the other has not.
pub fn differences(before: &str, after: &str) -> Vec<String> {
    let missing = |of: &str, from: &str, sign: char| -> Vec<String> {
        let have: std::collections::BTreeSet<&str> = from.lines().collect();
        of.lines().filter(|line| !have.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    [missing(before, after, '-'), missing(after, before, '+')].concat()
}
