//! How long a certificate file lasts. Pure.
//!
//! The first certificate of a PEM file counts: that is the one a server shows. It checks nothing else; trust in
//! the fleet's own certificates is decided elsewhere.

use fleet_types::time::Timestamp;
use x509_parser::pem::Pem;

/// Days until the first certificate of a PEM file ends; negative when it has ended.
pub(super) fn days_left(pem: &[u8], now: Timestamp) -> Result<f64, String> {
    let block = Pem::iter_from_buffer(pem)
        .filter_map(Result::ok)
        .find(|block| block.label == "CERTIFICATE")
        .ok_or("the file holds no certificate in PEM form")?;
    let certificate = block.parse_x509().map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let left = certificate.validity().not_after.timestamp() - now.as_millis() / 1000;
    #[allow(clippy::cast_precision_loss)] // seconds of some years
    Ok(left as f64 / 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid from 2025-01-01 to 2026-01-01.
    const CERTIFICATE: &str = include_str!("certificate_test.pem");

    #[test]
    fn days_are_counted_to_the_end() {
        let at = |text: &str| days_left(CERTIFICATE.as_bytes(), text.parse().unwrap()).unwrap();
        assert!((at("2025-12-31T00:00:00Z") - 1.0).abs() < 1e-6);
        assert!((at("2026-01-03T00:00:00Z") + 2.0).abs() < 1e-6);
        assert!(days_left(b"", Timestamp::clamped(0)).is_err());
    }
}
