//! The model section: presets by name, or a tower written out.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use softclip_encoders::{ClipConfig, RegionConfig, TextConfig, VisionConfig};

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The image tower: `rn50`, `vit_b_32`, `vit_b_16`, `vit_l_14`, or one written out (`{kind: vit, …}`).
    pub image: ImageSpec,
    /// The text tower: `clip` for the one that belongs to the preset, or one written out.
    #[serde(default)]
    pub text: TextSpec,
    /// Side of the images in pixels. Default: the tower's.
    #[serde(default)]
    pub image_size: Option<i64>,
    /// Width of the joint space. Default: the preset's.
    #[serde(default)]
    pub embed_dim: Option<i64>,
    /// The most tokens of a caption. Default: the text tower's.
    #[serde(default)]
    pub context_length: Option<i64>,
    /// x·σ(1.702 x) instead of GELU, as OpenAI's weights want. Default: the preset's.
    #[serde(default)]
    pub quick_gelu: Option<bool>,
    /// SoftCLIP's region branch.
    #[serde(default)]
    pub regions: Option<RegionConfig>,
    /// A safetensors file with open_clip's names to start from.
    #[serde(default)]
    pub init: Option<PathBuf>,
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
    /// `clip`.
    Preset(String),
    /// Written out.
    Tower(TextConfig),
}

impl Default for TextSpec {
    fn default() -> Self {
        Self::Preset("clip".to_owned())
    }
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
        let expects = "rn50, vit_b_32, vit_b_16, vit_l_14 or a tower such as {kind: vit, …}";
        deserializer.deserialize_any(NameOr { expects, name: ImageSpec::Preset, tower: std::marker::PhantomData })
    }
}

impl<'de> Deserialize<'de> for TextSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expects = "clip or a tower such as {width: 512, heads: 8, layers: 12}";
        deserializer.deserialize_any(NameOr { expects, name: TextSpec::Preset, tower: std::marker::PhantomData })
    }
}

impl ModelConfig {
    /// The network in full.
    ///
    /// # Errors
    /// A name is unknown, or what is written does not fit together.
    pub fn resolve(&self) -> softclip_encoders::Result<ClipConfig> {
        let mut config = match &self.image {
            ImageSpec::Preset(name) => ClipConfig::preset(name)?,
            ImageSpec::Tower(vision) => ClipConfig { vision: vision.clone(), ..ClipConfig::vit_b_32() },
        };
        match &self.text {
            TextSpec::Preset(name) if name == "clip" => {}
            TextSpec::Preset(name) => {
                let why = format!("`{name}` is not a text tower: write clip, or the tower out");
                return Err(softclip_encoders::Error::Config { key: "text", why });
            }
            TextSpec::Tower(text) => config.text = text.clone(),
        }
        if let Some(size) = self.image_size {
            config = config.with_image_size(size);
        }
        config.embed_dim = self.embed_dim.unwrap_or(config.embed_dim);
        config.text.context_length = self.context_length.unwrap_or(config.text.context_length);
        config.quick_gelu = self.quick_gelu.unwrap_or(config.quick_gelu);
        config.regions = self.regions.clone();
        config.validate()?;
        Ok(config)
    }
}
