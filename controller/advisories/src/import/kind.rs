//! What a file is, by what it holds and never by its name. Pure; for the importer.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Zip,
    Gzip,
    Osv,
    Tracker,
    Exploited,
    Epss,
    ScoreLines,
}

/// Keys that tell the origins apart.
#[derive(Deserialize)]
struct Marks {
    id: Option<IgnoredAny>,
    #[serde(rename = "catalogVersion")]
    catalog: Option<IgnoredAny>,
    cve: Option<IgnoredAny>,
}

impl Kind {
    /// Looks at the beginning, and where that says "JSON", at the keys of the outermost table.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return Ok(Self::Zip);
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip);
        }
        if bytes.starts_with(b"#model_version:") || bytes.starts_with(b"cve,epss,") {
            return Ok(Self::Epss);
        }
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
        match start.and_then(|at| bytes.get(at)) {
            None => return Err("the file is empty".to_owned()),
            Some(b'{') => {}
            Some(_) => {
                return Err(
                    "it is none of: OSV, Debian's tracker, KEV, EPSS, score lines, zip, gzip".to_owned()
                );
            }
        }
        // The first value of the file: more than one make lines of JSON.
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Marks>();
        let marks = values.next().ok_or("the file is empty")?.map_err(|error| error.to_string())?;
        Ok(match marks {
            Marks { catalog: Some(_), .. } => Self::Exploited,
            Marks { id: Some(_), .. } => Self::Osv,
            Marks { cve: Some(_), .. } => Self::ScoreLines,
            _ => Self::Tracker,
        })
    }
}
