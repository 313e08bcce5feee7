//! Gradients averaged over ranks while backward still runs.

use std::ptr::NonNull;
use std::rc::Rc;

use softclip_sys as sys;
use tch::Tensor;

use super::group::ProcessGroup;
use super::shared::Shared;
use super::tensors::check_tensor;
use crate::error::{Error, Peers, Reported, Result, check, report};
use crate::raw::pointers;

/// How many bytes of gradients travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSizes {
    /// The first bucket, which is full soon so that sending starts early.
    pub first: usize,
    /// Each other.
    pub others: usize,
}

impl Default for BucketSizes {
    /// PyTorch's: 1 MiB and 25 MiB.
    fn default() -> Self {
        BucketSizes { first: 1 << 20, others: 25 << 20 }
    }
}

/// PyTorch's engine behind `DistributedDataParallel`: it hooks into the gradients of parameters, and averages them over the ranks bucket
/// by bucket during backward.
///
/// ```no_run
/// # use softclip_torch::{BucketSizes, Ddp, ProcessGroup, Result};
/// # use tch::Tensor;
/// # fn step(group: &ProcessGroup, named: &[(String, Tensor)], loss: impl Fn() -> Tensor) -> Result<()> {
/// let mut ddp = Ddp::new(group, named, BucketSizes::default())?; // once
/// ddp.prepare_for_forward()?; // each step
/// let loss = loss();
/// ddp.backward(|| loss.f_backward())?;
/// # Ok(())
/// # }
/// ```
///
/// A backward outside of [`backward`](Ddp::backward) only accumulates. Gradients are views of the buckets: clear them with `zero_`,
/// and let nothing keep them.
pub struct Ddp {
    raw: NonNull<sys::SoftclipReducer>,
    names: Vec<String>,
    shared: Rc<Shared>,
}

impl Ddp {
    /// Attaches to `parameters`, each once, in the same order on all ranks. Their values are not touched: broadcast them before.
    ///
    /// # Errors
    /// A parameter is no leaf that requires a gradient, or lies elsewhere, or shares memory with another; the ranks' parameters
    /// differ in number or shape.
    pub fn new(group: &ProcessGroup, parameters: &[(String, Tensor)], sizes: BucketSizes) -> Result<Self> {
        const NAME: &str = "making the reducer";
        check_parameters(group, parameters)?;
        let (names, tensors): (Vec<_>, Vec<_>) = parameters.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).unzip();
        group.agree_on(NAME, &tensors)?;
        let (handles, n) = (pointers(&tensors), tensors.len() as i64);
        let raw = group.shared.run(NAME, |e| {
            // SAFETY: handles and the error record outlive the call; the reducer holds the tensors and the group itself.
            unsafe {
                let group = group.shared.raw.as_ptr();
                sys::softclip_reducer(group, n, handles.as_ptr(), sizes.first.max(1) as i64, sizes.others.max(1) as i64, e)
            }
        })?;
        let raw = NonNull::new(raw).ok_or_else(|| group.shared.failed_as(NAME, Peers::Unknown, "libtorch made none".into()))?;
        Ok(Ddp { raw, names, shared: Rc::clone(&group.shared) })
    }

    /// Before the forward pass of a step. After the first step it orders the buckets anew, which is an operation among the ranks.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn prepare_for_forward(&mut self) -> Result<()> {
        const NAME: &str = "preparing the forward pass";
        self.shared.usable(NAME)?;
        // SAFETY: reducer and error record outlive the call.
        report(|e| unsafe { sys::softclip_reducer_forward(self.raw.as_ptr(), e) }).map_err(|r| self.explain(NAME, &r))
    }

    /// Runs `backward` and averages what it yields: after it the gradients of all ranks are equal. It must reach every parameter.
    /// Where a step has several backward passes, only the last goes through here.
    ///
    /// # Errors
    /// [`Error::Group`], also where a parameter got no gradient: the message names it.
    pub fn backward<T, E: Into<Error>>(&mut self, backward: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
        const NAME: &str = "backward";
        self.prepare_for_backward()?;
        let value = backward().map_err(|e| match e.into() {
            // It was thrown by a hook in the midst of backward, or by backward itself: other ranks wait in any case.
            Error::Torch(text) => self.explain(NAME, &Reported { kind: sys::KIND_GENERIC, text }),
            other => {
                self.shared.failed_as(NAME, Peers::Unknown, String::new());
                other
            }
        })?;
        // SAFETY: reducer and error record outlive the call.
        report(|e| unsafe { sys::softclip_reducer_finished(self.raw.as_ptr(), e) }).map_err(|r| self.explain(NAME, &r))?;
        Ok(value)
    }

    fn prepare_for_backward(&mut self) -> Result<()> {
        const NAME: &str = "preparing the backward pass";
        self.shared.usable(NAME)?;
        // SAFETY: reducer and error record outlive the call.
        report(|e| unsafe { sys::softclip_reducer_backward(self.raw.as_ptr(), e) }).map_err(|r| self.explain(NAME, &r))
    }

    /// The error, with the names of parameters where libtorch has numbers.
    fn explain(&self, operation: &'static str, reported: &Reported) -> Error {
        let unused = unused(&reported.text, self.shared.rank);
        if unused.is_empty() {
            return self.shared.failed(operation, reported);
        }
        let names: Vec<_> = unused.iter().map(|&i| self.names.get(i).map_or("?", String::as_str)).collect();
        let why =
            format!("no gradient reached {}: leave them out of the reducer, or let the loss depend on them", names.join(", "));
        self.shared.failed_as(operation, Peers::Unknown, why)
    }
}

impl Drop for Ddp {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once; it removes its hooks. There is nobody to tell of an error to.
        let _ = check(|e| unsafe { sys::softclip_reducer_free(self.raw.as_ptr(), e) });
    }
}

fn check_parameters(group: &ProcessGroup, parameters: &[(String, Tensor)]) -> Result<()> {
    if parameters.is_empty() {
        return Err(Error::Invalid("a reducer needs at least one parameter".into()));
    }
    let mut places = std::collections::HashMap::new();
    for (name, tensor) in parameters {
        // Their layout is the reducer's affair; of the rest the rules of all operations hold.
        let dense = if tensor.defined() && !tensor.is_sparse() { tensor.f_contiguous()? } else { tensor.shallow_clone() };
        check_tensor(&format!("parameter {name}"), &dense, group.device())?;
        if !tensor.requires_grad() || !tensor.is_leaf() {
            return Err(Error::Invalid(format!("parameter {name} is no leaf that requires a gradient")));
        }
        if let Some(other) = places.insert(tensor.data_ptr(), name).filter(|_| tensor.numel() > 0) {
            return Err(Error::Invalid(format!("parameters {other} and {name} are the same memory: name it once")));
        }
    }
    Ok(())
}

/// The numbers of the parameters that got no gradient on this rank, as the reducer's message lists them.
fn unused(text: &str, rank: usize) -> Vec<usize> {
    let mark = format!("did not receive grad for rank {rank}:");
    let Some((_, rest)) = text.split_once(&mark) else { return Vec::new() };
    rest.split(['\n', '.']).next().unwrap_or("").split_whitespace().map_while(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::unused;

    #[test]
    fn unused_parameters_are_found_in_the_message() {
        let text = "Expected to have finished …\nParameter indices which did not receive grad for rank 1: 3 14\n In addition, you can set";
        assert_eq!(unused(text, 1), [3, 14]);
        assert!(unused(text, 0).is_empty() && unused("else", 0).is_empty());
    }
}
