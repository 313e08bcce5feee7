//! All keys of a configuration, to suggest one in place of a misspelled name.

use serde::Serialize;
use serde_yaml::Value;
use softclip_encoders::RegionConfig;
use softclip_io::did_you_mean;
use softclip_loss::LossConfig;

use super::{CategoryConfig, DataConfig, ModelConfig, TrainConfig};

/// Returns the full names of all keys with one value, such as `train.batch_size` and, for every loss, `loss.beta`.
pub fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    // First, because a name that several sections have is most often meant of this one.
    collect("train", &TrainConfig::default(), &mut keys);
    let model = ModelConfig { regions: Some(RegionConfig::default()), ..ModelConfig::default() };
    collect("model", &model, &mut keys);
    collect("data", &DataConfig::default(), &mut keys);
    for loss in [
        LossConfig::Clip(Default::default()),
        LossConfig::LabelSmoothing(Default::default()),
        LossConfig::Softclip(Default::default()),
        LossConfig::TextBased(Default::default()),
        LossConfig::Siglip(Default::default()),
    ] {
        collect("loss", &loss, &mut keys);
    }
    collect("category", &CategoryConfig::default(), &mut keys);
    keys.push("eval".to_owned());
    keys
}

/// Returns the key that `name`, a key without its section, is or was meant to be: `train.batch_size` for `batch-size`.
pub fn key_named(name: &str) -> Option<String> {
    let keys = keys();
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let names: Vec<String> = keys.iter().map(|key| last(key)).collect();
    // A full name, or the last part of one.
    let full = softclip_io::closest(name, keys.iter().map(String::as_str).filter(|_| name.contains('.'))).map(str::to_owned);
    let found = softclip_io::closest(name, names.iter().map(String::as_str));
    full.or_else(|| found.and_then(|found| keys.into_iter().find(|key| last(key) == found)))
}

/// What serde says of a name that it does not know, with the name that may be meant at the end: one of those that serde expects, or, for
/// `key`, one of another section.
pub(crate) fn with_suggestion(why: String, key: &str) -> String {
    let mut quoted = why.split('`').skip(1).step_by(2);
    let unknown = ["unknown field `", "unknown variant `"].iter().any(|start| why.starts_with(start));
    let Some(name) = quoted.next().filter(|_| unknown) else { return why };
    let mut suggestion = did_you_mean(name, quoted);
    if suggestion.is_empty() && why.starts_with("unknown field") {
        let elsewhere = key_named(name).filter(|found| found != key);
        suggestion = elsewhere.map_or_else(String::new, |found| format!("; did you mean `{found}`?"));
    }
    why + &suggestion
}

fn collect(prefix: &str, section: &impl Serialize, keys: &mut Vec<String>) {
    // A section of plain values: it cannot fail to be turned into YAML.
    flatten(prefix, &serde_yaml::to_value(section).unwrap_or_default(), keys);
}

fn flatten(prefix: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            for (name, value) in map {
                flatten(&format!("{prefix}.{}", name.as_str().unwrap_or_default()), value, keys);
            }
        }
        _ if keys.iter().any(|key| key == prefix) => {}
        _ => keys.push(prefix.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_full_name_once() {
        let keys = keys();
        for key in
            ["train.batch_size", "data.augment.flip", "loss.beta", "loss.name", "model.regions.dim", "train.image_tower.lr_scale"]
        {
            assert_eq!(keys.iter().filter(|found| *found == key).count(), 1, "{key}");
        }
    }

    #[test]
    fn names_without_their_section_are_found() {
        for (name, expected) in [
            ("batch-size", Some("train.batch_size")),
            ("bathc_size", Some("train.batch_size")),
            ("lr", Some("train.lr")),
            ("beta", Some("loss.beta")),
            ("train.bacth_size", Some("train.batch_size")),
            ("momentum", None),
        ] {
            assert_eq!(key_named(name).as_deref(), expected, "{name}");
        }
    }
}
