//! Pretrained weights to start from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{Architecture, ClipConfig, TextConfig, fit_positions};
use softclip_pretrained::{Event, HubOptions, Pretrained, locate};
use tch::Tensor;

use crate::checkpoint;
use crate::config::{self, ConfigError, Given, InitSpec, ModelConfig, TOKENS, model_error};
use crate::model::Model;
use crate::{Error, Result};

/// Where a run keeps a tokenizer that is not CLIP's.
pub const TOKENIZER: &str = "tokenizer";

/// What is taken of a pretrained model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Image,
    Text,
}

/// The pretrained models that a configuration names.
#[derive(Debug, Default)]
pub struct Init {
    parts: Vec<(Part, Pretrained)>,
    /// The tokenizer of a run whose checkpoint is among them.
    of_run: Option<Tokenizer>,
}

/// The linear layers into the joint space: drawn anew where their shape is another.
const PROJECTIONS: [&str; 6] = [
    "visual.proj",
    "visual.attnpool.c_proj.weight",
    "visual.attnpool.c_proj.bias",
    "visual.head.proj.weight",
    "text_projection",
    "text.proj.weight",
];

/// Whether a tensor belongs to the image tower.
pub(crate) fn is_image(name: &str) -> bool {
    name.starts_with("visual.")
}

/// Whether a tensor belongs to the text tower.
pub(crate) fn is_text(name: &str) -> bool {
    let others = ["visual.", "regions."];
    !others.iter().any(|other| name.starts_with(other)) && !name.ends_with("logit_scale") && name != "logit_bias"
}

/// Whether a tensor is a tower's linear layer into the joint space.
pub(crate) fn is_projection(name: &str) -> bool {
    PROJECTIONS.contains(&name)
}

/// That the text tower knows every token; CLIP's where there is no other tokenizer.
pub(crate) fn check_size(tokenizer: Option<&Tokenizer>, config: &ClipConfig) -> Result<()> {
    let tokens = tokenizer.map_or(TOKENS, |tokenizer| tokenizer.vocab_size() as i64);
    if tokens <= config.text.vocab_size() {
        return Ok(());
    }
    let known = config.text.vocab_size();
    let why = format!("it has {tokens} tokens, but the text tower knows {known}: they do not belong together");
    Err(ConfigError::Value { key: "model.tokenizer".to_owned(), why }.into())
}

/// CLIP's text tower is read at the largest token, which ends a text in CLIP's vocabulary; in another it is told the end.
pub(crate) fn read_at_end(tower: &mut TextConfig, tokenizer: &Tokenizer) {
    if let TextConfig::Clip(text) = tower
        && text.eot_token_id.is_none()
        && tokenizer.end_token() + 1 != tokenizer.vocab_size() as i64
    {
        text.eot_token_id = Some(tokenizer.end_token());
    }
}

/// The run that a checkpoint, or its file of weights, lies in.
fn run_of(path: &Path) -> Option<PathBuf> {
    let checkpoint = if path.is_dir() { path } else { path.parent()? };
    let run = checkpoint.parent()?.parent()?;
    (checkpoint.join(checkpoint::STATE).is_file() && run.join("config.yaml").is_file()).then(|| run.to_owned())
}

impl Part {
    fn has(self, name: &str) -> bool {
        match self {
            Part::Whole => true,
            Part::Image => is_image(name),
            Part::Text => is_text(name),
        }
    }
}

impl Init {
    /// Finds and reads what `spec` names; `watch` sees downloads and warnings.
    ///
    /// # Errors
    /// A model cannot be found or read.
    pub fn open(spec: Option<&InitSpec>, watch: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let named: Vec<(Part, &String)> = match spec {
            None => return Ok(Self::default()),
            Some(InitSpec::Whole(name)) => vec![(Part::Whole, name)],
            Some(InitSpec::Towers(towers)) => {
                let image = towers.image.iter().map(|name| (Part::Image, name));
                image.chain(towers.text.iter().map(|name| (Part::Text, name))).collect()
            }
        };
        let hub = HubOptions::from_env()?;
        let mut init = Self::default();
        for (part, name) in named {
            let mut pretrained = Pretrained::open(name, &hub, watch)?;
            if let Some(run) = run_of(Path::new(name)) {
                // A checkpoint's file tells less than the run's configuration.
                let network =
                    config::load(&run.join("config.yaml"), &[])?.model.resolve(&Given::default()).map_err(model_error)?;
                pretrained.normalization = Some(network.normalization);
                pretrained.architecture = Some(Architecture::Clip(network));
                let kept = run.join(TOKENIZER);
                if part != Part::Image && kept.is_dir() {
                    init.of_run = Some(Tokenizer::from_folder(&kept)?);
                }
            } else {
                pretrained.warn_of_assumptions();
            }
            init.parts.push((part, pretrained));
        }
        Ok(init)
    }

    /// What the models say of the network.
    pub fn given(&self) -> Given {
        let mut given = Given::default();
        for (part, model) in &self.parts {
            if *part != Part::Text {
                given.vision = model.vision().cloned();
                given.normalization = model.normalization;
            }
            if *part != Part::Image {
                given.text = model.text().cloned();
            }
            if let (Part::Whole, Some(Architecture::Clip(config))) = (part, &model.architecture) {
                given.embed_dim = Some(config.embed_dim);
            }
        }
        given
    }

    /// The tokenizer that goes with `config`; `None` for CLIP's own.
    ///
    /// # Errors
    /// There is none, or it has more tokens than the text tower.
    pub fn tokenizer(&self, model: &ModelConfig, config: &ClipConfig) -> Result<Option<Tokenizer>> {
        let text = self.parts.iter().find(|(part, model)| *part != Part::Image && model.text().is_some()).map(|(_, model)| model);
        let found = match (&model.tokenizer, &self.of_run, text) {
            (Some(name), ..) if name == "clip" => None,
            (Some(name), ..) if Path::new(name).is_dir() => Some(Tokenizer::from_folder(Path::new(name))?),
            (Some(name), ..) => Some(Tokenizer::from_folder(&locate(name, &HubOptions::from_env()?, &mut |_| {})?.root)?),
            (None, Some(of_run), _) => Some(of_run.clone()),
            (None, None, Some(text)) if text.reads_as_clip() => None,
            (None, None, Some(text)) if matches!(text.text(), Some(TextConfig::Bert(_))) => Some(text.tokenizer()?),
            (None, None, Some(text)) if text.has_tokenizer() => Some(text.tokenizer()?),
            (None, None, _) if matches!(config.text, TextConfig::Bert(_)) => {
                let why =
                    "BERT and RoBERTa need their vocabulary: name a folder or hub id with tokenizer.json or vocab.txt".to_owned();
                return Err(ConfigError::Value { key: "model.tokenizer".to_owned(), why }.into());
            }
            (None, None, _) => None,
        };
        check_size(found.as_ref(), config)?;
        Ok(found)
    }

    /// Fills `model`; a line on what became of it for each pretrained model.
    ///
    /// # Errors
    /// A tower's weights are missing or of another shape; a whole model has weights that are not the network's.
    pub fn apply(self, model: &mut Model, keep_scale: bool) -> Result<Vec<String>> {
        let shapes: BTreeMap<String, Vec<i64>> = model.tensors().into_iter().map(|(name, t)| (name, t.size())).collect();
        let mut lines = Vec::new();
        for (part, pretrained) in self.parts {
            let name = pretrained.files.name.clone();
            let mut tensors: BTreeMap<String, Tensor> = pretrained.tensors.into_iter().filter(|(n, _)| part.has(n)).collect();
            let fitted = fit_positions(model.clip().config(), &mut tensors)?;
            tensors.retain(|n, t| match shapes.get(n) {
                Some(_) if n == "logit_scale" => !keep_scale,
                Some(shape) => *shape == t.size() || !is_projection(n),
                // The bias belongs to SigLIP's loss; the pooler is read by a tower that takes another output than this layer's.
                None => n != "logit_bias" && !n.starts_with("text.transformer.pooler."),
            });
            let report = model.init_from(&tensors).map_err(|e| Error::Init { name: name.clone(), why: e.to_string() })?;
            let needed = |n: &&String| part.has(n) && !is_projection(n) && (is_image(n) || is_text(n));
            let missing: Vec<&String> = report.missing.iter().filter(needed).collect();
            let strangers: Vec<&String> = report.unexpected.iter().collect();
            for (names, what) in [(missing, "are missing in it"), (strangers, "are not the network's")] {
                if let Some(first) = names.first() {
                    let advice = match first.starts_with("text.transformer.pooler.") {
                        true => ": it was published without its pooler, write model.text_pool: class or mean",
                        false => "",
                    };
                    let why = format!("{} weights {what}, the first is `{first}`{advice}", names.len());
                    return Err(Error::Init { name, why });
                }
            }
            let new: Vec<&str> = report.missing.iter().filter(|n| part.has(n)).map(String::as_str).collect();
            let positions = if fitted > 0 { ", positions fitted to the new size" } else { "" };
            let new = if new.is_empty() { String::new() } else { format!("; new: {}", new.join(", ")) };
            lines.push(format!("init: {} tensors of {name}{positions}{new}", report.loaded));
        }
        Ok(lines)
    }
}
