//! The configurations in `configs/` are true, and `docs/configuration.md` names every key there is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use softclip_data::loader::TagList;
use softclip_loss::LossConfig;
use softclip_train::config::{self, Compat, Given, RunConfig, Schedule, Task};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(name: &str, sets: &[&str]) -> RunConfig {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    config::load(&root().join("configs").join(name), &sets).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_file_in_configs_is_a_run() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("configs")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            continue; // maps of patches are no runs
        }
        let name = entry.file_name().into_string().unwrap();
        let config = load(&name, &["data.train=x/{00000..00331}.tar"]);
        assert_eq!(config.data.train.as_deref(), Some("x/{00000..00331}.tar"), "{name}");
        let needs = config.loss.needs();
        assert_eq!(needs.regions, config.model.regions.is_some(), "{name}: a region branch without a loss that needs it");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} configurations");
}

#[test]
fn published_settings_are_those_of_table_1() {
    let rows = [
        ("clip-rn50.yaml", 2048),
        ("softclip-rn50.yaml", 2048),
        ("softclip-vit-b-32.yaml", 2048),
        ("softclip-vit-b-16.yaml", 1024),
    ];
    for (name, batch_size) in rows {
        let c = load(name, &[]);
        assert_eq!((c.train.batch_size, c.train.epochs, c.train.weight_decay), (batch_size, 32.0, 0.2), "{name}");
        let clip = c.model.resolve(&Default::default()).unwrap();
        assert_eq!((clip.image_size(), clip.context_length()), (224, 77), "{name}");
    }
}

#[test]
fn scales_belong_to_instances_and_copies() {
    let with = |eval: &str| config::load(&root().join("configs/clip-rn50.yaml"), &[format!("eval=[{{{eval}}}]")]);
    let loaded = with("task: copy, data: 'copydays:x', scales: [1, 0.5]").unwrap();
    assert_eq!((loaded.eval[0].task, &loaded.eval[0].scales), (Task::Copy, &vec![1.0, 0.5]));
    assert_eq!(with("task: instance, data: x").unwrap().eval[0].scales, [1.0]);
    for (eval, words) in [
        ("task: retrieval, scales: [0.5]", "only task: instance"),
        ("task: copy, scales: []", "at least one"),
        ("task: copy, scales: [9]", "from 0.05 to 8"),
    ] {
        let message = with(eval).unwrap_err().to_string();
        assert!(message.contains("eval.0.scales") && message.contains(words), "{message}");
    }
    // What names classes is for classes alone.
    for key in ["prompts", "classnames"] {
        let message = with(&format!("task: retrieval, {key}: imagenet1k")).unwrap_err().to_string();
        assert!(message.contains(&format!("eval.0.{key}")) && message.contains("only task: zeroshot"), "{message}");
    }
    let loaded = with("task: zeroshot, data: 'pets:x', prompts: clip, classnames: mine.txt").unwrap();
    assert_eq!((loaded.eval[0].prompts.as_deref(), loaded.eval[0].classnames.as_deref()), (Some("clip"), Some("mine.txt")));
}

#[test]
fn the_rows_of_text_based_softclips_table_are_as_its_code_has_them() {
    for (name, alpha) in [
        ("text-based-bert-resnet50-hard.yaml", 0.0),
        ("text-based-bert-vit-b-32-hard.yaml", 0.0),
        ("text-based-bert-vit-b-32-soft.yaml", 0.3),
    ] {
        let c = load(name, &[]);
        let loss =
            serde_yaml::from_str(&format!("{{name: text_based, alpha: {alpha}, blend: targets, symmetrize: true, tau: 0.1}}"));
        assert_eq!(c.loss, loss.unwrap(), "{name}");
        let t = &c.train;
        assert_eq!(
            (t.batch_size, t.lr, t.weight_decay, t.beta1, t.beta2, t.eps),
            (16, 1e-5, 0.0, 0.9, Some(0.999), Some(1e-8)),
            "{name}"
        );
        assert_eq!((t.schedule, t.warmup, c.tau(), c.model.embed_dim), (Schedule::Const, 0.0, 0.1, Some(768)), "{name}");
        assert_eq!((c.eval[0].task, c.eval[0].compat), (Task::Pairing, Some(Compat::Source)), "{name}");
        let soft = alpha > 0.0;
        assert_eq!((c.category.encoder.is_some(), c.data.tags == TagList::DistinctSorted), (soft, soft), "{name}");
        assert_eq!(c.data.neutral_tags.is_empty(), soft, "{name}");
        // Hard and soft by one key.
        assert_eq!(load("text-based-bert-vit-b-32-soft.yaml", &["loss.alpha=0"]).loss, load(name, &["loss.alpha=0"]).loss);
        let LossConfig::TextBased(normalized) = load(name, &["loss.blend=targets_normalized"]).loss else { panic!("{name}") };
        assert_eq!(normalized.tau, Some(0.1));
        assert_eq!(load(name, &["loss.tau=0.07"]).tau(), 0.07, "{name}: the constant is one key");
    }
}

#[test]
fn any_pairing_is_a_few_keys_away() {
    let images: [&[&str]; 3] = [
        &["model.image=resnet50", "model.init.image=timm/resnet50.tv_in1k"],
        &["model.image=vit_b_32-quickgelu", "model.init.image=openai/clip-vit-base-patch32"],
        &["model.image=vit_l_14-quickgelu", "model.init.image=openai/clip-vit-large-patch14"],
    ];
    let texts: [&[&str]; 2] = [&[], &["model.text=roberta", "model.init.text=FacebookAI/roberta-base", "model.text_pool=mean"]];
    for image in images {
        for text in texts {
            for name in ["text-based-bert-resnet50-hard.yaml", "text-based-bert-vit-b-32-soft.yaml"] {
                let clip = load(name, &[image, text].concat()).model.resolve(&Given::default()).unwrap();
                assert_eq!(
                    (clip.embed_dim, clip.image_size(), clip.context_length()),
                    (768, 224, 77),
                    "{name} {image:?} {text:?}"
                );
            }
        }
    }
}

/// Dotted names of a value's leaves; a list's items are `[]`. Towers and temperatures that are written out count as one key.
fn keys(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let whole = ["model.image", "model.text", "loss.target_temperature"];
    match value {
        Value::Mapping(map) if !whole.contains(&at) => {
            for (key, value) in map {
                let key = key.as_str().unwrap();
                keys(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }, found);
            }
        }
        Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
            items.iter().for_each(|item| keys(item, &format!("{at}[]"), found));
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

#[test]
fn the_documentation_names_every_key_and_no_other() {
    let eval = "eval=[{task: retrieval, data: x}]";
    let mut there = BTreeSet::new();
    for loss in ["clip", "label_smoothing", "softclip", "siglip"] {
        let config = load("softclip-rn50.yaml", &[&format!("loss={{name: {loss}}}"), eval]);
        keys(&serde_yaml::to_value(&config).unwrap(), "", &mut there);
    }
    let text_based = serde_yaml::to_value(softclip_loss::LossConfig::TextBased(Default::default())).unwrap();
    keys(&text_based, "loss", &mut there);
    there.insert("model.regions".to_owned());
    let text = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(there.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/configuration.md");
    assert_eq!(documented.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "in docs/configuration.md alone");
}

/// The configurations of all runs of a plan of the project, with one seed.
fn configurations(name: &str) -> Vec<RunConfig> {
    let path = root().join("configs/ablations").join(name);
    softclip_train::ablation::load(&path, &[], &[0]).unwrap().cells(&[]).iter().map(|cell| cell.resolve().unwrap()).collect()
}

#[test]
fn figures_have_the_papers_points() {
    let soft = |config: &RunConfig| match &config.loss {
        LossConfig::Softclip(soft) => Some(soft.clone()),
        _ => None,
    };
    // Without the CLIP loss.
    let mu: Vec<f64> = configurations("figure4a.yaml").iter().filter_map(soft).map(|soft| soft.mu).collect();
    assert_eq!(mu, [0.0; 6]);
    let curve: Vec<_> = configurations("figure4b.yaml").iter().filter_map(soft).collect();
    assert_eq!(curve.iter().map(|soft| soft.beta).fold(1.0, f64::min), 1e-4);
    assert!(curve.iter().all(|soft| soft.divergence == softclip_loss::config::Divergence::Kl));
    let mut fractions: Vec<f64> = configurations("figure8.yaml").iter().map(|config| config.data.share).collect();
    fractions.dedup();
    assert_eq!(fractions, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|sixths| sixths / 6.0));
}
