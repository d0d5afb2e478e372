//! A throw-away fleet: authorities, root key, bundle, certificates, tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_agent::clock;
use fleet_agent::node::NodeRecord;
use fleet_certs::ca::Authority;
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::dispatch::certify;
use fleet_certs::revoke::{Denied, DenyList};
use fleet_certs::slots::{IdentityDir, StoredIdentity};
use fleet_certs::tls::{EnrolmentServer, MutualServer, TlsClock, TlsIdentity};
use fleet_certs::token::{Token, TokenKind};
use fleet_certs::{Role, ServerConfig, ServerName, issue};
use fleet_proto::convert;
use fleet_types::id::{ControllerId, FleetId, NodeId, OperatorId};
use fleet_types::label::Labels;
use fleet_types::seal::SigningKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{
    BUNDLE_SCHEMA, ContentKey, DispatchStatement, OperatorRole, RootKeys, SignedBundle, TrustBundle,
};
use uuid::Uuid;

pub const SERVER_NAME: &str = "controller.test";
const DAY: Duration = Duration::from_hours(24);

pub struct Fleet {
    pub id: FleetId,
    pub controllers: Authority,
    pub agents: Authority,
    pub roots: RootKeys,
    /// Signs waves.
    pub waves: SigningKey,
    /// An operator's content key, listed in the bundle.
    pub operator: SigningKey,
    root: SigningKey,
}

impl Fleet {
    pub fn new() -> Self {
        let fleet = FleetId::from_uuid(Uuid::new_v4());
        let authority = |role| Authority::create(role, fleet, clock::now(), 30 * DAY).unwrap();
        let root = SigningKey::generate().unwrap().0;
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        Self {
            id: fleet,
            controllers: authority(Role::Controller),
            agents: authority(Role::Agent),
            roots,
            waves: SigningKey::generate().unwrap().0,
            operator: SigningKey::generate().unwrap().0,
            root,
        }
    }

    pub fn server_name() -> ServerName<'static> {
        ServerName::try_from(SERVER_NAME).unwrap()
    }

    pub fn bundle(&self) -> SignedBundle {
        let operator = ContentKey {
            key: self.operator.public(),
            operator: OperatorId::from_uuid(Uuid::new_v4()),
            person: "ada".parse().unwrap(),
            role: OperatorRole::Operator,
        };
        let bundle = TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet: self.id,
            version: 1,
            issued: clock::now(),
            controller_authorities: vec![self.controllers.listed()],
            agent_authorities: vec![self.agents.listed()],
            operator_authorities: vec![],
            content_keys: vec![operator],
            audit_key: SigningKey::generate().unwrap().0.public(),
            fence_resets: vec![],
            operator_key_authority: None,
        };
        bundle.sign(&self.root).unwrap()
    }

    /// The statement about the key that signs waves, as Welcome carries it.
    pub fn dispatch(&self) -> Vec<u8> {
        let statement = DispatchStatement {
            fleet: self.id,
            controller: ControllerId::from_uuid(Uuid::new_v4()),
            key: self.waves.public(),
            not_before: clock::now().minus(DAY),
            not_after: clock::now().plus(DAY),
        };
        convert::to_json(&certify(&self.controllers, &statement).unwrap())
    }

    pub fn token(&self) -> Token {
        Token::generate(TokenKind::Node, vec![self.controllers.pin()], self.roots.pin()).unwrap()
    }

    fn controller_identity(&self) -> TlsIdentity {
        let key = PrivateKey::generate().unwrap();
        let name = (self.id, ControllerId::from_uuid(Uuid::new_v4()));
        let requested = RequestedKey::of(&key).unwrap();
        let names = [SERVER_NAME.to_owned()];
        let issued =
            issue::controller(&self.controllers, name, &names, &requested, clock::now(), DAY).unwrap();
        TlsIdentity::new(issued.chain, &key)
    }

    pub fn agent_server(&self) -> Arc<ServerConfig> {
        self.agent_server_denying(DenyList::new(Denied::default()))
    }

    /// The same with a list of who is shut out.
    pub fn agent_server_denying(&self, denied: Arc<DenyList>) -> Arc<ServerConfig> {
        MutualServer {
            fleet: self.id,
            identity: self.controller_identity(),
            server_name: Self::server_name(),
            controller_authorities: vec![self.controllers.certificate().clone()],
            agent_authorities: vec![self.agents.certificate().clone()],
            operator_authorities: vec![],
            denied,
            clock: TlsClock::reading(clock::now),
        }
        .build()
        .unwrap()
    }

    pub fn enrolment_server(&self) -> Arc<ServerConfig> {
        EnrolmentServer {
            fleet: self.id,
            identity: self.controller_identity(),
            server_name: Self::server_name(),
            controller_authorities: vec![self.controllers.certificate().clone()],
            clock: TlsClock::reading(clock::now),
        }
        .build()
        .unwrap()
    }

    pub fn issue_agent(&self, node: NodeId, key: &RequestedKey) -> issue::Issued {
        self.issue_agent_at(node, key, clock::now(), DAY)
    }

    pub fn issue_agent_at(
        &self,
        node: NodeId,
        key: &RequestedKey,
        now: Timestamp,
        life: Duration,
    ) -> issue::Issued {
        issue::agent(&self.agents, self.id, node, key, now, life).unwrap()
    }

    /// An identity directory as enrolment leaves it.
    pub fn store_identity(&self, directory: &Path) -> NodeId {
        self.store_identity_of(directory, clock::now())
    }

    /// The same, issued at another time.
    pub fn store_identity_of(&self, directory: &Path, now: Timestamp) -> NodeId {
        self.store_identity_for(directory, now, DAY)
    }

    /// The same with another life.
    pub fn store_identity_for(&self, directory: &Path, now: Timestamp, life: Duration) -> NodeId {
        let node = NodeId::from_uuid(Uuid::new_v4());
        let key = PrivateKey::generate().unwrap();
        let issued = self.issue_agent_at(node, &RequestedKey::of(&key).unwrap(), now, life);
        let slots = IdentityDir::open(directory).unwrap();
        let labels = Labels::new([]).unwrap();
        NodeRecord::new(
            (self.id, node),
            ("fw-1".parse().unwrap(), labels),
            "x".to_owned(),
            issued.fingerprint,
        )
        .store(directory)
        .unwrap();
        let controller_authorities = vec![self.controllers.certificate().clone()];
        slots
            .store(&StoredIdentity { key_pem: key.to_pem(), chain: issued.chain, controller_authorities })
            .unwrap();
        node
    }
}
