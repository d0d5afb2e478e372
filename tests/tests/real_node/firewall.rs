//! A node as the firewall of the maintenance guide: the product as packages that migrate a database, `PostgreSQL` with the tables that
//! the guide names, logs, a role in a pair. Made by the means of an administrator.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::clock;
use fleet_tests::lab::Lab;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleetctl::dev::embedded::{Embedded, FIREWALL};
use fleetctl::dev::firewall::{INSTALLED, of_no_node};
use fleetctl::dev::packages::archive::Archive;
use fleetctl::dev::packages::product::{BROKEN, GOOD, Product, releases};
use fleetctl::dev::packages::programs::Caller;

use super::guides::{LeftOut, runnable};
use super::state::Watched;
use super::story::Story;

pub const NAME: &str = "zehrasec-advanced-firewall";
/// Its script after unpacking fails.
pub const FAILING: &str = "1.3";
/// Its script waits while a story holds it.
pub const SLOW: &str = "1.4";
const FAILS: &str =
    "#!/bin/sh\n[ \"$1\" = configure ] || exit 0\necho 'zehrasec 1.3: the database is too old' >&2\nexit 1\n";
const WAITS: &str =
    "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\nwhile [ -e /run/hold ]; do sleep 0.02; done\n";

macro_rules! lab_file {
    ($path:literal, $mode:literal, $name:literal) => {
        Embedded { path: $path, mode: $mode, text: include_str!(concat!("../../lab/firewall/", $name)) }
    };
}

/// Everything that maintenance may touch, but for what each run leaves for people: logs, archives, the package cache.
pub const WATCHED: Watched<'_> = Watched {
    folders: &["/etc", "/usr/local", "/usr/lib/systemd/system", "/var/lib/zehrasec"],
    units: &["zehrasec-firewall", "zehrasec-web", "postgresql", "nginx", "cron", "logrotate.timer"],
    database: Some("zehrasec"),
    more: "zehrasec-cli status | tail -1 | sed 's/signatures of .*/signatures/'\n",
};

/// What a machine of its own has and a node of the lab has not: keys of the kernel that can be written, its modules, a disk
/// for logs and a load that are not those of all that runs beside it.
const KERNEL: &str = "#!/bin/sh -e
mount -o remount,rw /sys; mkdir -p /sys/module/nf_conntrack; mount -o remount,ro /sys
mkdir -p /run/kernel; cd /run/kernel
echo '0.10 0.10 0.10 1/100 100' >load; mount --bind load /proc/loadavg
for key in core/rmem_max core/wmem_max netfilter/nf_conntrack_max netfilter/nf_conntrack_buckets; do
    file=$(basename $key); cat /proc/sys/net/$key >$file; mount --bind $file /proc/sys/net/$key
done
mountpoint -q /var/log/zehrasec || { mkdir -p /var/log/zehrasec; mount -t tmpfs -o size=64m,mode=755 logs /var/log/zehrasec; }
mkdir -p /run/keepalived; echo MASTER >/run/keepalived/zehrasec.state
";
const KERNEL_UNIT: &str = "[Unit]\nBefore=fleet-agent.service fleet-guard.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                           ExecStart=/usr/local/sbin/lab-kernel\n[Install]\nWantedBy=multi-user.target\n";
const STAND_IN: &str = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const GUARD: &str = include_str!("../../../deploy/systemd/fleet-guard.service");

/// The labels of a firewall that is half of no pair, and has the pair's address all the same.
pub fn labels() -> [String; 3] {
    ["site=lab".to_owned(), "product=zehrasec".to_owned(), format!("ha_address={}", Lab::address(1))]
}

/// All versions of the product as the guide knows it.
fn products() -> Result<Vec<Product>> {
    let mut products: Vec<Product> = releases().into_iter().map(of_guide).collect();
    let good = products.iter().find(|product| product.version == GOOD).context("no such release")?.clone();
    for (version, script) in [(FAILING, FAILS), (SLOW, WAITS)] {
        let mut product = good.renamed(version);
        product.postinst = Some(script.to_owned());
        products.push(product);
    }
    Ok(products)
}

fn of_guide(mut product: Product) -> Product {
    let version = product.version.clone();
    product.name = NAME;
    let product = product
        .with_moved("usr/local/sbin/zehrasec-cli", "usr/local/sbin/zehrasec-base")
        .with(lab_file!("usr/local/sbin/zehrasec-cli", 0o755, "zehrasec-cli"))
        .with(lab_file!(
            "usr/lib/systemd/system/zehrasec-firewall.service",
            0o644,
            "zehrasec-firewall.service"
        ));
    match version.as_str() {
        GOOD => product.with(lab_file!("usr/local/share/zehrasec/migrate.sql", 0o644, "migrate-1.1.sql")),
        BROKEN => product.with(lab_file!("usr/local/share/zehrasec/migrate.sql", 0o644, "migrate-1.2.sql")),
        _ => product,
    }
}

impl Story {
    /// A node that is the guide's firewall with the first version, and its documents applied.
    pub async fn firewall() -> Result<Option<(Self, Vec<LeftOut>)>> {
        let labels = labels();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let Some(story) = Self::begin(&labels).await? else { return Ok(None) };
        story.install_firewall().await?;
        let folder = story.folder.path().join("zehrasec");
        let left_out = runnable("zehrasec", &folder)?;
        story.say(&["config", "apply", &folder.to_string_lossy(), "--yes", "--reason", "a story"]).await?;
        Ok(Some((story, left_out)))
    }

    async fn install_firewall(&self) -> Result<()> {
        let lab = &self.lab;
        let folder = self.folder.path().join("packages");
        let log = self.folder.path().join("log");
        let archive = Archive::make(&folder, &products()?, clock::now(), &Caller::new(&log))?;
        lab.copy(&archive.packages(), "n1", "/srv/archive").await?;
        lab.copy(&folder.join("key.gpg"), "n1", "/etc/apt/trusted.gpg.d/zehrasec.gpg").await?;
        lab.write("n1", "/etc/apt/sources.list.d/zehrasec.list", "deb file:/srv/archive ./\n").await?;
        lab.write("n1", "/usr/local/sbin/lab-kernel", KERNEL).await?;
        lab.write("n1", "/usr/local/sbin/pair-sync-check", "#!/bin/sh\nexit 0\n").await?;
        lab.write("n1", "/etc/systemd/system/lab-kernel.service", KERNEL_UNIT).await?;
        lab.write("n1", "/etc/systemd/system/nginx.service", STAND_IN).await?;
        lab.write("n1", "/etc/systemd/system/fleet-guard.service", GUARD).await?;
        lab.write("n1", "/srv/database.sql", include_str!("../../lab/firewall/database.sql")).await?;
        let install = format!("chmod 755 /usr/local/sbin/lab-kernel /usr/local/sbin/pair-sync-check; chmod -R a+rX /srv/archive
            systemctl daemon-reload; systemctl start lab-kernel
            useradd --system --shell /usr/sbin/nologin zehrasec; apt-get -q update; apt-get -q -y install {NAME}={INSTALLED}
            apt-mark hold {NAME}
            mkdir -p /run/zehrasec /var/backups/zehrasec /var/lib/zehrasec/config /var/lib/zehrasec/signatures /var/lib/zehrasec/custom
            mkdir -p /var/log/zehrasec/audit /var/log/zehrasec/threats /var/log/zehrasec/archive
            chown -R zehrasec:zehrasec /var/log/zehrasec; touch /var/log/auth.log
            echo own >/var/lib/zehrasec/custom/rule; chmod 600 /var/lib/zehrasec/custom/rule; chown zehrasec /var/lib/zehrasec/custom/rule");
        lab.shell("n1", &install).await?;
        for file in FIREWALL.iter().filter(|file| file.path.starts_with("var/")) {
            lab.write("n1", &format!("/{}", file.path), &of_no_node(file.text, INSTALLED)).await?;
        }
        // Changed by hand, so that every update has to leave it alone.
        let rest = "sed -i 's/\"site\": \"unset\"/\"site\": \"lab\"/' /etc/zehrasec/firewall.json
            chown root:zehrasec /etc/zehrasec/rules.json
            systemctl daemon-reload
            systemctl enable --now lab-kernel nginx postgresql zehrasec-firewall zehrasec-web fleet-guard
            pg_lsclusters; until runuser -u postgres -- createdb zehrasec; do sleep 0.2; done
            runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -d zehrasec -f /srv/database.sql";
        lab.shell("n1", rest).await.map(drop)
    }

    /// A run to its end: how, and its report.
    pub async fn ran(&self, procedure: &str, params: &[&str]) -> Result<(Outcome, Report)> {
        let run = self.start_with(procedure, params).await?;
        self.report(&run).await
    }

    /// How a run ended, and its report. dpkg must have nothing to complain of.
    pub async fn report(&self, run: &str) -> Result<(Outcome, Report)> {
        let JobState::Ended { outcome, .. } = self.ended(run).await? else { anyhow::bail!("it was to end") };
        let report = self.job(run).await?.report.context("a job without a report")?;
        let audit = self.lab.run("n1", &["dpkg", "--audit"]).await?;
        ensure!(audit.is_empty(), "{audit}\n{report:#?}");
        Ok((outcome, report))
    }
}
