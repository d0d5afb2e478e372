//! `fleet-agent version`.

use super::settings::print;

/// Prints version and protocol.
pub fn run() {
    let (least, most) = (fleet_proto::PROTOCOL.start(), fleet_proto::PROTOCOL.end());
    print(format_args!("fleet-agent {} (protocol {least} to {most})", env!("CARGO_PKG_VERSION")));
}
