//! What the node's owner allows of packages, asked when it is known what would change: before anything does.
//!
//! Which packages a step moves, and who publishes them, follows from lists that lie on the node and not from documents;
//! so these rules are handed to the tasks, which ask them for the plan and before the first change. The way back of a job
//! is not asked (security-and-delivery §1.17). Pure.

use serde::{Deserialize, Serialize};

use super::local::LocalPolicy;
use super::refusal::Refusal;
use crate::host::{Direction, PackageChange};

/// The owner's rules about packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRules {
    origins: Vec<String>,
    protected: Vec<String>,
}

/// The rules of a policy.
pub fn package_rules(policy: &LocalPolicy) -> PackageRules {
    PackageRules { origins: policy.package_origins.clone(), protected: policy.protected_packages.clone() }
}

impl PackageRules {
    /// The first rule that stands against a change, and against which package.
    pub fn against(&self, changes: &[PackageChange]) -> Option<Refusal> {
        const REMEDY: &str = "change the lists in the node's agent.toml, or ask for another version";
        changes.iter().find_map(|change| {
            let name = change.name.split(':').next().unwrap_or(&change.name);
            let refuse = |rule, message: String| Some(Refusal::new(rule, message, REMEDY));
            let to = change.to.as_ref().map_or("nothing", |to| to.version.as_str());
            match change.direction {
                Direction::Removed if self.protected.iter().any(|protected| protected == name) => {
                    refuse("protected-package", format!("{name} would be removed, which is protected"))
                }
                Direction::Removed => None,
                Direction::Downgraded => {
                    let from = change.from.as_ref().map_or("nothing", |from| from.version.as_str());
                    let message = format!(
                        "{name} would go from {from} down to {to}; only the way back of a job may do that"
                    );
                    refuse("package-downgrade", message)
                }
                _ if !change.origins.iter().any(|origin| self.origins.contains(origin)) => {
                    let of = if change.origins.is_empty() {
                        "an origin that nobody vouches for".to_owned()
                    } else {
                        change.origins.join(", ")
                    };
                    refuse(
                        "package-origin",
                        format!("{name} {to} is of {of}, which package_origins does not name"),
                    )
                }
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Build;

    fn change(direction: Direction, origins: &[&str]) -> PackageChange {
        let build = |version: &str| Build {
            name: "fleet-agent".into(),
            version: version.into(),
            architecture: "amd64".into(),
        };
        PackageChange {
            name: "fleet-agent".into(),
            from: Some(build("1.0")),
            to: (direction != Direction::Removed).then(|| build("1.1")),
            direction,
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            security: false,
            archive_bytes: 0,
            installed_bytes: 0,
        }
    }

    #[test]
    fn origins_downgrades_and_removals_are_refused_by_name() {
        let policy = LocalPolicy::default();
        let rules = package_rules(&policy);
        let against = |direction, origins: &[&str]| {
            rules
                .against(&[change(Direction::Upgraded, &["Debian"]), change(direction, origins)])
                .map(|r| r.rule)
        };
        assert_eq!(against(Direction::Upgraded, &["Debian"]), None);
        assert_eq!(against(Direction::Upgraded, &["Elsewhere", "ZehraSec"]), None);
        assert_eq!(against(Direction::Upgraded, &["Elsewhere"]), Some("package-origin"));
        assert_eq!(against(Direction::Added, &[]), Some("package-origin"));
        assert_eq!(against(Direction::Downgraded, &["Debian"]), Some("package-downgrade"));
        assert_eq!(against(Direction::Removed, &[]), Some("protected-package"));
    }
}
