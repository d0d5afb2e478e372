//! FIRST's Exploit Prediction Scoring System, a CSV a day. Pure; for the importer.

use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::osv::time;
use crate::advisory::Cve;

/// An estimate: in hundred-thousandths, as EPSS has five digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epss {
    /// How likely it is exploited within thirty days.
    pub probability: u32,
    /// The share of CVEs that are less likely.
    pub percentile: u32,
}

/// A day's file: the instant that it is of, where it says so, and its rows.
pub(super) type Day = (Option<Timestamp>, Vec<(Cve, Epss)>);

/// Digits after the point that are kept.
const DIGITS: usize = 5;

/// Reads a day's file.
pub(super) fn read(bytes: &[u8]) -> Result<Day, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("it is not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    if !text.ends_with('\n') {
        return Err("it ends in the middle of a line".to_owned());
    }
    let mut of = None;
    let mut header = false;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("line {}", number + 1);
        if let Some(comment) = line.strip_prefix('#') {
            let date = comment.split(',').find_map(|part| part.strip_prefix("score_date:"));
            of = date.map(|date| time(&place, &date.replace("+0000", "Z"))).transpose()?.or(of);
        } else if !header {
            if line != "cve,epss,percentile" {
                return Err(format!("{place}: the columns are not cve,epss,percentile"));
            }
            header = true;
        } else {
            let mut fields = line.split(',');
            let (Some(cve), Some(epss), Some(percentile), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(format!("{place}: it has not three fields"));
            };
            let cve = cve.parse::<Cve>().map_err(|error| format!("{place}: {error}"))?;
            let number = |text: &str| {
                let short: String = text.chars().take(32).collect();
                share(text).ok_or_else(|| format!("{place}: {short:?} is no number from 0 to 1"))
            };
            rows.push((cve, Epss { probability: number(epss)?, percentile: number(percentile)? }));
        }
    }
    if header { Ok((of, rows)) } else { Err("it has no columns".to_owned()) }
}

/// A decimal from 0 to 1 in hundred-thousandths; what is finer is cut.
fn share(text: &str) -> Option<u32> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(digits) || !matches!(whole, "0" | "1") {
        return None;
    }
    let kept: String = digits.chars().chain(std::iter::repeat('0')).take(DIGITS).collect();
    let all: u32 = format!("{whole}{kept}").parse().ok()?;
    let is_one = all == 10_u32.pow(5) && digits.bytes().all(|byte| byte == b'0');
    (all < 10_u32.pow(5) || is_one).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_whole_or_refused_with_its_line() {
        let good = "#model_version:v2023.03.01,score_date:2024-10-24T00:00:00+0000\ncve,epss,percentile\n\
                    CVE-2024-3094,0.00043,0.1\nCVE-2021-44228,1.0,1.00000\n";
        let (of, rows) = read(good.as_bytes()).unwrap();
        assert_eq!(of.unwrap().to_string(), "2024-10-24T00:00:00Z");
        let shares: Vec<_> = rows.iter().map(|(_, epss)| (epss.probability, epss.percentile)).collect();
        assert_eq!(shares, [(43, 10_000), (100_000, 100_000)]);
        for (text, told) in [
            ("cve,epss,percentile\nCVE-2024-3094,0.1", "it ends in the middle of a line"),
            ("cve,epss,percentile\nCVE-2024-3094,0.1\n", "line 2: it has not three fields"),
            ("cve,epss,percentile\nCVE-2024-3094,1.1,0\n", "line 2: \"1.1\" is no number from 0 to 1"),
            ("cve,epss,percentile\nCVE-2024-3094,NaN,0\n", "line 2: \"NaN\" is no number from 0 to 1"),
            ("cve,epss,percentile\nx,0,0\n", "line 2: \"x\" is no CVE id such as CVE-2024-3094"),
            ("cve,score\n", "line 1: the columns are not cve,epss,percentile"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), told);
        }
    }
}
