//! T34 and its neighbours: what a token is good for, and for whom.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use fleet_certs::csr::PrivateKey;
use fleet_certs::token::{Token, TokenKind};
use fleet_proto::pb;
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_tests::audit_check::wait_for_refusal;
use fleet_tests::channel;
use fleet_tests::controller_process::{ControllerProcess, Options};
use fleet_tests::fake_agent::enrol::{self, NewKeys};
use fleet_tests::fake_agent::{Credentials, Script};
use fleet_tests::operator_client::key;
use fleet_tests::test_fleet::{TestFleet, labels};
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::seal::SigningKey;
use tonic::{Code, Status};

async fn redeem(fleet: &TestFleet, token: &Token, keys: &NewKeys) -> Result<Result<pb::EnrolReply, Status>> {
    enrol::redeem(fleet.controller.enrol_address(), None, token, keys).await
}

async fn token(fleet: &TestFleet, name: &str) -> Result<Token> {
    let view = fleet.operator.join_token(name, &labels(0)).await?;
    Ok(Token::parse(TokenKind::Node, &view.token)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_same_certificate_and_another_key_holds_the_node() -> Result<()> {
    let mut fleet = TestFleet::start(0).await?;
    let token = token(&fleet, "fw-a").await?;
    let keys = NewKeys::generate()?;
    let first = redeem(&fleet, &token, &keys).await??;
    // The reply was lost; the controller may even have been killed in between.
    fleet.controller.kill_and_restart().await?;
    let again = redeem(&fleet, &token, &keys).await??;
    assert_eq!(first, again);
    let credentials = Credentials::from_reply(&token, keys, again)?;
    let agent = fleet.agent(credentials, Script::default())?;
    agent.online().await?;

    let thief = redeem(&fleet, &token, &NewKeys::generate()?).await?.unwrap_err();
    assert_eq!(thief.code(), Code::Unauthenticated, "{thief}");
    let (_, why) = agent.link_end(0).await.context("the live link of a held node is closed")?;
    assert!(why.contains("ended the session"), "{why}");
    wait_for_refusal(&fleet.operator, "two keys").await?;
    // Nobody gets in until an operator looks: neither the thief nor the first one when it comes again.
    let held = wait_for("the held node to be refused", PATIENCE, async || {
        Ok(agent.links().ends.iter().find(|(code, _)| *code == Some(Code::FailedPrecondition)).cloned())
    })
    .await?;
    assert!(held.1.contains("held: its join token was used with two keys"), "{}", held.1);
    let order =
        fleet_tests::operator_client::order(fleet.look, fleet.profile, vec![agent.credentials().node], 1);
    let order = fleet.operator.sign(&order)?;
    let refused = fleet.operator.start(&order).await.expect_err("a held node takes part in nothing");
    assert!(format!("{refused:#}").contains("cannot take part"), "{refused:#}");
    drop(agent);
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_wrong_expired_and_used_tokens_look_the_same_from_outside() -> Result<()> {
    let fleet = TestFleet::start(0).await?;
    let keys = NewKeys::generate()?;
    let good = token(&fleet, "fw-a").await?;
    let other = token(&fleet, "fw-b").await?;
    let mixed = Token { secret: other.secret.clone(), ..good.clone() };
    let unknown = Token::generate(TokenKind::Node, good.controller_pins.clone(), good.root_pin)?;
    let short = pb::CreateJoinTokenRequest {
        node_name: "fw-c".to_owned(),
        labels: HashMap::new(),
        lifetime_seconds: 1,
        idempotency_key: key(),
        replace_labels: false,
    };
    let view: fleet_types::view::JoinTokenView =
        serde_json::from_slice(&fleet.operator.raw().create_join_token(short).await?.into_inner().json)?;
    let expired = Token::parse(TokenKind::Node, &view.token)?;
    wait_for("the token to expire", PATIENCE, async || {
        Ok((fleet_tests::clock::now() > view.expires).then_some(()))
    })
    .await?;
    let mut texts = std::collections::BTreeSet::new();
    for (what, token) in [("unknown", unknown), ("another's secret", mixed), ("expired", expired)] {
        let status = redeem(&fleet, &token, &keys).await?.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
        texts.insert(status.message().to_owned());
    }
    assert_eq!(texts.len(), 1, "a caller learns nothing of tokens: {texts:?}");
    wait_for_refusal(&fleet.operator, "unknown, used or expired").await?;
    // An invite is no join token, and the good one was not spent by all this.
    assert!(Token::parse(TokenKind::Node, &fleet.controller.invite).is_err());
    redeem(&fleet, &good, &keys).await??;
    let late = fleet.operator.join_token("fw-a", &labels(0)).await.unwrap_err();
    ensure!(format!("{late:#}").contains("enrolled already"), "{late:#}");
    let mut bad = enrol::request(&other, &keys)?;
    bad.csr.truncate(40);
    let channel =
        channel::connect(fleet.controller.enrol_address(), &channel::enrolment_tls(&other)?).await?;
    let mut service = EnrolServiceClient::new(channel);
    assert_eq!(service.enrol(bad).await.unwrap_err().code(), Code::InvalidArgument, "a cut request");
    let mut bad = enrol::request(&other, &keys)?;
    bad.report_key.clear();
    assert_eq!(service.enrol(bad).await.unwrap_err().code(), Code::InvalidArgument, "no report key");
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_by_token_and_other_tokens_of_the_site_go_on() -> Result<()> {
    let fleet = TestFleet::start(0).await?;
    let good = token(&fleet, "fw-a").await?;
    let keys = NewKeys::generate()?;
    let channel = channel::connect(fleet.controller.enrol_address(), &channel::enrolment_tls(&good)?).await?;
    let mut service = EnrolServiceClient::new(channel);
    // Of a token that was issued the id is known, and not the secret.
    let mut guess = Token::generate(TokenKind::Node, good.controller_pins.clone(), good.root_pin)?;
    guess.id = token(&fleet, "fw-b").await?.id;
    let mut codes = BTreeMap::new();
    for _ in 0..40 {
        let status = service.enrol(enrol::request(&guess, &keys)?).await.unwrap_err();
        *codes.entry(format!("{:?}", status.code())).or_insert(0) += 1;
    }
    assert_eq!(codes.get("Unauthenticated"), Some(&30), "{codes:?}");
    assert_eq!(codes.get("ResourceExhausted"), Some(&10), "{codes:?}");
    service.enrol(enrol::request(&good, &keys)?).await?;
    wait_for_refusal(&fleet.operator, "too many enrolment tries").await?;
    fleet.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_gives_the_same_identity_to_the_same_keys_and_none_to_others() -> Result<()> {
    let mut controller = ControllerProcess::start_new(&Options::default()).await?;
    let invite = Token::parse(TokenKind::Operator, &controller.invite)?;
    let request = |key: &PrivateKey, content_key: &SigningKey| -> Result<pb::EnrolOperatorRequest> {
        Ok(pb::EnrolOperatorRequest {
            invite_id: invite.id.to_string(),
            invite_secret: invite.secret.expose().to_vec(),
            csr: key.request()?,
            content_key: content_key.public().as_bytes().to_vec(),
        })
    };
    let (key, content_key) = (PrivateKey::generate()?, SigningKey::generate()?.0);
    let tls = channel::enrolment_tls(&invite)?;
    let service = || channel::connect_lazily(controller.enrol_address(), &tls).map(EnrolServiceClient::new);
    let first = service()?.enrol_operator(request(&key, &content_key)?).await?.into_inner();
    controller.kill_and_restart().await?;
    let service = || channel::connect_lazily(controller.enrol_address(), &tls).map(EnrolServiceClient::new);
    let again = service()?.enrol_operator(request(&key, &content_key)?).await?.into_inner();
    assert_eq!(first, again, "the reply was lost");
    let (other_key, other_content_key) = (PrivateKey::generate()?, SigningKey::generate()?.0);
    for (what, csr, content) in [
        ("another key", &other_key, &content_key),
        ("another content key", &key, &other_content_key),
        ("both", &other_key, &other_content_key),
    ] {
        let status = service()?.enrol_operator(request(csr, content)?).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
        assert_eq!(status.message(), "this token is unknown, used or expired", "{what}");
    }
    assert!(controller.log().contains("an invite was used with two keys"), "{}", controller.log_tail());
    controller.stop().await
}
