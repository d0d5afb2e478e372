//! What an operator sees of real nodes: exit codes, outputs for programs and pipes, and the node owner's last word.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::sandbox::{Sandbox, agreement};
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::digest::Digest;
use fleet_types::view::{AuditItem, BackupItem, JobView, Page};
use fleetctl::dev::node_spec::nodes;

/// Columns of the narrowest terminal that outputs are made for.
const COLUMNS: usize = 80;

/// The backup whose archives a node has, as `NODE/BACKUP`.
async fn backup_of(sandbox: &Sandbox, node: &str) -> Result<String> {
    let page: Page<BackupItem> = sandbox.operator.json(&["backup", "list", "--node", node]).await?;
    let archive = page.items.first().context("it has no archive")?;
    Ok(format!("{}/{}", archive.node, archive.backup))
}

async fn code(sandbox: &Sandbox, expected: i32, arguments: &[&str]) -> Result<String> {
    let said = sandbox.operator.ask(arguments).await?;
    ensure!(
        said.code == Some(expected),
        "fleetctl {} was to end with {expected}: {said:?}",
        arguments.join(" ")
    );
    Ok(said.out + &said.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn o13_a_node_that_only_watches_refuses_changes_by_name_and_still_tells_its_state() -> Result<()> {
    let mut sandbox = Sandbox::without_nodes().await?;
    for spec in nodes(1) {
        sandbox.join(&spec, "").await?.start(&[])?;
    }
    sandbox.all_online().await?;
    sandbox.apply_documents().await?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    let shown = code(&sandbox, 0, &["run", "show", &run.to_string()]).await?;
    assert!(shown.contains("refused"), "{shown}");
    let job: JobView = sandbox.operator.json(&["run", "show", &format!("{run}/fw-ams2-01")]).await?;
    let state = serde_json::to_string(&job.item.state)?;
    assert!(state.contains("refused") && state.contains("read_only"), "{state}");
    let page: Page<AuditItem> =
        sandbox.operator.json(&["audit", "list", "--action", "job.end", "--limit", "10"]).await?;
    assert_eq!(page.items.len(), 1, "one leaf");
    // The node's own side: nothing was begun, and its journal knows the refusal.
    let node = &sandbox.nodes[0];
    assert_eq!((node.updates(), node.archives()?.len()), (0, 0));
    let journal = node.journal().await?;
    assert!(format!("{journal:?}").contains("Refused"), "{journal:?}");
    // A plan says the same before anything is started.
    let planned = code(&sandbox, 6, &["run", "plan", "short", "--all", "--wait"]).await?;
    assert!(planned.contains("refused"), "{planned}");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_looked_at_is_started_as_it_was() -> Result<()> {
    let sandbox = Sandbox::start(2).await?;
    let planned = code(&sandbox, 0, &["run", "plan", "short", "--all", "-o", "name"]).await?;
    let plan = planned.lines().next().unwrap_or_default();
    let shown = code(&sandbox, 0, &["run", "show", plan]).await?;
    assert!(shown.contains("2 nodes would do the same"), "{shown}");
    let start = |plan| ["run", "start", "--plan", plan, "--wait", "--reason", "a story", "--confirm", "dev"];
    let said = code(&sandbox, 0, &start(plan)).await?;
    assert!(said.contains("succeeded") && said.contains(&format!("planned in  {plan}")), "{said}");
    let leaf =
        code(&sandbox, 0, &["audit", "list", "--action", "run.start", "--limit", "1", "-o", "json"]).await?;
    assert!(leaf.contains(plan), "{leaf}");
    assert!(sandbox.nodes.iter().all(|node| node.updates() == 1), "each once");
    // Its nodes are those of the plan, and a run is no plan.
    code(&sandbox, 2, &[start(plan).as_slice(), &["--all"]].concat()).await?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    let run = run.to_string();
    code(&sandbox, 2, &start(&run)).await?;
    // What was applied since was not looked at.
    let file = sandbox.path("documents/procedures/short.toml");
    let text = std::fs::read_to_string(&file)?.replace("\"10m\"", "\"11m\"");
    std::fs::write(&file, text)?;
    let file = file.to_str().context("the folder has an odd name")?;
    code(&sandbox, 0, &["config", "apply", file, "--yes"]).await?;
    code(&sandbox, 11, &start(plan)).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_those_of_the_table() -> Result<()> {
    let mut sandbox = Sandbox::start(2).await?;
    let start = |name| ["run", "start", name, "--wait", "--reason", "a story", "--confirm", "dev", "--all"];
    code(&sandbox, 0, &start("short")).await?;
    code(&sandbox, 2, &["run", "start", "--no-such-flag"]).await?;
    code(&sandbox, 4, &["node", "show", "fw-nowhere"]).await?;
    code(&sandbox, 5, &["run", "start", "short", "--all"]).await?;
    // One of two cannot read a source of its backup: partly, and no half archive; both: failed.
    let secret = |sandbox: &Sandbox, index: usize| {
        let path = sandbox.nodes[index].root().join("var/lib/zehrasec/config");
        std::fs::remove_file(path.join("objects.json"))
            .and_then(|()| std::fs::remove_file(path.join("licence.txt")))
            .and_then(|()| std::fs::remove_dir_all(sandbox.nodes[index].root().join("etc/zehrasec")))
    };
    secret(&sandbox, 0)?;
    code(&sandbox, 3, &start("short")).await?;
    secret(&sandbox, 1)?;
    code(&sandbox, 7, &start("short")).await?;
    assert!(agreement::check(&sandbox).await?.archives >= 3);
    let at = sandbox.controller.agent_address();
    sandbox.controller.kill().await?;
    let text = code(&sandbox, 9, &["status"]).await?;
    assert!(text.contains(&at.to_string()), "{text}");
    sandbox.controller.start().await?;
    sandbox.all_online().await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_fit_a_narrow_terminal_a_program_and_a_pipe() -> Result<()> {
    let sandbox = Sandbox::start(2).await?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    let run = run.to_string();
    let job = format!("{run}/fw-ams2-01");
    let views: [&[&str]; 9] = [
        &["status"],
        &["whoami"],
        &["node", "list"],
        &["node", "show", "fw-ams2-01"],
        &["run", "list"],
        &["run", "show", &run],
        &["run", "show", &job],
        &["backup", "list"],
        &["audit", "list"],
    ];
    for arguments in views {
        let shown = sandbox.operator.good(arguments).await?;
        assert!(!shown.contains('\u{1b}'), "{arguments:?} is coloured where nobody looks");
        // Paths and digests are as long as they are and never cut; words are what has to fit.
        for line in shown.lines() {
            let words: Vec<_> = line.split(' ').filter(|word| word.len() < 40).collect();
            let width = words.join(" ").chars().count();
            assert!(width <= COLUMNS, "{arguments:?}: {width} columns: {line}");
        }
        let _: serde_json::Value = sandbox.operator.json(arguments).await?;
    }
    // What changed since the archive before, as the nodes listed it; their output may be slower than their reports.
    let rules = sandbox.nodes[0].root().join("var/lib/zehrasec/config/objects.json");
    std::fs::write(&rules, "[]")?;
    let again = sandbox.start_run("short").await?;
    sandbox.ended(again).await?;
    let of = backup_of(&sandbox, "fw-ams2-01").await?;
    let differs = wait_for("the listings of two archives", PATIENCE, async || {
        let said = sandbox.operator.ask(&["backup", "diff", &of, "--detailed-exitcode"]).await?;
        ensure!(said.code == Some(20), "{said:?}");
        Ok(Some(said.out))
    })
    .await?;
    assert!(differs.contains("config/objects.json: size ") && differs.contains("1 changed"), "{differs}");
    // A reader that goes away after the first line is no failure worth a word.
    let mut child = sandbox
        .operator
        .command(&["audit", "list", "--limit", "500"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let ended = child.wait_with_output().await?;
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_a_copy_leaves_the_node_although_the_controller_dies_on_the_way() -> Result<()> {
    // The recipient of age's own documentation: nobody here has its key.
    const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let mut sandbox = Sandbox::start(1).await?;
    let profile = sandbox.path("documents/profile.toml");
    let text = std::fs::read_to_string(&profile)?;
    let with_copy = format!("[backup.config]\ncopy = {{ to = \"artifacts\", encrypt_to = [\"{KEY}\"] }}\n");
    std::fs::write(&profile, text.replacen("[backup.config]\n", &with_copy, 1))?;
    code(&sandbox, 0, &["config", "apply", profile.to_str().context("an odd name")?, "--yes"]).await?;
    // Many pieces: nothing of it can be packed.
    let mut random = vec![0; 3 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    std::fs::write(sandbox.nodes[0].root().join("var/lib/zehrasec/config/objects.json"), random)?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    sandbox.controller.kill().await?;
    sandbox.controller.start().await?;
    let of = backup_of(&sandbox, "fw-ams2-01").await?;
    let stored = wait_for("the copy to be at the controller", PATIENCE, async || {
        let page: Page<BackupItem> = sandbox.operator.json(&["backup", "list"]).await?;
        let copy = page.items[0].copy.clone().context("no copy is named")?;
        Ok(copy.stored.is_some().then_some(copy))
    })
    .await?;
    let file = sandbox.path("fetched.age");
    let to = file.to_str().context("an odd name")?;
    code(&sandbox, 0, &["backup", "fetch", &of, "--to", to]).await?;
    let fetched = std::fs::read(&file)?;
    assert_eq!((Digest::of(&fetched), fetched.len() as u64), (stored.sha256, stored.size));
    assert!(fetched.starts_with(b"age-encryption.org/v1\n") && fetched.len() > 3 << 20);
    let left = sandbox.nodes[0].archives()?;
    assert!(!left.iter().any(|name| name.contains(".age")), "the controller has it: {left:?}");
    code(&sandbox, 2, &["backup", "fetch", &of, "--to", to]).await?;
    sandbox.finish().await
}
