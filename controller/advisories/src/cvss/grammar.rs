//! The metrics and values of each version, from the specifications of FIRST. Letters count as they are written
//! there. Pure; for `vector`.

use std::fmt;

use serde::{Serialize, Serializer};

/// A version of CVSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CvssVersion {
    /// 2.0, without a prefix.
    V2,
    /// 3.0.
    V3_0,
    /// 3.1.
    V3_1,
    /// 4.0.
    V4,
}

/// A metric: its name and the values it can have.
pub(super) struct Metric {
    pub name: &'static str,
    pub values: &'static [&'static str],
    pub mandatory: bool,
}

const fn base(name: &'static str, values: &'static [&'static str]) -> Metric {
    Metric { name, values, mandatory: true }
}

const fn extra(name: &'static str, values: &'static [&'static str]) -> Metric {
    Metric { name, values, mandatory: false }
}

const REQUIREMENT: &[&str] = &["X", "L", "M", "H"];
const REQUIREMENT_V2: &[&str] = &["ND", "L", "M", "H"];

const V2: &[Metric] = &[
    base("AV", &["L", "A", "N"]),
    base("AC", &["H", "M", "L"]),
    base("Au", &["M", "S", "N"]),
    base("C", &["N", "P", "C"]),
    base("I", &["N", "P", "C"]),
    base("A", &["N", "P", "C"]),
    extra("E", &["U", "POC", "F", "H", "ND"]),
    extra("RL", &["OF", "TF", "W", "U", "ND"]),
    extra("RC", &["UC", "UR", "C", "ND"]),
    extra("CDP", &["N", "L", "LM", "MH", "H", "ND"]),
    extra("TD", &["N", "L", "M", "H", "ND"]),
    extra("CR", REQUIREMENT_V2),
    extra("IR", REQUIREMENT_V2),
    extra("AR", REQUIREMENT_V2),
];

const V3: &[Metric] = &[
    base("AV", &["N", "A", "L", "P"]),
    base("AC", &["L", "H"]),
    base("PR", &["N", "L", "H"]),
    base("UI", &["N", "R"]),
    base("S", &["U", "C"]),
    base("C", &["H", "L", "N"]),
    base("I", &["H", "L", "N"]),
    base("A", &["H", "L", "N"]),
    extra("E", &["X", "U", "P", "F", "H"]),
    extra("RL", &["X", "O", "T", "W", "U"]),
    extra("RC", &["X", "U", "R", "C"]),
    extra("CR", REQUIREMENT),
    extra("IR", REQUIREMENT),
    extra("AR", REQUIREMENT),
    extra("MAV", &["X", "N", "A", "L", "P"]),
    extra("MAC", &["X", "L", "H"]),
    extra("MPR", &["X", "N", "L", "H"]),
    extra("MUI", &["X", "N", "R"]),
    extra("MS", &["X", "U", "C"]),
    extra("MC", &["X", "N", "L", "H"]),
    extra("MI", &["X", "N", "L", "H"]),
    extra("MA", &["X", "N", "L", "H"]),
];

const V4: &[Metric] = &[
    base("AV", &["N", "A", "L", "P"]),
    base("AC", &["L", "H"]),
    base("AT", &["N", "P"]),
    base("PR", &["N", "L", "H"]),
    base("UI", &["N", "P", "A"]),
    base("VC", &["H", "L", "N"]),
    base("VI", &["H", "L", "N"]),
    base("VA", &["H", "L", "N"]),
    base("SC", &["H", "L", "N"]),
    base("SI", &["H", "L", "N"]),
    base("SA", &["H", "L", "N"]),
    extra("E", &["X", "A", "P", "U"]),
    extra("CR", REQUIREMENT),
    extra("IR", REQUIREMENT),
    extra("AR", REQUIREMENT),
    extra("MAV", &["X", "N", "A", "L", "P"]),
    extra("MAC", &["X", "L", "H"]),
    extra("MAT", &["X", "N", "P"]),
    extra("MPR", &["X", "N", "L", "H"]),
    extra("MUI", &["X", "N", "P", "A"]),
    extra("MVC", &["X", "H", "L", "N"]),
    extra("MVI", &["X", "H", "L", "N"]),
    extra("MVA", &["X", "H", "L", "N"]),
    extra("MSC", &["X", "H", "L", "N"]),
    extra("MSI", &["X", "S", "H", "L", "N"]),
    extra("MSA", &["X", "S", "H", "L", "N"]),
    extra("S", &["X", "N", "P"]),
    extra("AU", &["X", "N", "Y"]),
    extra("R", &["X", "A", "U", "I"]),
    extra("V", &["X", "D", "C"]),
    extra("RE", &["X", "L", "M", "H"]),
    extra("U", &["X", "Clear", "Green", "Amber", "Red"]),
];

impl CvssVersion {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [Self::V2, Self::V3_0, Self::V3_1, Self::V4];

    /// The number as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "2.0",
            Self::V3_0 => "3.0",
            Self::V3_1 => "3.1",
            Self::V4 => "4.0",
        }
    }

    /// What a vector of this version begins with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "",
            Self::V3_0 => "CVSS:3.0/",
            Self::V3_1 => "CVSS:3.1/",
            Self::V4 => "CVSS:4.0/",
        }
    }

    pub(super) const fn metrics(self) -> &'static [Metric] {
        match self {
            Self::V2 => V2,
            Self::V3_0 | Self::V3_1 => V3,
            Self::V4 => V4,
        }
    }
}

impl fmt::Display for CvssVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CvssVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
