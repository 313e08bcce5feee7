//! The parts of a result that JSON has in another form than Rust.

/// Metrics: an object in JSON, in their order.
pub(super) mod metrics {
    use std::fmt;

    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde::ser::Serializer;
    use serde_json::Value;

    pub(crate) fn serialize<S: Serializer>(metrics: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(metrics.iter().map(|(name, value)| (name, value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
        struct Metrics;
        impl<'de> Visitor<'de> for Metrics {
            type Value = Vec<(String, f64)>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("metrics by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut metrics = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    metrics.extend(value.as_f64().map(|value| (name, value)));
                }
                Ok(metrics)
            }
        }
        deserializer.deserialize_map(Metrics)
    }
}

/// JSON as Python's `json` writes it, with `null` for the numbers that JSON does not have: NaN and the infinities.
pub(super) fn without_nan(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    // Outside of strings these words have no other meaning.
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with('"') {
            string(rest)
        } else if let Some(word) = ["NaN", "Infinity", "-Infinity"].iter().find(|word| rest.starts_with(**word)) {
            clean.push_str("null");
            rest = &rest[word.len()..];
            continue;
        } else {
            1
        };
        clean.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    clean + rest
}

/// Bytes of the string that `text` begins with, both quotes among them; all where it does not end.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use crate::{ClassScore, EvalResult};

    #[test]
    fn what_was_written_is_read_in_its_order() {
        let result = EvalResult {
            dataset: "pets".to_owned(),
            task: "zeroshot_classification".to_owned(),
            language: "en".to_owned(),
            metrics: [("mean_per_class_recall", 0.5), ("acc1", 0.25), ("acc5", 1.0)].map(|(n, v)| (n.to_owned(), v)).to_vec(),
            classnames: vec!["NaN \"-Infinity\\".to_owned()],
            classes: vec![ClassScore { class: "Bengal".to_owned(), images: 2, right: 1, recall: Some(0.5), most_wrong: None }],
            ..EvalResult::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        result.write(&path).unwrap();
        assert_eq!(EvalResult::read(&path).unwrap(), result);
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().take(6).map(String::as_str).collect();
        assert_eq!(keys, ["dataset", "model", "pretrained", "task", "language", "metrics"]);
        assert_eq!(json["metrics"]["acc1"], 0.25);
    }

    #[test]
    fn files_of_clip_benchmark_are_results() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            EvalResult::read(&path)
        };
        let result = read(
            r#"{"dataset": "pcam", "model": "ViT-B-32", "pretrained": "laion400m_e32", "task": "zeroshot_classification",
            "metrics": {"acc1": 0.6, "acc5": NaN, "low": -Infinity, "mean_per_class_recall": 0.59, "report": "-NaN"}, "language": "jp"}"#,
        )
        .unwrap();
        assert_eq!((result.metric("acc1"), result.metric("acc5"), result.metrics.len()), (Some(0.6), None, 2));
        assert_eq!((result.language.as_str(), result.data.images), ("jp", 0));
        for (text, words) in [("{}", "missing field `dataset`"), ("[1", "no result"), ("\"NaN", "line 1")] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("r.json"), "{message}");
        }
    }
}
