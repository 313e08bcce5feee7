//! Where a model's parameters come from: drawn at random, or taken from tensors as they are.

use std::cell::RefCell;
use std::collections::BTreeMap;

use softclip_torch::page_out;
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

impl Source {
    /// Whether the model that is being built will be refused.
    fn is_refused(&self) -> bool {
        self.error.is_some() || (self.strict && !self.report.missing.is_empty())
    }
}

thread_local! {
    /// What the model that this thread is building takes its parameters from.
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
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
        None => p.var(name, dims, init),
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
