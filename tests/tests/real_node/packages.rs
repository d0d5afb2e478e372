//! Packages on a real node: updates that work, that are broken in two ways, and that lose their power in the middle. After
//! each, what is on the node is compared with what was there and with what the report says.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::clock;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleetctl::dev::embedded::{FIREWALL, documents};
use fleetctl::dev::firewall::{INSTALLED, of_no_node};
use fleetctl::dev::packages::archive::Archive;
use fleetctl::dev::packages::product::{BROKEN, GOOD, NAME, releases};
use fleetctl::dev::packages::programs::Caller;

use super::state::{Watched, differences};
use super::story::{LABELS, Story};

/// Its script after unpacking fails.
const FAILING: &str = "1.3";
/// Its script waits while a story holds it, and notes that it began; a hold does not outlast a power cut.
const SLOW: &str = "1.4";
const FAILS: &str =
    "#!/bin/sh\n[ \"$1\" = configure ] || exit 0\necho 'zehrasec 1.3: the database is too old' >&2\nexit 1\n";
const WAITS: &str = "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\necho \"$2\" >>/var/lib/configured\n\
                     while [ -e /run/hold ]; do sleep 0.02; done\n";

/// Everything that an update may touch.
const WATCHED: Watched<'_> = Watched {
    folders: &["/etc", "/usr/local", "/usr/lib/systemd/system"],
    units: &["zehrasec-firewall", "zehrasec-web"],
    database: None,
    more: "zehrasec-cli status\n",
};

impl Story {
    /// Makes the node a firewall with the first version, by the means of an administrator, and applies its documents.
    async fn make_firewall(&self) -> Result<()> {
        let folder = self.folder.path().join("packages");
        let mut products = releases();
        let good =
            products.iter().find(|product| product.version == GOOD).context("no such release")?.clone();
        for (version, script) in [(FAILING, FAILS), (SLOW, WAITS)] {
            let mut product = good.renamed(version);
            product.postinst = Some(script.to_owned());
            products.push(product);
        }
        let archive =
            Archive::make(&folder, &products, clock::now(), &Caller::new(&self.folder.path().join("log")))?;
        self.lab.copy(&archive.packages(), "n1", "/srv/archive").await?;
        self.lab.copy(&folder.join("key.gpg"), "n1", "/etc/apt/trusted.gpg.d/zehrasec.gpg").await?;
        self.lab.write("n1", "/etc/apt/sources.list.d/zehrasec.list", "deb file:/srv/archive ./\n").await?;
        let install = format!("chmod -R a+rX /srv/archive; apt-get -q update; apt-get -q -y install {NAME}={INSTALLED}
            mkdir -p /var/log/zehrasec /run/zehrasec /var/backups/zehrasec /var/lib/zehrasec/config /var/lib/zehrasec/signatures");
        self.lab.shell("n1", &install).await?;
        for file in FIREWALL.iter().filter(|file| file.path.starts_with("var/")) {
            let text = of_no_node(file.text, INSTALLED);
            self.lab.write("n1", &format!("/{}", file.path), &text).await?;
        }
        // Changed by hand, so that every update has to leave it alone.
        let rest = "sed -i 's/\"site\": \"unset\"/\"site\": \"lab\"/' /etc/zehrasec/firewall.json
            systemctl daemon-reload; systemctl enable --now zehrasec-firewall zehrasec-web";
        self.lab.shell("n1", rest).await?;
        let folder = self.folder.path().join("firewall");
        for (path, text) in documents() {
            if path.starts_with("boot") || path.ends_with("schedules.toml") {
                continue;
            }
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().context("a document lies in a folder")?)?;
            std::fs::write(path, text)?;
        }
        let folder = folder.to_str().context("a path that is no text")?;
        self.say(&["config", "apply", folder, "--yes"]).await.map(drop)
    }

    /// An update to its end: how, and its report. dpkg must have nothing to complain of.
    async fn updated(&self, run: &str) -> Result<(Outcome, Report)> {
        let JobState::Ended { outcome, .. } = self.ended(run).await? else { anyhow::bail!("it was to end") };
        let report = self.job(run).await?.report.context("a job without a report")?;
        let audit = self.lab.run("n1", &["dpkg", "--audit"]).await?;
        ensure!(audit.is_empty(), "{audit}\n{report:#?}");
        Ok((outcome, report))
    }

    async fn update(&self, version: &str) -> Result<(Outcome, Report)> {
        let run = self.begin_update(version).await?;
        self.updated(&run).await
    }

    async fn begin_update(&self, version: &str) -> Result<String> {
        self.start_with("update", &["--param", &format!("version={version}")]).await
    }

    async fn version(&self) -> Result<String> {
        self.lab.run("n1", &["dpkg-query", "-W", "-f", "${Version}", NAME]).await
    }
}

/// How often the power is cut while a broken version is installed.
fn cuts() -> Result<u32> {
    match std::env::var("FLEET_POWER_CUTS") {
        Ok(number) => number.parse().context("FLEET_POWER_CUTS is no number"),
        Err(_) => Ok(3),
    }
}

/// Cuts the power at moments spread over an update to a broken version, its way back included: whatever had been done until
/// then, and whatever the start of the machine brought up, the node is as it was.
async fn cut_the_power(story: &Story, whole: Duration, good: &str) -> Result<()> {
    let cuts = cuts()?;
    for number in 0..cuts {
        let moment = whole * (2 * number + 1) / (2 * cuts);
        let run = story.begin_update(BROKEN).await?;
        if tokio::time::timeout(moment, story.ended(&run)).await.is_err() {
            story.lab.power("n1", "cut").await?;
            story.lab.power("n1", "on").await?;
            story.online().await?;
        }
        let (outcome, report) = story.updated(&run).await?;
        let case = format!("cut {number} of {cuts}, after {} ms", moment.as_millis());
        let is_back = match outcome {
            Outcome::RolledBack => true,
            // The services were not up when the node was to be healthy before the update.
            Outcome::Failed => moves(&report).is_empty(),
            _ => false,
        };
        ensure!(is_back, "{case}: {report:#?}\n{}", story.lab.shell("n1", "journalctl -b --no-pager").await?);
        let now = story.look(&WATCHED).await?;
        ensure!(now == good, "{case}: {:#?}\n{report:#?}", differences(good, &now));
    }
    Ok(())
}

/// What a report says was done with the package, in order.
fn moves(report: &Report) -> Vec<(&str, &str)> {
    let changes = report.steps.iter().flat_map(|step| &step.body.changes);
    changes
        .filter(|change| change.subject == NAME)
        .map(|change| (change.before.as_str(), change.after.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_upgrades_breaks_and_comes_back() -> Result<()> {
    let Some(mut story) = Story::begin(&LABELS).await? else { return Ok(()) };
    story.make_firewall().await?;
    let (outcome, report) = story.update(GOOD).await?;
    assert_eq!((outcome, story.version().await?.as_str()), (Outcome::Succeeded, GOOD), "{report:#?}");
    assert_eq!(moves(&report), [(INSTALLED, "1.1 (ZehraSec)")]);
    let good = story.look(&WATCHED).await?;
    assert!(good.contains("\nzehrasec-firewall active enabled\nzehrasec-web active enabled\n"), "{good}");
    story.lab.shell("n1", "grep '\"lab\"' /etc/zehrasec/firewall.json").await?;
    // A version that is never ready, and one whose own script fails: the node is as before.
    let began = Instant::now();
    let (outcome, report) = story.update(BROKEN).await?;
    let whole = began.elapsed();
    assert_eq!(outcome, Outcome::RolledBack, "{report:#?}");
    assert_eq!(moves(&report), [(GOOD, "1.2 (ZehraSec)"), (BROKEN, GOOD)]);
    assert_eq!(story.look(&WATCHED).await?, good);
    let (outcome, report) = story.update(FAILING).await?;
    assert_eq!(outcome, Outcome::RolledBack, "{report:#?}");
    assert!(format!("{report:?}").contains("package_script_failed"), "{report:#?}");
    assert_eq!(story.look(&WATCHED).await?, good);
    cut_the_power(&story, whole, &good).await?;
    // The power is cut while dpkg configures: the step finishes what was interrupted, and the job goes on.
    story.lab.shell("n1", "touch /run/hold").await?;
    let run = story.begin_update(SLOW).await?;
    wait_for("dpkg to be in the middle of the package", PATIENCE * 2, async || {
        Ok(story.lab.run("n1", &["test", "-e", "/var/lib/configured"]).await.ok())
    })
    .await?;
    story.lab.power("n1", "cut").await?;
    story.lab.power("n1", "on").await?;
    story.online().await?;
    let (outcome, report) = story.updated(&run).await?;
    assert_eq!((outcome, story.version().await?.as_str()), (Outcome::Succeeded, SLOW), "{report:#?}");
    assert_eq!(moves(&report), [(GOOD, "1.4 (ZehraSec)")]);
    // The new version is the same but for its number.
    let slow = story.look(&WATCHED).await?;
    let new: Vec<&str> = slow.lines().filter(|line| !good.lines().any(|other| other == *line)).collect();
    assert!(
        new.len() == 3 && new[0].starts_with("zehrasec 1.4 ii") && new[1].contains("zehrasec-cli"),
        "{new:#?}"
    );
    assert_eq!(slow.lines().count(), good.lines().count(), "{slow}");
    story.controller.stop().await
}
