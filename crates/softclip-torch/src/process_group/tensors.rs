//! What tensors may cross between ranks.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Number types that Gloo and NCCL both carry.
pub(super) const KINDS: [Kind; 8] =
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Int8, Kind::Uint8];

/// # Errors
/// `tensor` cannot take part in `operation`: the message says why and what would.
pub(super) fn check_tensor(operation: &str, tensor: &Tensor, device: Device) -> Result<()> {
    let refuse = |why: String| Err(Error::Invalid(format!("{operation}: {why}")));
    if !tensor.defined() {
        return refuse("the tensor is undefined (a gradient that was never computed?)".into());
    }
    if tensor.is_sparse() || tensor.is_mkldnn() {
        return refuse("the tensor is sparse or in oneDNN's own layout: make it dense".into());
    }
    if !KINDS.contains(&tensor.kind()) {
        return refuse(format!("tensors of {:?} cannot be sent: take one of {KINDS:?}", tensor.kind()));
    }
    if tensor.device() != device {
        return refuse(format!("the tensor lies on {:?}, the group's device is {device:?}", tensor.device()));
    }
    if !tensor.is_contiguous() {
        return refuse(format!("the tensor of shape {:?} has strides {:?}: make it contiguous", tensor.size(), tensor.stride()));
    }
    Ok(())
}
