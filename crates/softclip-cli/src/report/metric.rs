//! How metrics of any name are shown.

/// Short words for a metric's name: `image_retrieval_recall@5` is `T→I R@5`.
pub fn label(name: &str) -> String {
    let name = name.strip_prefix("retrieval_").unwrap_or(name);
    [("image_retrieval_", "T→I "), ("text_retrieval_", "I→T "), ("text_to_image", "T→I"), ("image_to_text", "I→T")]
        .into_iter()
        .fold(name.to_owned(), |name, (long, short)| name.replace(long, short))
        .replace("recall@", "R@")
        .replace('_', " ")
}

/// Whether less is better.
pub fn lower_is_better(name: &str) -> bool {
    ["rank", "loss", "error", "ece", "entropy"].iter().any(|word| name.split(|c: char| !c.is_alphanumeric()).any(|w| w == *word))
}

/// Whether all values are shares, which are shown in percent.
pub fn is_share(name: &str, values: impl Iterator<Item = f64>) -> bool {
    let mut values = values.filter(|value| value.is_finite()).peekable();
    values.peek().is_some() && !name.ends_with("rank") && values.all(|value| (0.0..=1.0).contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_short_words() {
        assert_eq!(label("retrieval_image_retrieval_recall@10"), "T→I R@10");
        assert_eq!(label("text_retrieval_median_rank"), "I→T median rank");
        assert_eq!(label("pairing_image_to_text"), "pairing I→T");
        assert_eq!(label("mean_per_class_recall"), "mean per class recall");
    }

    #[test]
    fn ranks_and_errors_are_to_be_low_and_ranks_are_no_shares() {
        assert!(lower_is_better("text_retrieval_mean_rank") && lower_is_better("calibration_error"));
        assert!(!lower_is_better("acc1") && !lower_is_better("precision"));
        assert!(is_share("acc1", [0.0, 1.0, f64::NAN].into_iter()) && !is_share("acc1", [f64::NAN].into_iter()));
        assert!(!is_share("mean_rank", [1.0].into_iter()) && !is_share("x", [-0.1].into_iter()));
    }
}
