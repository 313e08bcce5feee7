//! "Did you mean": the name that is nearest to a misspelled one.

/// Returns the name of `candidates` that is nearest to `word`, if it is near enough to be meant: at most a third of its letters differ
/// (an exchange of two neighbors counts once), or `word` is the beginning of this name alone. Case, `-` and `_` make no difference.
///
/// ```
/// let keys = ["batch_size", "epochs", "lr"];
/// assert_eq!(softclip_io::closest("batchsize", keys), Some("batch_size"));
/// assert_eq!(softclip_io::closest("epcohs", keys), Some("epochs"));
/// assert_eq!(softclip_io::closest("momentum", keys), None);
/// ```
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let word = plain(word);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let distance = |name: &&&str| {
        let name = plain(name);
        let length = name.chars().count().max(word.chars().count());
        let distance = strsim::damerau_levenshtein(&word, &name);
        (distance <= length / 3).then_some(distance)
    };
    let near = candidates.iter().filter_map(|name| Some((distance(&name)?, *name))).min_by_key(|(distance, _)| *distance);
    let mut begun = candidates.iter().filter(|name| word.len() > 2 && plain(name).starts_with(&word));
    near.map(|(_, name)| name).or_else(|| begun.next().copied().filter(|_| begun.next().is_none()))
}

/// Returns `; did you mean NAME?` for the end of an error message, or nothing where no name is near; see [`closest`].
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, candidates).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let keys = ["batch_size", "chunk_size", "checkpoint_every", "lr", "log_every", "loss_clip", "rn50", "resnet50"];
        for (word, expected) in [
            ("Batch-Size", Some("batch_size")),
            ("batchsize", Some("batch_size")),
            ("bacth_size", Some("batch_size")),
            ("batch", Some("batch_size")),
            ("checkpoint", Some("checkpoint_every")),
            ("rn51", Some("rn50")),
            ("resnet-50", Some("resnet50")),
            ("LR", Some("lr")),
            ("lt", None),
            ("lo", None),
            ("size", None),
            ("optimizer", None),
            ("", None),
        ] {
            assert_eq!(closest(word, keys), expected, "{word}");
        }
        assert_eq!(closest("x", []), None);
        assert_eq!(did_you_mean("rn51", keys), "; did you mean `rn50`?");
        assert_eq!(did_you_mean("vgg", keys), "");
    }
}
