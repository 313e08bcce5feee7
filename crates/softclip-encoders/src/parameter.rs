//! Where a model's parameters come from: drawn at random, or taken from tensors as they are.

use std::cell::RefCell;
use std::collections::BTreeMap;

use softclip_torch::{Generator, page_out};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::weights::{LoadReport, bare, refuse_misfits};

/// Tensors by name while a model is built of them.
struct Source {
    tensors: BTreeMap<String, Tensor>,
    report: LoadReport,
    /// Whether a missing tensor is an error.
    strict: bool,
    /// The first that does not fit.
    error: Option<Error>,
}

/// Where drawn parameters come from while a model is built of a seed.
struct Seeded {
    generator: Generator,
    /// The first failure to draw.
    error: Option<Error>,
}

impl Source {
    /// Whether the model that is being built will be refused.
    fn is_refused(&self) -> bool {
        self.error.is_some() || (self.strict && !self.report.missing.is_empty())
    }
}

thread_local! {
    /// What the model that this thread is building takes its parameters from.
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
    /// What the model that this thread is building draws its other parameters from.
    static SEEDED: RefCell<Option<Seeded>> = const { RefCell::new(None) };
}

/// Builds a model whose fresh weights depend on `seed` only, and not on what other threads draw.
///
/// Without this, models draw their fresh weights from libtorch's process-wide generator. The numbers are those of that generator
/// right after `manual_seed(seed)`.
///
/// ```
/// use softclip_encoders::{Clip, ClipConfig, seeded};
/// use tch::{Device, nn::VarStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = ClipConfig::from_open_clip_json(
/// #     r#"{"embed_dim": 8,
/// #         "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
/// #         "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}}"#,
/// # )?;
/// let weights = || -> Result<_, softclip_encoders::Error> {
///     let vs = VarStore::new(Device::Cpu);
///     seeded(7, || Clip::new(&vs.root(), &config))?;
///     Ok(vs.variables()["visual.proj"].copy())
/// };
/// assert_eq!(weights()?, weights()?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `build`; there is no memory for the weights.
pub fn seeded<T>(seed: u64, build: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Also when `build` panics: the next model on this thread is another one.
    struct Restore(Option<Seeded>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SEEDED.set(self.0.take());
        }
    }
    let _restore = Restore(SEEDED.replace(Some(Seeded { generator: Generator::new(seed), error: None })));
    let built = build()?;
    match SEEDED.take().and_then(|seeded| seeded.error) {
        Some(error) => Err(error),
        None => Ok(built),
    }
}

/// Draws a parameter from the generator of [`seeded`], if `init` is random and there is one.
fn drawn(p: &Path, dims: &[i64], init: Init) -> Option<Tensor> {
    SEEDED.with_borrow_mut(|seeded| {
        let Seeded { generator, error } = seeded.as_mut()?;
        let tensor = match init {
            Init::Randn { mean, stdev } => generator.normal_of(dims, p.kind()).map(|t| t * stdev + mean),
            Init::Uniform { lo, up } => generator.uniform_of(dims, lo, up, p.kind()),
            _ => return None,
        };
        tensor.and_then(|t| Ok(t.f_to_device(p.device())?)).map_err(|e| error.get_or_insert(e.into())).ok()
    })
}

/// Lets `build` take each parameter that `tensors` has by its name, sharing its memory; only the others are drawn. Meant for `build`s
/// that make one model at the root of a `VarStore`. A prefix `module.` is stripped; batch norm's `num_batches_tracked` and
/// `position_ids` mean nothing here and are passed over.
///
/// # Errors
/// Those of `build`; a tensor's shape is not the model's, or with `strict` a name is missing or unexpected. Memory is taken only for
/// what such a model needs: after the first misfit nothing is drawn any more.
pub(crate) fn build_from<T>(
    tensors: BTreeMap<String, Tensor>,
    strict: bool,
    build: impl FnOnce() -> Result<T>,
) -> Result<(T, LoadReport)> {
    let tensors = tensors.into_iter().filter_map(|(name, t)| Some((bare(&name)?.to_owned(), t))).collect();
    SOURCE.set(Some(Source { tensors, report: LoadReport::default(), strict, error: None }));
    /// Also when `build` panics: the next model on this thread is another one.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            SOURCE.set(None);
        }
    }
    let _clear = Clear;
    let built = build();
    let Some(Source { tensors, mut report, error, .. }) = SOURCE.take() else { return Err(Error::Weights("no tensors".into())) };
    let built = built?;
    if let Some(error) = error {
        return Err(error);
    }
    report.unexpected = tensors.into_keys().collect();
    if strict {
        refuse_misfits(&report)?;
    }
    Ok((built, report))
}

/// The tensor for `name` below `p`, if there is a source that has it.
fn given(p: &Path, name: &str, dims: &[i64]) -> Option<Tensor> {
    SOURCE.with_borrow_mut(|source| {
        let source = source.as_mut()?;
        let full: String = p.components().chain([name]).collect::<Vec<_>>().join(".");
        let Some(tensor) = source.tensors.remove(&full) else {
            source.report.missing.push(full);
            return None;
        };
        if tensor.size() != dims {
            let why = format!("`{full}` has shape {:?}, the model's has {dims:?}", tensor.size());
            source.error.get_or_insert(Error::Weights(why));
            return None;
        }
        match tensor.f_to_kind(p.kind()).and_then(|t| t.f_contiguous()) {
            Ok(fitting) => {
                source.report.loaded += 1;
                if fitting.data_ptr() != tensor.data_ptr() {
                    page_out(&tensor);
                }
                Some(fitting)
            }
            Err(e) => {
                source.error.get_or_insert(e.into());
                None
            }
        }
    })
}

/// Of the `bytes` of a model that is about to be built, those that have to be allocated: all without a source; with one, those of
/// tensors in another dtype than f32, and where missing ones are drawn, theirs too.
pub(crate) fn bytes_to_allocate(bytes: u64) -> u64 {
    SOURCE.with_borrow(|source| {
        let Some(source) = source else { return bytes };
        let of = |shared: bool| -> u64 {
            let fitting = source.tensors.values().filter(|t| (t.kind() == Kind::Float) == shared);
            fitting.map(|t| 4 * t.numel() as u64).sum()
        };
        if source.strict { of(false) } else { bytes.saturating_sub(of(true)) }
    })
}

/// Whether the model that this thread is building will be refused, so that its parameters need no values. A configuration may ask for
/// sizes far beyond those of the weights.
fn is_refused() -> bool {
    SOURCE.with_borrow(|source| source.as_ref().is_some_and(Source::is_refused))
}

/// A parameter from the source, or as `init` draws it.
pub(crate) fn parameter(p: &Path, name: &str, dims: &[i64], init: Init) -> Tensor {
    match given(p, name, dims) {
        // An empty one first: memory for values that are thrown away would count twice.
        Some(tensor) => share(p.var(name, &[0], Init::Const(0.0)), &tensor),
        None if is_refused() => p.var(name, &[0], Init::Const(0.0)),
        None => match drawn(p, dims, init) {
            Some(tensor) => share(p.var(name, &[0], Init::Const(0.0)), &tensor),
            None => p.var(name, dims, init),
        },
    }
}

/// A tensor that is not learned, from the source or of one value.
pub(crate) fn buffer(p: &Path, name: &str, dims: &[i64], value: f64) -> Tensor {
    match given(p, name, dims) {
        Some(tensor) => share(p.zeros_no_train(name, &[0]), &tensor),
        None if is_refused() => p.zeros_no_train(name, &[0]),
        None if value == 0.0 => p.zeros_no_train(name, dims),
        None => p.ones_no_train(name, dims),
    }
}

fn share(mut variable: Tensor, data: &Tensor) -> Tensor {
    no_grad(|| variable.set_data(data));
    variable
}
