//! "Did you mean": the nearest of some words by edit distance. Used for every suggestion.

/// The candidate nearest to `word`, when it is near enough to be meant.
///
/// Case, `-` and `_` count as the same; a swap of neighbours counts as one edit. Near enough is one
/// edit for each three letters of the word, and at least one.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No candidate is longer than an id; a longer word is not a slip of the finger, and the table of
    // distances stays small.
    let word = folded(word).filter(|word| !word.is_empty())?;
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((strsim::osa_distance(&word, &folded(candidate)?), candidate)))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, candidate)| (*edits, candidate.len()))
        .map(|(_, candidate)| candidate)
}

fn folded(word: &str) -> Option<String> {
    (word.len() <= 128).then(|| word.replace('-', "_").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let words = ["misfire", "window", "run_once", "disk_used"];
        assert_eq!(nearest("mis_fire", words), Some("misfire"));
        assert_eq!(nearest("widnow", words), Some("window"));
        assert_eq!(nearest("run-once", words), Some("run_once"));
        assert_eq!(nearest("Disk_Use", words), Some("disk_used"));
        assert_eq!(nearest("banana", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"x".repeat(100_000), words), None);
    }
}
