//! `fleetctl node reset-fence`: a node forgets the newest store generation and link that it has seen, because the root
//! keys say so.
//!
//! A node refuses whoever names lower numbers: a restored store, or somebody who plays the controller. Where the numbers
//! were raised by such a one, or the store that had them is gone for good, nobody but a holder of the root key can say
//! so. The controller carries the word and cannot make it.

use std::path::Path;

use fleet_types::id::Name;
use fleet_types::trust::TrustBundle;
use fleet_types::view::{Done, Target};

use super::trust_bundle::Publisher;
use crate::confirm::{Danger, confirm};
use crate::context::{Seen, Sighting};
use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// Publishes a trust bundle in which the fence of a node begins anew.
pub async fn reset(session: &mut Session<'_>, name: &Name, root_key: &Path) -> Result<ExitCode, Failure> {
    let context = session.context()?;
    let root = Publisher::load(&context, Some(root_key))?;
    let client = session.connect().await?;
    let node = client.node(name).await?.item;
    // An id that is shown for another node's name would be signed for.
    let id = node.id;
    let target = Target { id, name: node.name, site: String::new(), pair: None, presence: node.presence };
    Seen::load(&context.seen_file())?.check(&Sighting { nodes: vec![target], ..Sighting::default() })?;
    let doing = format!(
        "reset the fence of {name} ({id}): it takes links of this controller again, whatever it has seen"
    );
    if session.would(&doing)? {
        return Ok(ExitCode::Done);
    }
    let why = "an older store, or who plays the controller, is believed then".to_owned();
    confirm(session, &Danger::Severe { name: name.to_string(), why }, &doing, &Answer::default()).await?;
    let reason = session.settings.reason.clone().unwrap_or_default();
    let now = (session.environment.now)();
    let next = |bundle: TrustBundle| Some(bundle.with_fence_reset(id, now));
    let published = root.publish(&client, &reason, next).await?;
    let message = published.map_or_else(String::new, |published| {
        format!("{}: the fence of {name} begins anew when the node connects next", published.message)
    });
    let done = Done { schema: "fleet/v1/done".to_owned(), message };
    session.print(&Answer::of(&done).name(name.to_string()).line(&done.message))?;
    Ok(ExitCode::Done)
}
