//! Memory for time: activations that are computed again in backward instead of being kept.

use std::any::Any;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use softclip_sys as sys;
use tch::{Device, Tensor, no_grad};
use torch_sys::C_tensor;

use crate::autocast::AutocastState;
use crate::error::{Error, Result, check};
use crate::guard::{grad_mode, guard};
use crate::raw::{owned, pointers};
use crate::rng::RandomState;

/// Which computation of a function this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The one whose result is used.
    First,
    /// Its repetition in backward, for the gradients: what is counted or averaged on the way was so already.
    Again,
}

/// `f(inputs)`, of which only `inputs` and the result are kept for backward: what is between is freed now, and computed again when the
/// gradient is asked for. The cost is a second forward pass of `f`.
///
/// `parameters` are what `f` learns, beside its inputs; what is not named gets no gradient. Gradients flow through the graph as
/// without this, so that hooks on parameters (those of [`Ddp`](crate::Ddp)) see each once a backward pass. The repetition meets the
/// numbers of libtorch's generators and the autocast of the first pass. Backward may run it on another thread: `f` owns
/// what it uses (a [`Tensor::shallow_clone`] is a handle on the same memory). Without a gradient to find (under
/// [`tch::no_grad`], or where nothing requires one) this is a plain call. There are no second derivatives.
///
/// A panic of `f` in the first pass is the caller's; in backward it is backward's error.
///
/// ```
/// use softclip_torch::recompute;
/// use tch::{Device, Kind, Tensor};
///
/// # fn main() -> softclip_torch::Result<()> {
/// let x = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
/// let w = Tensor::randn([8, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let own = w.shallow_clone();
/// let y = recompute(&[&x], &[&w], move |inputs, _| inputs[0].matmul(&own).tanh())?;
/// y.sum(Kind::Float).backward();
/// assert_eq!(w.grad().size(), [8, 8]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A device of the inputs has no random generator or autocast; the result is not of floating point.
pub fn recompute<F>(inputs: &[&Tensor], parameters: &[&Tensor], f: F) -> Result<Tensor>
where
    F: Fn(&[Tensor], Pass) -> Tensor + Send + 'static,
{
    let handles = |tensors: &[&Tensor]| -> Vec<Tensor> { tensors.iter().map(|t| t.shallow_clone()).collect() };
    let (inputs, parameters) = (handles(inputs), handles(parameters));
    if !grad_mode() || !inputs.iter().chain(&parameters).any(Tensor::requires_grad) {
        return Ok(f(&inputs, Pass::First));
    }
    let device = inputs.iter().chain(&parameters).map(Tensor::device).find(|&d| d != Device::Cpu).unwrap_or(Device::Cpu);
    let devices = if device == Device::Cpu { vec![device] } else { vec![Device::Cpu, device] };
    let autocast = devices.into_iter().map(AutocastState::now).collect::<Result<_>>()?;
    let random = RandomState::save(device)?;
    let output = no_grad(|| f(&inputs, Pass::First));
    // All threads share the generators: where nothing was drawn they are left alone.
    let random = Some(random).filter(|before| RandomState::save(device).is_ok_and(|after| after != *before));
    let count = inputs.len();
    let closure = Box::into_raw(Box::new(Again { f, count, autocast, random }));
    let (from, learned) = (pointers(&inputs), pointers(&parameters));
    // SAFETY: handles and the error record outlive the call. The closure is handed over: the shim releases it exactly once, uses it on one
    // thread at a time, and `F` is `Send`, as are the states beside it.
    let made = check(|e| unsafe {
        sys::softclip_recompute(
            output.as_ptr(),
            count as i64,
            from.as_ptr(),
            learned.len() as i64,
            learned.as_ptr(),
            closure.cast(),
            call::<F>,
            release::<F>,
            e,
        )
    })?;
    if made.is_null() {
        return Err(Error::Torch("no tensor was returned".into()));
    }
    // SAFETY: a new handle that only we own.
    Ok(unsafe { owned(made) })
}

/// What the graph keeps of a call beside its inputs.
struct Again<F> {
    f: F,
    count: usize,
    autocast: Vec<AutocastState>,
    /// Where the generators stood, if it drew from them.
    random: Option<RandomState>,
}

impl<F: Fn(&[Tensor], Pass) -> Tensor> Again<F> {
    fn run(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let _autocast = self.autocast.iter().map(AutocastState::enter).collect::<Result<Vec<_>>>()?;
        let f = || guard(|| (self.f)(inputs, Pass::Again));
        self.random.as_ref().map_or_else(|| Ok(f()), |random| random.replay(f))?
    }
}

/// Runs the closure for the shim.
///
/// # Safety
/// `closure` is what [`recompute`] made for this `F`, `inputs` points to as many live tensors as it was given, `e` to an error record.
unsafe extern "C" fn call<F>(closure: *mut c_void, inputs: *const *const C_tensor, e: *mut sys::SoftclipError) -> *mut C_tensor
where
    F: Fn(&[Tensor], Pass) -> Tensor,
{
    let run = || -> Result<*mut C_tensor> {
        // SAFETY: by this function's contract; the shim keeps the closure while this runs.
        let again = unsafe { &*closure.cast::<Again<F>>() };
        // SAFETY: by this function's contract; the clones are handles of their own.
        let inputs: Vec<Tensor> =
            (0..again.count).map(|i| unsafe { Tensor::clone_from_ptr((*inputs.add(i)).cast_mut()) }).collect();
        let output = again.run(&inputs)?;
        let handle = output.as_ptr().cast_mut();
        // The shim owns the handle from here on.
        std::mem::forget(output);
        Ok(handle)
    };
    let why = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(handle)) => return handle,
        Ok(Err(Error::Torch(why) | Error::OutOfMemory(why))) => why,
        Ok(Err(error)) => error.to_string(),
        Err(payload) => format!("a panic: {}", words(&*payload)),
    };
    let text = CString::new(why.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the record is the caller's; the message is from `malloc`, as it wants it.
    unsafe {
        (*e).kind = sys::KIND_GENERIC;
        (*e).message = libc::strdup(text.as_ptr());
    }
    std::ptr::null_mut()
}

/// Drops the closure for the shim.
///
/// # Safety
/// `closure` is what [`recompute`] made for this `F`, and nobody uses it any more.
unsafe extern "C" fn release<F>(closure: *mut c_void) {
    // SAFETY: by this function's contract.
    let closure = unsafe { Box::from_raw(closure.cast::<Again<F>>()) };
    // A panic must not go on into C++; whoever raised it has told of it.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closure)));
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("of no text")
}
