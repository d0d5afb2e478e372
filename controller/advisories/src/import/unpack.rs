//! Zip archives and gzip, in memory and within limits. Pure; for the importer.

use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

/// Takes one file of an archive, by its name.
pub(super) type Each<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), String>;

/// Hands on each file of the archive. `left` is how many bytes may still be unpacked; names go nowhere but into messages.
pub(super) fn zip(bytes: &[u8], most: usize, left: &mut usize, each: Each<'_>) -> Result<(), String> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("not a whole zip: {error}"))?;
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number).map_err(|error| format!("entry {number}: {error}"))?;
        if entry.is_dir() {
            continue;
        }
        let name: String = entry.name().chars().take(200).collect();
        // What the archive says of sizes is not believed: it is read until it ends or is too much.
        let content = read(&mut entry, most.min(*left)).map_err(|why| format!("{name}: {why}"))?;
        *left -= content.len();
        drop(entry);
        each(&name, &content)?;
    }
    Ok(())
}

/// The content of a gzip file.
pub(super) fn gzip(bytes: &[u8], most: usize, left: &mut usize) -> Result<Vec<u8>, String> {
    let content = read(&mut MultiGzDecoder::new(bytes), most.min(*left))?;
    *left -= content.len();
    Ok(content)
}

fn read(input: &mut dyn Read, most: usize) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    input.take(limit).read_to_end(&mut content).map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if content.len() > most {
        return Err(format!("unpacked it has more than the {most} bytes that are left to read"));
    }
    Ok(content)
}
