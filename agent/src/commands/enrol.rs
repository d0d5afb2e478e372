//! `fleet-agent enrol`: joins a fleet.
//!
//! This is the executor's half: it owns the report key, and keeps trust and record where the core cannot change
//! them. Redeeming the token is the core's (`core/join.rs`), on a real machine in a process of its own. What
//! the core brings is checked again as far as it can be: root keys by the token's pin, the bundle by the
//! root keys.

use std::io::Read as _;

use fleet_certs::token::{Token, TokenKind};
use fleet_executor::replacement::Replacement;
use fleet_executor::{damage, policy, state};
use fleet_types::id::Name;
use fleet_types::seal::PublicKey;

use super::core_process::CoreProcess;
use super::settings::{self, print};
use crate::account::Account;
use crate::args;
use crate::config::Config;
use crate::core::enrolment_channel::{Answer, EnrolmentChannel};
use crate::core::join::{self, Begun, Brought, Order};
use crate::error::{Exit, Failure};
use crate::node::NodeRecord;
use crate::telemetry;

/// Longest token text; anything longer is not one.
const MAX_TOKEN_BYTES: u64 = 1024;

/// Redeems the token and stores what came back.
pub fn run(args: &args::Enrol) -> Result<(), Failure> {
    let config = settings::load(&args.configured)?;
    telemetry::init(&config);
    let token = token(&args.token)?;
    if config.trust_pin.is_some_and(|pin| !token.controller_pins.contains(&pin)) {
        let message =
            "the token does not name the controller CA of controller.trust_pin: it is of another fleet";
        return Err(Failure::new(Exit::Identity, message));
    }
    let account = Account::of_core(&config).map_err(|error| Failure::of(Exit::Usage, &error))?;
    let (replacement, report_key) = if args.replace {
        let (replacement, key) =
            Replacement::begin(&config.state_directory).map_err(|e| Failure::of(Exit::Identity, &e))?;
        (Some(replacement), key.public())
    } else {
        refuse_foreign_state(&config, &token)?;
        (None, report_key(&config)?)
    };
    let joining = Joining { config: &config, order: Order { token, report_key, replace: args.replace } };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::of(Exit::Failed, &e))?;
    match account {
        None => runtime.block_on(joining.here(replacement.as_ref()))?,
        Some(account) => runtime.block_on(joining.apart(replacement.as_ref(), &account, &args.configured))?,
    }
    // In place, now or by an earlier try of this command.
    replacement.map_or(Ok(()), Replacement::done).map_err(|e| Failure::of(Exit::Identity, &e))
}

/// What this machine did as another node fits no new one.
fn refuse_foreign_state(config: &Config, token: &Token) -> Result<(), Failure> {
    let is_own =
        NodeRecord::load(&config.state_directory).is_ok_and(|record| record.token_id == token.id.to_string());
    if is_own || !damage::has_history(&config.state_directory) {
        return Ok(());
    }
    let message =
        "this machine has the state of an enrolled node: use --replace to set it aside and join anew";
    Err(Failure::new(Exit::Identity, message))
}

struct Joining<'a> {
    config: &'a Config,
    order: Order,
}

fn token(text: &str) -> Result<Token, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Usage, error);
    let mut read = String::new();
    if text == "-" {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut read).map_err(|e| failed(&e))?;
    } else {
        text.clone_into(&mut read);
    }
    Token::parse(TokenKind::Node, read.trim()).map_err(|e| failed(&e))
}

fn report_key(config: &Config) -> Result<PublicKey, Failure> {
    let key = state::report_key(&config.state_directory).map_err(|e| Failure::of(Exit::Identity, &e))?;
    Ok(key.public())
}

impl Joining<'_> {
    async fn here(&self, replacement: Option<&Replacement>) -> Result<(), Failure> {
        match join::begin(self.config, &self.order).await? {
            Begun::Already(name) => already(&name),
            Begun::Joining(joining) => {
                let brought = joining.brought();
                self.keep(replacement, &brought)?;
                joining.keep()?;
                joined(&brought);
            }
        }
        Ok(())
    }

    async fn apart(
        &self,
        replacement: Option<&Replacement>,
        account: &Account,
        configured: &args::Configured,
    ) -> Result<(), Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Failed, error);
        let config = self.config;
        account.own_folder(&config.identity_directory).map_err(|e| failed(&e))?;
        account.way_through(&config.state_directory, &config.identity_directory).map_err(|e| failed(&e))?;
        // Ended with this function, whatever it is doing.
        let (_core, socket) = CoreProcess::start(account, configured, None)?;
        let mut channel = EnrolmentChannel::open(socket, config).map_err(|e| failed(&e))?;
        match channel.order(&self.order).await? {
            Answer::Already(name) => already(&name),
            Answer::Brought(brought) => {
                self.keep(replacement, &brought)?;
                channel.keep().await?;
                joined(&brought);
            }
        }
        Ok(())
    }

    /// The executor's part, before the identity is in place.
    fn keep(&self, replacement: Option<&Replacement>, brought: &Brought) -> Result<(), Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(Exit::Identity, error);
        if brought.roots.pin() != self.order.token.root_pin {
            return Err(Failure::new(
                Exit::Identity,
                "the core brought root keys that the token does not name",
            ));
        }
        if let Some(replacement) = replacement {
            replacement.set_aside().map_err(|e| failed(&e))?;
        }
        let trust = settings::trust_directory(self.config);
        policy::install(&trust, &brought.roots, &brought.bundle, brought.record.fleet)
            .map_err(|e| failed(&e))?;
        brought.record.store(&self.config.state_directory).map_err(|e| failed(&e))
    }
}

fn already(name: &Name) {
    print(format_args!("{name} is enrolled already with this token"));
}

fn joined(brought: &Brought) {
    let record = &brought.record;
    print(format_args!(
        "enrolled as {} ({}), certificate until {}",
        record.name, record.node, brought.not_after
    ));
}
