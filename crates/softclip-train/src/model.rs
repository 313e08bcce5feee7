//! A network with what its loss learns beside it.

use std::collections::BTreeMap;
use std::path::Path;

use softclip_encoders::{Clip, ClipConfig, LoadReport, load_weights, named_tensors, seeded, to_channels_last};
use softclip_loss::Needs;
use softclip_tensor::LogitScale;
use softclip_tensor::file::read_safetensors;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor, no_grad};

use crate::Result;

/// SigLIP's initial bias (its section 3.2).
const INITIAL_BIAS: f64 = -10.0;

/// The encoders, and the parameters of the loss: `logit_scale`, SigLIP's `logit_bias`, and `target_logit_scale` where targets have a
/// temperature of their own.
#[derive(Debug)]
pub struct Model {
    vs: VarStore,
    clip: Clip,
    bias: Option<Tensor>,
    target_scale: Option<Tensor>,
}

impl Model {
    /// A network with fresh weights, a function of `seed` and `config`.
    ///
    /// # Errors
    /// The configuration does not fit together, or the device has no memory left.
    pub fn new(config: &ClipConfig, needs: Needs, tau: f64, seed: u64, device: Device) -> Result<Self> {
        // Drawn on the CPU, so that every device starts from the same weights.
        let mut vs = VarStore::new(Device::Cpu);
        let clip = seeded(seed, || Clip::new(&vs.root(), config))?;
        let scale = LogitScale::from_tau(tau)?.log();
        let bias = needs.bias.then(|| vs.root().var("logit_bias", &[], Init::Const(INITIAL_BIAS)));
        let target_scale = needs.target_scale.then(|| vs.root().var("target_logit_scale", &[], Init::Const(scale)));
        vs.set_device(device);
        let model = Self { clip, bias, target_scale, vs };
        model.set_tau(tau)?;
        to_channels_last(&model.vs)?;
        Ok(model)
    }

    /// A network of `tensors`, all of it and no others, whose memory it shares on the CPU.
    ///
    /// # Errors
    /// Names or shapes differ, or the device has no memory left.
    pub fn from_tensors(
        config: &ClipConfig,
        needs: Needs,
        mut tensors: BTreeMap<String, Tensor>,
        device: Device,
    ) -> Result<Self> {
        let mut vs = VarStore::new(Device::Cpu);
        let mut of_loss = |needed: bool, name: &str| -> Result<Option<Tensor>> {
            if !needed {
                return Ok(None);
            }
            let found = tensors.remove(name).filter(|t| t.numel() == 1);
            let value = found.ok_or_else(|| softclip_encoders::Error::Weights(format!("the weights lack `{name}`, a scalar")))?;
            Ok(Some(vs.root().var(name, &[], Init::Const(value.double_value(&[])))))
        };
        let bias = of_loss(needs.bias, "logit_bias")?;
        let target_scale = of_loss(needs.target_scale, "target_logit_scale")?;
        let (clip, _) = Clip::from_tensors(&vs, config, tensors, true)?;
        vs.set_device(device);
        to_channels_last(&vs)?;
        Ok(Self { clip, bias, target_scale, vs })
    }

    /// Whether the encoders' blocks are computed again in backward ([`Clip::with_recompute`]).
    #[must_use]
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.clip = self.clip.with_recompute(recompute);
        self
    }

    /// The encoders.
    pub fn clip(&self) -> &Clip {
        &self.clip
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.vs.device()
    }

    /// Number type of the weights.
    pub fn kind(&self) -> Kind {
        self.clip.logit_scale().kind()
    }

    /// SigLIP's bias, a scalar.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// ln(1/τ) of the targets, a scalar.
    pub fn target_scale(&self) -> Option<&Tensor> {
        self.target_scale.as_ref()
    }

    /// Sets the temperature of the logits.
    ///
    /// # Errors
    /// τ is not a positive number.
    pub fn set_tau(&self, tau: f64) -> Result<()> {
        let scale = LogitScale::from_tau(tau)?.log();
        Ok(no_grad(|| self.clip.logit_scale().shallow_clone().f_fill_(scale).map(drop))?)
    }

    /// All weights and buffers by name.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        named_tensors(&self.vs)
    }

    /// What is learned, by name.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.tensors().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
    }

    /// Number of learned values.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// Takes weights from a safetensors file; all must be there, and no others.
    ///
    /// # Errors
    /// The file cannot be read; names or shapes differ.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.load_tensors(&read_safetensors(path)?)
    }

    /// As [`Model::load`], from memory.
    ///
    /// # Errors
    /// Names or shapes differ.
    pub fn load_tensors(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        load_weights(&self.vs, tensors, true)?;
        Ok(())
    }

    /// Takes what there is of `tensors`, and tells what was missing and what is not the network's.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn init_from(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<LoadReport> {
        Ok(load_weights(&self.vs, tensors, false)?)
    }

    /// Turns all weights to f64, for checks.
    pub fn to_double(&mut self) {
        self.vs.double();
    }
}
