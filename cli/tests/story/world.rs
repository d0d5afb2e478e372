//! A fleet with real authorities and a scripted controller, and an operator with a folder of their own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_certs::Role;
use fleet_certs::ca::Authority;
use fleet_certs::token::{Token, TokenKind};
use fleet_types::id::FleetId;
use fleet_types::seal::SigningKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{BUNDLE_SCHEMA, RootKeys, TrustBundle};
use fleetctl::environment::Environment;
use fleetctl::{app, clock};
use tempfile::TempDir;

use crate::fake::Fake;
use crate::listening;
use crate::script::State;

pub const SERVER_NAME: &str = "fleet.example";
pub const YEAR: Duration = Duration::from_hours(24 * 365);

/// What one invocation gave.
#[derive(Debug)]
pub struct Ended {
    pub code: u8,
    pub out: String,
    pub err: String,
}

pub struct World {
    pub fake: Fake,
    pub folder: TempDir,
    pub invite: String,
    pub enrol: String,
    pub endpoint: String,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn new() -> Self {
        let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
        let now = clock::now();
        let make = |role| Authority::create(role, fleet, now, YEAR).unwrap();
        let (controllers, operators) = (make(Role::Controller), make(Role::Operator));
        let (root, pkcs8) = SigningKey::generate().unwrap();
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let invite = Token::generate(TokenKind::Operator, vec![controllers.pin()], roots.pin()).unwrap();
        let bundle = TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet,
            version: 1,
            issued: now,
            controller_authorities: vec![controllers.listed()],
            agent_authorities: vec![make(Role::Agent).listed()],
            operator_authorities: vec![operators.listed()],
            content_keys: vec![],
            audit_key: SigningKey::generate().unwrap().0.public(),
            fence_resets: vec![],
            operator_key_authority: None,
        };
        let signed = bundle.sign(&root).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pem = SigningKey::pkcs8_to_pem(&pkcs8);
        fleet_certs::files::write_secret(&folder.path().join("root.key"), &pem).unwrap();
        let text = invite.expose();
        let fake = Fake {
            fleet,
            controllers: Arc::new(controllers),
            operators: Arc::new(operators),
            roots,
            invite: Arc::new(invite),
            state: Arc::new(Mutex::new(State::new(bundle, signed))),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (enrol, endpoint) = runtime.block_on(listening::start(&fake));
        Self { fake, folder, invite: text, enrol, endpoint, _runtime: runtime }
    }

    /// A world whose operator has signed in and whose content key is listed.
    pub fn signed_in() -> Self {
        let world = Self::new();
        let root = world.root_key();
        let ended = world.login(&["--root-key", root.to_str().unwrap()]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        world
    }

    pub fn root_key(&self) -> PathBuf {
        self.folder.path().join("root.key")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn login(&self, more: &[&str]) -> Ended {
        let (enrol, endpoint) = (self.enrol.as_str(), self.endpoint.as_str());
        let mut args = vec!["login", &self.invite, "--server", enrol, "--endpoint", endpoint];
        args.extend(["--server-name", SERVER_NAME, "--context", "prod"]);
        args.extend(more);
        self.run(&args)
    }

    pub fn environment(&self) -> Environment {
        let folder = self.folder.path().join("config");
        let folder = folder.to_str().unwrap();
        Environment::fixed(&[("FLEET_CONFIG_DIR", folder), ("FLEET_CONTEXT", "prod")], clock::now)
    }

    /// The same with another clock.
    pub fn run_at(&self, now: fn() -> Timestamp, args: &[&str]) -> Ended {
        let folder = self.folder.path().join("config");
        let folder = folder.to_str().unwrap();
        let variables = [("FLEET_CONFIG_DIR", folder), ("FLEET_CONTEXT", "prod")];
        run_in(&Environment::fixed(&variables, now), args)
    }

    /// Nobody at a keyboard, no terminal.
    pub fn run(&self, args: &[&str]) -> Ended {
        run_in(&self.environment(), args)
    }

    /// At a terminal of 80 columns without colour.
    pub fn run_at_terminal(&self, args: &[&str]) -> Ended {
        let mut environment = self.environment();
        environment.stdout_is_terminal = true;
        run_in(&environment, &[args, &["--color", "never"]].concat())
    }

    /// Somebody types `answers`.
    pub fn run_typing(&self, answers: &str, args: &[&str]) -> Ended {
        run_in(&self.environment().with_answers(answers), args)
    }

    /// Looks at or changes the controller's script.
    pub fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.fake.state.lock().unwrap())
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn run_in(environment: &Environment, args: &[&str]) -> Ended {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = app::run(["fleetctl"].iter().chain(args), &mut out, &mut err, environment);
    Ended { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}
