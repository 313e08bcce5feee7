//! The model section: presets by name, or a tower written out.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use softclip_encoders::{
    Activation, BertPool, ClipConfig, Error, Normalization, RegionConfig, TextConfig, TextPool, VisionConfig,
};

/// The network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The image tower: `rn50`, `vit_b_32`, `vit_b_16`, `vit_l_14`, `resnet50`, or one written out (`{kind: vit, …}`). Default: that
    /// of `init`.
    pub image: Option<ImageSpec>,
    /// The text tower: `clip` for the one that belongs to the preset, `bert`, `roberta`, or one written out. Default: that of
    /// `init`, else `clip`.
    pub text: Option<TextSpec>,
    /// Side of the images in pixels. Default: the tower's.
    pub image_size: Option<i64>,
    /// Width of the joint space. Default: the preset's or that of `init`; 512 where two single towers are joined.
    pub embed_dim: Option<i64>,
    /// The most tokens of a caption. Default: the text tower's.
    pub context_length: Option<i64>,
    /// x·σ(1.702 x) instead of GELU in CLIP's towers, as OpenAI's weights want. Default: as the preset or `init` has it.
    pub quick_gelu: Option<bool>,
    /// What stands for a text: `eot` or `max` of CLIP's tower, `pooler`, `class` or `mean` of BERT's. Default: the tower's.
    pub text_pool: Option<Pool>,
    /// Mean and deviation of the pixels' channels. Default: those of the image tower's published weights.
    pub normalization: Option<Normalization>,
    /// Share of a Vision Transformer's patches that are left out in training, another random choice for each image (FLIP). Default:
    /// that of `init`, else 0.
    pub patch_dropout: Option<f64>,
    /// SoftCLIP's region branch.
    pub regions: Option<RegionConfig>,
    /// Pretrained weights to start from, by folder, file or hub id: a whole model, or `{image: NAME, text: NAME}`.
    pub init: Option<InitSpec>,
    /// Where the tokenizer is, by folder or hub id; `clip` for CLIP's. Default: that of the text tower's `init`, else `clip`.
    pub tokenizer: Option<String>,
}

/// What stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The end token.
    Eot,
    /// The maximum over all tokens.
    Max,
    /// tanh of a linear layer over the first token.
    Pooler,
    /// The first token.
    Class,
    /// The mean over all tokens.
    Mean,
}

impl Pool {
    /// Sets `tower`'s pooling, or tells what it has.
    pub(crate) fn apply(self, tower: &mut TextConfig) -> Result<(), String> {
        match (tower, self) {
            (TextConfig::Clip(c), Pool::Eot) => c.pool = TextPool::Eot,
            (TextConfig::Clip(c), Pool::Max) => c.pool = TextPool::Max,
            (TextConfig::Bert(c), Pool::Pooler) => c.pool = BertPool::Pooler,
            (TextConfig::Bert(c), Pool::Class) => c.pool = BertPool::Class,
            (TextConfig::Bert(c), Pool::Mean) => c.pool = BertPool::Mean,
            (tower, _) => {
                let clips = matches!(tower, TextConfig::Clip(_));
                let has = if clips { "CLIP's has eot and max" } else { "BERT's has pooler, class and mean" };
                return Err(format!("this text tower has no such pooling: {has}"));
            }
        }
        Ok(())
    }
}

/// Pretrained weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum InitSpec {
    /// A whole model's.
    Whole(String),
    /// Those of single towers.
    Towers(TowerInit),
}

/// Pretrained weights of single towers; a whole model's name takes the tower out of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TowerInit {
    /// The image tower's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The text tower's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// An image tower, by name or written out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ImageSpec {
    /// A preset.
    Preset(String),
    /// Written out.
    Tower(VisionConfig),
}

/// A text tower, by name or written out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TextSpec {
    /// `clip`, `bert` or `roberta`.
    Preset(String),
    /// Written out.
    Tower(TextConfig),
}

/// A name, or a map that is `T`. (serde's untagged enums would say only that nothing matched.)
struct NameOr<T> {
    expects: &'static str,
    name: fn(String) -> T,
    tower: std::marker::PhantomData<T>,
}

trait Tower: Sized {
    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

impl Tower for ImageSpec {
    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        VisionConfig::deserialize(MapAccessDeserializer::new(map)).map(Self::Tower)
    }
}

impl Tower for TextSpec {
    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        TextConfig::deserialize(MapAccessDeserializer::new(map)).map(Self::Tower)
    }
}

impl Tower for InitSpec {
    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        TowerInit::deserialize(MapAccessDeserializer::new(map)).map(Self::Towers)
    }
}

impl<'de, T: Tower> Visitor<'de> for NameOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.expects)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<T, E> {
        Ok((self.name)(name.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::of_map(map)
    }
}

impl<'de> Deserialize<'de> for ImageSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expects = "rn50, vit_b_32, vit_b_16, vit_l_14, resnet50 or a tower such as {kind: vit, …}";
        deserializer.deserialize_any(NameOr { expects, name: ImageSpec::Preset, tower: std::marker::PhantomData })
    }
}

impl<'de> Deserialize<'de> for TextSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expects = "clip, bert, roberta or a tower such as {width: 512, heads: 8, layers: 12}";
        deserializer.deserialize_any(NameOr { expects, name: TextSpec::Preset, tower: std::marker::PhantomData })
    }
}

impl<'de> Deserialize<'de> for InitSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expects = "a folder, a file or a hub id, or {image: NAME, text: NAME}";
        deserializer.deserialize_any(NameOr { expects, name: InitSpec::Whole, tower: std::marker::PhantomData })
    }
}

/// What pretrained models say of the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The image tower.
    pub vision: Option<VisionConfig>,
    /// The text tower.
    pub text: Option<TextConfig>,
    /// The joint width, of a whole model.
    pub embed_dim: Option<i64>,
    /// What the pixels become.
    pub normalization: Option<Normalization>,
}

impl ModelConfig {
    /// Whether the towers are known without a look at pretrained weights.
    pub fn is_complete(&self) -> bool {
        self.image.is_some() && (self.text.is_some() || self.init.is_none())
    }

    /// The network in full; `given` is what pretrained weights say of it.
    ///
    /// # Errors
    /// A name is unknown, a tower is not said, or what is written does not fit together.
    pub fn resolve(&self, given: &Given) -> softclip_encoders::Result<ClipConfig> {
        let mut config = self.towers(given)?;
        if let Some(size) = self.image_size {
            config = config.with_image_size(size);
        }
        if let Some(tokens) = self.context_length {
            config = config.with_context_length(tokens);
        }
        if let Some(quick) = self.quick_gelu {
            config = config.with_activation(if quick { Activation::QuickGelu } else { Activation::Gelu });
        }
        if let Some(pool) = self.text_pool {
            pool.apply(&mut config.text).map_err(|why| Error::Config { key: "text_pool", why })?;
        }
        if let Some(share) = self.patch_dropout {
            config = config.with_patch_dropout(share)?;
        }
        config.normalization = self.normalization.unwrap_or(config.normalization);
        config.regions = self.regions.clone();
        config.validate()?;
        Ok(config)
    }

    fn towers(&self, given: &Given) -> softclip_encoders::Result<ClipConfig> {
        let preset = match &self.image {
            Some(ImageSpec::Preset(name)) => Some(ClipConfig::preset(name)?),
            _ => None,
        };
        let vision = match &self.image {
            Some(ImageSpec::Tower(vision)) => Some(vision.clone()),
            _ => preset.as_ref().map(|p| p.vision.clone()).or_else(|| given.vision.clone()),
        };
        let vision = vision.ok_or_else(|| {
            let why = "no image tower: name one (rn50, vit_b_32, vit_b_16, vit_l_14, resnet50), or pretrained weights by `init`";
            Error::Config { key: "image", why: why.into() }
        })?;
        let preset_dim = preset.as_ref().map(|p| p.embed_dim);
        let embed_dim = self.embed_dim.or(given.embed_dim).or(preset_dim).unwrap_or(512);
        let text = match (&self.text, &given.text, preset) {
            (Some(TextSpec::Tower(text)), _, _) => text.clone(),
            (None, Some(text), _) => text.clone(),
            // CLIP's text towers are as wide as their image towers' preset says, whatever the joint space is.
            (None, None, Some(preset)) => preset.text,
            (Some(TextSpec::Preset(name)), _, Some(preset)) if name == "clip" => preset.text,
            (Some(TextSpec::Preset(name)), _, _) => ClipConfig::text_preset(name, embed_dim)?,
            (None, None, None) => ClipConfig::text_preset("clip", embed_dim)?,
        };
        let config = ClipConfig::new(embed_dim, vision, text);
        Ok(ClipConfig { normalization: given.normalization.unwrap_or(config.normalization), ..config })
    }
}
