//! What a guard lets the panic hook tell. Alone in its process, to which the hook belongs.
#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use softclip_torch::guard;
use tch::{Device, Kind, Tensor};

static TOLD: AtomicUsize = AtomicUsize::new(0);

fn mismatch() -> Tensor {
    let ones = |rows: i64, columns: i64| Tensor::ones([rows, columns], (Kind::Float, Device::Cpu));
    ones(2, 3).matmul(&ones(4, 5))
}

#[test]
fn only_panics_that_become_errors_are_silent() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        TOLD.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    let told = || TOLD.load(Ordering::SeqCst);
    assert!(guard(|| guard(mismatch)).unwrap().is_err());
    assert!(guard(mismatch).is_err());
    assert_eq!(told(), 0);
    assert!(catch_unwind(|| guard(|| panic!("a bug of ours"))).is_err());
    assert_eq!(told(), 1);
    assert!(catch_unwind(mismatch).is_err());
    assert_eq!(told(), 2);
    // No guard would make an error of another thread's panic.
    guard(|| assert!(std::thread::spawn(mismatch).join().is_err())).unwrap();
    assert_eq!(told(), 3);
}
