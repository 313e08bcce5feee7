//! Which of their tensors make one of ours.

use std::collections::BTreeMap;

use softclip_torch::page_out;
use tch::Tensor;

use super::fail;
use crate::config::{ClipConfig, TextConfig, VisionConfig};
use crate::error::{Error, Result};

/// A tensor of ours.
pub(super) struct Link {
    pub ours: String,
    pub theirs: Theirs,
}

/// How it lies in their file.
pub(super) enum Theirs {
    /// As it is.
    Same(String),
    /// With dimensions of length 1 in front.
    Batched(String),
    /// With rows and columns exchanged.
    Transposed(String),
    /// As three of the same shape: queries, keys, values.
    Three([String; 3]),
}

impl Theirs {
    fn names(&self) -> &[String] {
        match self {
            Theirs::Same(name) | Theirs::Batched(name) | Theirs::Transposed(name) => std::slice::from_ref(name),
            Theirs::Three(names) => names,
        }
    }

    fn join(&self, parts: &[Tensor]) -> Result<Tensor> {
        Ok(match self {
            Theirs::Same(_) => parts[0].shallow_clone(),
            Theirs::Batched(_) => {
                let size: Vec<i64> = parts[0].size().into_iter().skip_while(|&n| n == 1).collect();
                parts[0].f_reshape(size)?
            }
            Theirs::Transposed(_) => parts[0].f_tr()?.f_contiguous()?,
            Theirs::Three(_) => Tensor::f_cat(parts, 0)?,
        })
    }

    pub fn take_apart(&self, ours: &Tensor) -> Result<Vec<(String, Tensor)>> {
        Ok(match self {
            Theirs::Same(name) => vec![(name.clone(), ours.shallow_clone())],
            Theirs::Batched(name) => vec![(name.clone(), ours.f_unsqueeze(0)?)],
            Theirs::Transposed(name) => vec![(name.clone(), ours.f_tr()?.f_contiguous()?)],
            Theirs::Three(names) => {
                let parts = ours.f_chunk(3, 0)?;
                names.iter().cloned().zip(parts).map(|(n, t)| Ok((n, t.f_contiguous()?))).collect::<Result<_>>()?
            }
        })
    }
}

/// Their tensors as ours. What was copied is paged out: it is likely a file's that stays mapped for its other tensors. What no link
/// names stays under its name.
pub(super) fn convert(links: &[Link], mut file: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut ours = BTreeMap::new();
    for link in links {
        let names = link.theirs.names();
        if !names.iter().all(|name| file.contains_key(name)) {
            continue;
        }
        let parts: Vec<Tensor> = names.iter().filter_map(|name| file.remove(name)).collect();
        let tensor = link.theirs.join(&parts).map_err(|e| Error::Weights(format!("`{}`: {e}", names[0])))?;
        if parts.len() > 1 {
            parts.iter().for_each(page_out);
        }
        ours.insert(link.ours.clone(), tensor);
    }
    ours.extend(file);
    Ok(ours)
}

/// Their names of what a block consists of.
struct Block {
    /// Ours and theirs of layers with a weight and a bias.
    layers: [(&'static str, &'static str); 5],
    /// Queries, keys, values.
    qkv: [&'static str; 3],
}

const CLIP_BLOCK: Block = Block {
    layers: [
        ("ln_1", "layer_norm1"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_2", "layer_norm2"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    ],
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
};

const VIT_BLOCK: Block = Block {
    layers: [
        ("ln_1", "layernorm_before"),
        ("attn.out_proj", "attention.output.dense"),
        ("ln_2", "layernorm_after"),
        ("mlp.c_fc", "intermediate.dense"),
        ("mlp.c_proj", "output.dense"),
    ],
    qkv: ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
};

#[derive(Default)]
struct Links(Vec<Link>);

impl Links {
    fn same(&mut self, ours: &str, theirs: &str) {
        self.0.push(Link { ours: ours.to_owned(), theirs: Theirs::Same(theirs.to_owned()) });
    }

    fn batched(&mut self, ours: &str, theirs: &str) {
        self.0.push(Link { ours: ours.to_owned(), theirs: Theirs::Batched(theirs.to_owned()) });
    }

    fn layer(&mut self, ours: &str, theirs: &str) {
        for part in ["weight", "bias"] {
            self.same(&format!("{ours}.{part}"), &format!("{theirs}.{part}"));
        }
    }

    fn transposed(&mut self, ours: &str, theirs: &str) {
        self.0.push(Link { ours: ours.to_owned(), theirs: Theirs::Transposed(theirs.to_owned()) });
    }

    fn blocks(&mut self, ours: &str, theirs: &str, count: i64, block: &Block) {
        for i in 0..count {
            let (ours, theirs) = (format!("{ours}.resblocks.{i}"), format!("{theirs}.{i}"));
            for (a, b) in block.layers {
                self.layer(&format!("{ours}.{a}"), &format!("{theirs}.{b}"));
            }
            for part in ["weight", "bias"] {
                let three = block.qkv.map(|name| format!("{theirs}.{name}.{part}"));
                self.0.push(Link { ours: format!("{ours}.attn.in_proj_{part}"), theirs: Theirs::Three(three) });
            }
        }
    }
}

/// `CLIPModel`'s.
pub(super) fn links(config: &ClipConfig) -> Result<Vec<Link>> {
    let VisionConfig::Vit(vision) = &config.vision else {
        return Err(fail("its CLIPModel has only Vision Transformers: use open_clip's layout for a ResNet".into()));
    };
    let TextConfig::Clip(text) = &config.text else {
        return Err(fail("its CLIPModel has only CLIP's text Transformer".into()));
    };
    if !vision.ln_pre || vision.patch_bias || vision.pooler {
        return Err(fail("its CLIPModel has only CLIP's form of the Vision Transformer".into()));
    }
    let mut links = Links::default();
    links.same("logit_scale", "logit_scale");
    links.same("token_embedding.weight", "text_model.embeddings.token_embedding.weight");
    links.same("positional_embedding", "text_model.embeddings.position_embedding.weight");
    links.blocks("transformer", "text_model.encoder.layers", text.layers, &CLIP_BLOCK);
    links.layer("ln_final", "text_model.final_layer_norm");
    links.transposed("text_projection", "text_projection.weight");
    links.same("visual.class_embedding", "vision_model.embeddings.class_embedding");
    links.same("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight");
    links.same("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight");
    links.layer("visual.ln_pre", "vision_model.pre_layrnorm");
    links.blocks("visual.transformer", "vision_model.encoder.layers", vision.layers, &CLIP_BLOCK);
    links.layer("visual.ln_post", "vision_model.post_layernorm");
    links.transposed("visual.proj", "visual_projection.weight");
    Ok(links.0)
}

/// `ViTModel`'s.
pub(super) fn vit_links(vision: &VisionConfig) -> Vec<Link> {
    let mut links = Links::default();
    if let VisionConfig::Vit(c) = vision {
        links.batched("visual.class_embedding", "embeddings.cls_token");
        links.batched("visual.positional_embedding", "embeddings.position_embeddings");
        links.layer("visual.conv1", "embeddings.patch_embeddings.projection");
        links.blocks("visual.transformer", "encoder.layer", c.layers, &VIT_BLOCK);
        links.layer("visual.ln_post", "layernorm");
        links.layer("visual.pooler.dense", "pooler.dense");
    }
    links.0
}
