//! A certificate that has ended, and clocks that are off. Another clock is given to fleetctl as its surroundings
//! give it; the controller has the machine's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_tests::clock;
use fleet_tests::sandbox::{Sandbox, identity};
use fleet_types::time::Timestamp;
use fleetctl::app;
use fleetctl::environment::Environment;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
/// How long an operator's certificate is good for.
const LIFETIME: Duration = Duration::from_hours(12);
/// Longer than a controller's certificate is good for.
const AGE: Duration = Duration::from_hours(100 * 24);

/// Runs `fleetctl status` in this process with another clock: exit code and what it says.
async fn with_clock(sandbox: &Sandbox, now: fn() -> Timestamp) -> Result<(u8, String)> {
    let folder = sandbox.operator.folder().to_str().context("the folder has an odd name")?.to_owned();
    let call = tokio::task::spawn_blocking(move || {
        let environment = Environment::fixed(&[("FLEET_CONFIG_DIR", &folder)], now);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = app::run(["fleetctl", "status"], &mut out, &mut err, &environment);
        (code, String::from_utf8_lossy(&err).into_owned())
    });
    Ok(call.await?)
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "lacks {part:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_is_told_before_anything_is_sent() -> Result<()> {
    let mut sandbox = Sandbox::without_nodes().await?;
    let ended = identity::reissue(&sandbox, clock::now().minus(LIFETIME + MINUTE), LIFETIME)?;
    // Nobody is there to be asked: what does not work here is told before the connection is tried.
    sandbox.controller.kill().await?;
    let said = sandbox.operator.ask(&["status"]).await?;
    assert_eq!(said.code, Some(10), "{said:?}");
    assert!(said.out.is_empty(), "{said:?}");
    says(
        &said.err,
        &[
            &format!("error[cert-expired]: your certificate for context \"dev\" ended at {ended}"),
            "cause: checked on this side before connecting; this machine's clock says ",
            "fix: sign in again: fleetctl login INVITE --context dev",
            "fix: or set this machine's clock",
        ],
    );
    let said = sandbox.operator.ask(&["status", "-o", "json"]).await?;
    let error: serde_json::Value = serde_json::from_str(&said.err)?;
    assert_eq!(
        (said.code, error["code"].as_str(), error["exit"].as_u64()),
        (Some(10), Some("cert-expired"), Some(10))
    );
    // A good one in its place, and everything works.
    sandbox.controller.start().await?;
    identity::reissue(&sandbox, clock::now(), LIFETIME)?;
    sandbox.operator.good(&["status"]).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_with_what_to_set_on_either_side() -> Result<()> {
    let sandbox = Sandbox::without_nodes().await?;
    let (code, said) = with_clock(&sandbox, clock::now).await?;
    assert_eq!(code, 0, "{said}");

    // This machine is behind: the own certificate has not begun, which no new one would mend.
    let (code, said) = with_clock(&sandbox, || clock::now().minus(HOUR)).await?;
    assert_eq!(code, 10, "{said}");
    says(
        &said,
        &["error[cert-not-yet-valid]: ", "this machine's clock says ", "fix: set this machine's clock"],
    );
    assert!(!said.contains("login"), "{said}");

    // It is ahead: the own certificate has ended by its clock.
    let (code, said) = with_clock(&sandbox, || clock::now().plus(LIFETIME + MINUTE)).await?;
    assert_eq!(code, 10, "{said}");
    says(&said, &["error[cert-expired]: ", "fix: or set this machine's clock, if it is wrong"]);

    // It is so far ahead that the controller's has ended, while the own is good for longer.
    identity::reissue(&sandbox, clock::now(), 2 * AGE)?;
    let (code, said) = with_clock(&sandbox, || clock::now().plus(AGE)).await?;
    assert_eq!(code, 10, "{said}");
    says(
        &said,
        &[
            "error[controller-refused]: ",
            "the certificate ended ",
            "fix: compare this machine's clock with the controller's",
        ],
    );

    // The two disagree by two minutes: good by this clock, ended by the controller's, which says so.
    identity::reissue(&sandbox, clock::now().minus(LIFETIME + MINUTE), LIFETIME)?;
    let (code, said) = with_clock(&sandbox, || clock::now().minus(2 * MINUTE)).await?;
    assert_eq!(code, 10, "{said}");
    says(
        &said,
        &[
            "error[cert-expired]: the controller says that our certificate is not valid at its time",
            "set the clock that is wrong",
            "fix: sign in again: fleetctl login INVITE --context dev",
        ],
    );
    identity::reissue(&sandbox, clock::now(), LIFETIME)?;
    sandbox.finish().await
}
