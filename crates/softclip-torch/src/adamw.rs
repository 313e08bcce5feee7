//! AdamW by libtorch's fused kernel, and clipping by the global norm.

use std::collections::BTreeMap;

use softclip_sys as sys;
use tch::{Kind, Tensor};

use crate::error::{Error, Result, check};
use crate::raw::pointers;
use crate::scaler::GradScaler;

/// Parameters that share their settings.
#[derive(Debug)]
pub struct ParamGroup {
    /// Names and leaves (shallow clones of the model's).
    pub params: Vec<(String, Tensor)>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Multiplies the learning rate of each step.
    pub lr_scale: f64,
}

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the running mean of gradients.
    pub beta1: f64,
    /// Decay of the running mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWOptions {
    /// CLIP's for Vision Transformers: 0.9, 0.98, 1e-6.
    fn default() -> Self {
        AdamWOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 }
    }
}

/// Loshchilov and Hutter's AdamW over several groups, one kernel launch a group.
///
/// The state of a parameter is `exp_avg`, `exp_avg_sq` (its shape) and `step` (f32 scalar), as PyTorch's.
#[derive(Debug)]
pub struct AdamW {
    groups: Vec<Group>,
    options: AdamWOptions,
}

#[derive(Debug)]
struct Group {
    names: Vec<String>,
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
    weight_decay: f64,
    lr_scale: f64,
}

impl AdamW {
    /// State of zeros for every parameter, in the parameter's own memory layout (convert to channels-last before).
    ///
    /// # Errors
    /// A parameter appears twice, or the device has no memory left.
    pub fn new(groups: Vec<ParamGroup>, options: AdamWOptions) -> Result<Self> {
        let mut seen = std::collections::BTreeSet::new();
        let groups = groups
            .into_iter()
            .map(|g| {
                let (names, params): (Vec<_>, Vec<_>) = g.params.into_iter().unzip();
                if let Some(twice) = names.iter().find(|n| !seen.insert((*n).clone())) {
                    return Err(Error::Invalid(format!("parameter `{twice}` is in two optimizer groups")));
                }
                let zeros = |p: &Tensor| p.detach().f_zeros_like();
                let step = |p: &Tensor| Tensor::f_zeros([], (Kind::Float, p.device()));
                Ok(Group {
                    exp_avgs: params.iter().map(zeros).collect::<std::result::Result<_, _>>()?,
                    exp_avg_sqs: params.iter().map(zeros).collect::<std::result::Result<_, _>>()?,
                    steps: params.iter().map(step).collect::<std::result::Result<_, _>>()?,
                    names,
                    params,
                    weight_decay: g.weight_decay,
                    lr_scale: g.lr_scale,
                })
            })
            .collect::<Result<_>>()?;
        Ok(AdamW { groups, options })
    }

    /// All parameters, group by group.
    pub fn params(&self) -> Vec<Tensor> {
        self.groups.iter().flat_map(|g| g.params.iter().map(Tensor::shallow_clone)).collect()
    }

    /// Zeroes the gradients in place.
    pub fn zero_grad(&mut self) {
        for p in self.groups.iter().flat_map(|g| &g.params) {
            let mut grad = p.grad();
            if grad.defined() {
                // Not detached first: a gradient may be a view of a reducer's bucket.
                let _ = tch::no_grad(|| grad.zero_());
            }
        }
    }

    /// One step at learning rate `lr` (times each group's `lr_scale`) from the gradients as they are; parameters without one,
    /// and those that no longer require one, are left alone. With a `scaler` whose last [`GradScaler::unscale`] met a non-finite gradient nothing changes.
    ///
    /// # Errors
    /// A gradient's shape or the state's layout is not the parameter's.
    pub fn step(&mut self, lr: f64, scaler: Option<&GradScaler>) -> Result<()> {
        let found_inf = scaler.map_or(std::ptr::null(), |s| s.found_inf().as_ptr());
        for group in &self.groups {
            let learns = |p: &Tensor| p.requires_grad() && p.grad().defined();
            let with_grad: Vec<usize> = (0..group.params.len()).filter(|&i| learns(&group.params[i])).collect();
            let pick = |from: &[Tensor]| with_grad.iter().map(|&i| from[i].shallow_clone()).collect::<Vec<_>>();
            let (params, exp_avgs, exp_avg_sqs, steps) =
                (pick(&group.params), pick(&group.exp_avgs), pick(&group.exp_avg_sqs), pick(&group.steps));
            if params.is_empty() {
                continue;
            }
            let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
            let step = sys::AdamWStep {
                lr: lr * group.lr_scale,
                beta1: self.options.beta1,
                beta2: self.options.beta2,
                weight_decay: group.weight_decay,
                eps: self.options.eps,
            };
            let (p, g, m, v, t) =
                (pointers(&params), pointers(&grads), pointers(&exp_avgs), pointers(&exp_avg_sqs), pointers(&steps));
            // SAFETY: five arrays of n handles whose tensors are alive; the shim checks shapes and strides before the kernel
            // walks their memory; the error record outlives the call.
            check(|e| unsafe {
                sys::softclip_fused_adamw(
                    p.len() as i64,
                    p.as_ptr(),
                    g.as_ptr(),
                    m.as_ptr(),
                    v.as_ptr(),
                    t.as_ptr(),
                    step,
                    std::ptr::null(),
                    found_inf,
                    e,
                );
            })?;
        }
        Ok(())
    }

    /// The whole state under `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`: for a checkpoint. Shallow clones.
    pub fn state_tensors(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        for g in &self.groups {
            for (i, name) in g.names.iter().enumerate() {
                out.push((format!("{name}.exp_avg"), g.exp_avgs[i].shallow_clone()));
                out.push((format!("{name}.exp_avg_sq"), g.exp_avg_sqs[i].shallow_clone()));
                out.push((format!("{name}.step"), g.steps[i].shallow_clone()));
            }
        }
        out
    }

    /// Takes over a state that [`AdamW::state_tensors`] gave.
    ///
    /// # Errors
    /// A tensor is missing or has another shape; the message names it. Nothing has changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let own = self.state_tensors();
        for (name, to) in &own {
            let from = state
                .get(name)
                .ok_or_else(|| Error::Invalid(format!("the optimizer state lacks `{name}`: it belongs to another model")))?;
            if from.size() != to.size() {
                let (found, expected) = (from.size(), to.size());
                return Err(Error::Invalid(format!("optimizer state `{name}` has shape {found:?}, expected {expected:?}")));
            }
        }
        for (name, mut to) in own {
            to.f_copy_(&state[&name])?;
        }
        Ok(())
    }
}

/// Scales gradients in place so that their joint L2 norm is at most `max_norm`; returns the norm before (which may be NaN or
/// infinite, then nothing was scaled to something useful: look at it). `f64::INFINITY` only measures. Tensors without a
/// gradient are passed over.
///
/// # Errors
/// libtorch fails.
pub fn clip_grad_norm(params: &[Tensor], max_norm: f64) -> Result<f64> {
    let grads: Vec<Tensor> = params.iter().map(Tensor::grad).filter(Tensor::defined).collect();
    let pointers = pointers(&grads);
    // SAFETY: n handles whose tensors are alive; the error record outlives the call.
    check(|e| unsafe { sys::softclip_clip_grad_norm(pointers.len() as i64, pointers.as_ptr(), max_norm, e) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generator;
    use crate::device::channels_last;
    use tch::{Device, no_grad};

    fn group(tensor: &Tensor, weight_decay: f64) -> Vec<ParamGroup> {
        vec![ParamGroup { params: vec![("w".into(), tensor.shallow_clone())], weight_decay, lr_scale: 1.0 }]
    }

    /// The update rule as the paper has it, in f64.
    fn by_hand(w: &Tensor, grads: &[Tensor], lr: f64, wd: f64, o: AdamWOptions) -> Tensor {
        let (mut w, mut m, mut v) =
            (w.to_kind(Kind::Double), w.zeros_like().to_kind(Kind::Double), w.zeros_like().to_kind(Kind::Double));
        for (t, g) in grads.iter().enumerate() {
            let g = g.to_kind(Kind::Double);
            m = m * o.beta1 + &g * (1.0 - o.beta1);
            v = v * o.beta2 + g.square() * (1.0 - o.beta2);
            let (c1, c2) = (1.0 - o.beta1.powi(t as i32 + 1), 1.0 - o.beta2.powi(t as i32 + 1));
            w = &w * (1.0 - lr * wd) - (&m / c1) / ((&v / c2).sqrt() + o.eps) * lr;
        }
        w
    }

    fn largest(a: &Tensor, b: &Tensor) -> f64 {
        (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
    }

    fn set_grad(w: &Tensor, g: &Tensor) {
        // `backward` of a product with a constant gives that constant as the gradient, in the parameter's layout.
        let mut grad = w.grad();
        if grad.defined() {
            let _ = grad.detach_().zero_();
        }
        (w * g).sum(Kind::Float).backward();
    }

    #[test]
    fn steps_follow_the_papers_rule() {
        let random = Generator::new(1);
        let w = random.normal([7, 5]).unwrap().set_requires_grad(true);
        let start = w.detach().copy();
        let grads: Vec<_> = (0..4).map(|_| random.normal([7, 5]).unwrap()).collect();
        let options = AdamWOptions::default();
        let mut adamw = AdamW::new(group(&w, 0.2), options).unwrap();
        for g in &grads {
            set_grad(&w, g);
            adamw.step(1e-2, None).unwrap();
        }
        assert!(largest(&w, &by_hand(&start, &grads, 1e-2, 0.2, options)) < 1e-6);
    }

    #[test]
    fn a_gradient_of_another_memory_layout_gives_the_same_update() {
        let random = Generator::new(2);
        let [start, grad] = [(); 2].map(|()| random.normal([4, 3, 5, 5]).unwrap());
        let update = |layout: &dyn Fn(&Tensor) -> Tensor, grad_layout: &dyn Fn(&Tensor) -> Tensor| {
            let w = layout(&start.copy()).set_requires_grad(true);
            let mut adamw = AdamW::new(group(&w, 0.1), AdamWOptions::default()).unwrap();
            set_grad(&w, &grad);
            no_grad(|| w.grad().set_data(&grad_layout(&grad)));
            adamw.step(1e-2, None).unwrap();
            w.detach().contiguous()
        };
        let plain = |t: &Tensor| t.contiguous();
        let expected = update(&plain, &plain);
        assert_eq!(expected, update(&channels_last, &plain));
        assert_eq!(expected, update(&plain, &channels_last));
        assert_eq!(expected, update(&channels_last, &channels_last));
    }

    #[test]
    fn the_state_survives_a_round_trip_and_a_foreign_one_is_refused() {
        let w = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut adamw = AdamW::new(group(&w, 0.0), AdamWOptions::default()).unwrap();
        set_grad(&w, &Tensor::from_slice(&[1f32, -2.0, 3.0]));
        adamw.step(0.1, None).unwrap();
        let state: BTreeMap<_, _> = adamw.state_tensors().into_iter().map(|(k, v)| (k, v.copy())).collect();
        let mut other = AdamW::new(group(&w, 0.0), AdamWOptions::default()).unwrap();
        other.load_state(&state).unwrap();
        for (name, tensor) in other.state_tensors() {
            assert_eq!(tensor, state[&name], "{name}");
        }
        let mut wrong = state;
        wrong.remove("w.step");
        assert!(other.load_state(&wrong).unwrap_err().to_string().contains("w.step"));
    }

    #[test]
    fn clipping_measures_and_scales_the_joint_norm() {
        let (a, b) = (
            Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)).set_requires_grad(true),
        );
        set_grad(&a, &Tensor::from_slice(&[3f32, 0.0]));
        set_grad(&b, &Tensor::from_slice(&[4f32]));
        let both = [a.shallow_clone(), b.shallow_clone()];
        assert!((clip_grad_norm(&both, f64::INFINITY).unwrap() - 5.0).abs() < 1e-6);
        assert!((clip_grad_norm(&both, 1.0).unwrap() - 5.0).abs() < 1e-6);
        assert!((clip_grad_norm(&both, f64::INFINITY).unwrap() - 1.0).abs() < 1e-5);
    }
}
