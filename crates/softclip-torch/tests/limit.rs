//! A limit of memory. Alone in its process, which it limits.
#![allow(clippy::unwrap_used)]

use softclip_torch::{Error, guard, limit_memory, memory};
use tch::{Device, Kind, Tensor};

#[test]
fn beyond_the_limit_allocations_are_errors() {
    let ones = |mib: i64| guard(|| Tensor::ones([mib << 18], (Kind::Float, Device::Cpu)));
    assert!(ones(600).is_ok());
    // Threads' stacks count, though nobody has touched them.
    limit_memory(memory(Device::Cpu).host_rss + (500 << 20)).unwrap();
    let error = ones(600).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
    assert!(ones(1).is_ok());
}
