//! Weights by name.

use std::collections::BTreeMap;

use tch::nn::VarStore;
use tch::{Kind, Tensor, no_grad};

use crate::error::{Error, Result};

/// What became of a file's tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How many of the model's tensors were filled.
    pub loaded: usize,
    /// Names that the model has and the file lacks.
    pub missing: Vec<String>,
    /// Names that the file has and the model lacks.
    pub unexpected: Vec<String>,
}

/// Fills a model from named tensors, f16 and bf16 widened. A prefix `module.` is stripped; batch norm's `num_batches_tracked` and
/// `position_ids` mean nothing here and are passed over.
///
/// # Errors
/// A tensor's shape is not the model's, or with `strict` a name is missing or unexpected. Nothing has changed then.
pub fn load_weights(vs: &VarStore, tensors: &BTreeMap<String, Tensor>, strict: bool) -> Result<LoadReport> {
    let own: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let given: BTreeMap<&str, &Tensor> = tensors.iter().filter_map(|(n, t)| Some((bare(n)?, t))).collect();
    let report = LoadReport {
        loaded: own.keys().filter(|n| given.contains_key(n.as_str())).count(),
        missing: own.keys().filter(|n| !given.contains_key(n.as_str())).cloned().collect(),
        unexpected: given.keys().filter(|n| !own.contains_key(**n)).map(|n| (*n).to_owned()).collect(),
    };
    if strict {
        refuse_misfits(&report)?;
    }
    let pairs: Vec<(&str, &Tensor, Tensor)> = own
        .iter()
        .filter_map(|(name, to)| given.get(name.as_str()).map(|from| (name.as_str(), *from, to.shallow_clone())))
        .collect();
    for (name, from, to) in &pairs {
        if from.size() != to.size() {
            return Err(Error::Weights(format!("`{name}` has shape {:?}, the model's has {:?}", from.size(), to.size())));
        }
    }
    no_grad(|| {
        for (_, from, mut to) in pairs {
            to.f_copy_(from)?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(report)
}

/// A file's name without the prefix `module.`; `None` for what means nothing here.
pub(crate) fn bare(name: &str) -> Option<&str> {
    let idle = name.ends_with("num_batches_tracked") || name.ends_with("position_ids");
    (!idle).then(|| name.strip_prefix("module.").unwrap_or(name))
}

/// An error where names are missing or unexpected.
pub(crate) fn refuse_misfits(report: &LoadReport) -> Result<()> {
    if report.missing.is_empty() && report.unexpected.is_empty() {
        return Ok(());
    }
    let (missing, unexpected) = (some(&report.missing), softclip_io::printable(&some(&report.unexpected), 1000));
    Err(Error::Weights(format!("the weights are not this model's: missing {missing}, unexpected {unexpected}")))
}

fn some(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        [_] | [_, _] | [_, _, _] => names.join(", "),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

/// All parameters and buffers by name, sorted: what a checkpoint holds. Shallow clones.
pub fn named_tensors(vs: &VarStore) -> Vec<(String, Tensor)> {
    vs.variables().into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Rearranges convolution weights in memory, channels innermost, which is where convolutions are fastest in reduced precision
/// and on tensor cores. Values, shapes and names stay. Before an optimizer is made.
///
/// # Errors
/// The device has no memory left.
pub fn to_channels_last(vs: &VarStore) -> Result<()> {
    no_grad(|| {
        for (_, mut t) in vs.variables() {
            if t.dim() == 4 && t.kind() != Kind::Int64 {
                let changed = t.detach().f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
                t.set_data(&changed);
            }
        }
        Ok(())
    })
}
