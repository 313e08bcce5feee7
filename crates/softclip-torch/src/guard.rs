//! Panics of `tch`'s operators as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    /// How many guards this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f`, and makes an error of the panic that an operator of `tch` (`&a * &b`, `a.matmul(&b)`) raises where libtorch fails.
/// Any other panic goes on. Guards nest.
///
/// The gradient mode is as before after a panic, which `tch::no_grad` alone does not see to. What `f` borrowed may be half
/// done: some of a list's tensors written, others not. Use it where an error means that they are dropped or overwritten.
///
/// # Errors
/// libtorch's reason on one line: [`Error::OutOfMemory`], else [`Error::Torch`].
pub fn guard<T>(f: impl FnOnce() -> T) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(silence);
    let grad_mode = grad_mode();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    DEPTH.set(DEPTH.get() - 1);
    outcome.or_else(|payload| {
        set_grad_mode(grad_mode);
        match reason(&*payload) {
            Some(reason) => Err(Error::from_libtorch(&unescape(reason))),
            None => resume_unwind(payload),
        }
    })
}

/// Keeps the process's panic hook from telling of panics that a guard on the same thread makes errors of.
fn silence() {
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if DEPTH.get() == 0 || reason(info.payload()).is_none() {
            before(info);
        }
    }));
}

/// What libtorch said, still as `{:?}` writes it, if the panic is that of an operator of `tch`.
fn reason(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>()?;
    text.strip_prefix("called `Result::unwrap()` on an `Err` value: Torch(\"")?.strip_suffix("\")")
}

/// Text as it was before `{:?}`.
fn unescape(debug: &str) -> String {
    let mut out = String::with_capacity(debug.len());
    let mut chars = debug.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.extend(match chars.next() {
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('0') => Some('\0'),
            Some('u') => {
                let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
            }
            other => other,
        });
    }
    out
}

/// Whether this thread records what gradients need.
pub(crate) fn grad_mode() -> bool {
    let mode = set_grad_mode(true);
    set_grad_mode(mode);
    mode
}

/// Sets this thread's gradient mode; what it was before.
fn set_grad_mode(on: bool) -> bool {
    // SAFETY: sets a thread-local flag; no preconditions.
    unsafe { torch_sys::at_grad_set_enabled(i32::from(on)) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    fn ones(rows: i64, columns: i64) -> Tensor {
        Tensor::ones([rows, columns], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_panic_of_an_operator_becomes_an_error_of_one_line() {
        let error = guard(|| ones(2, 3).matmul(&ones(4, 5))).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Torch(_)), "{text}");
        assert!(text.contains("(2x3 and 4x5)") && text.lines().count() == 1, "{text}");
        assert_eq!(guard(|| 3).unwrap(), 3);
    }

    #[test]
    fn guards_nest() {
        let outer = guard(|| {
            assert!(guard(|| ones(2, 3).matmul(&ones(4, 5))).is_err());
            ones(1, 2) + ones(1, 3)
        });
        assert!(outer.unwrap_err().to_string().contains("size of tensor"));
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn the_gradient_mode_returns() {
        let requires_grad = || (ones(1, 1).set_requires_grad(true) * 2.0).requires_grad();
        assert!(guard(|| tch::no_grad(|| ones(2, 3).matmul(&ones(4, 5)))).is_err());
        assert!(requires_grad());
        tch::no_grad(|| {
            assert!(guard(|| tch::with_grad(|| ones(2, 3).matmul(&ones(4, 5)))).is_err());
            assert!(!requires_grad());
        });
    }

    #[test]
    fn other_panics_go_on() {
        for expected in ["a bug of ours", "called `Result::unwrap()` on an `Err` value: Convert(\"x\")"] {
            let payload = catch_unwind(|| guard(|| panic!("{expected}"))).unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().unwrap(), expected);
        }
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn lack_of_memory_is_told_apart() {
        let error = guard(|| Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
        let error = Error::from(Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err());
        assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
    }

    #[test]
    fn text_survives_its_debug_form() {
        for text in ["plain", "a \"quoted\" name\n\tand\\or\r\0", "τ \u{7f} \u{1f600}"] {
            let debug = format!("{text:?}");
            assert_eq!(unescape(&debug[1..debug.len() - 1]), text);
        }
    }
}
