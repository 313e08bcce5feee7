//! A group of one GPU, where there is one and NCCL was built in; elsewhere what is said instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Duration;

use softclip_torch::{Backend, BucketSizes, Ddp, ProcessGroup, Reduce, Result, Store, cuda_available, cuda_loaded, init};
use tch::{Device, Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(60);

fn join() -> Result<ProcessGroup> {
    let store = Store::host("127.0.0.1", 0, TIMEOUT)?;
    ProcessGroup::new(&store, 0, 1, &Backend::Nccl(0), TIMEOUT)
}

#[test]
fn one_gpu_is_a_group_or_it_is_said_why_not() {
    init().unwrap();
    match join() {
        Ok(group) => {
            operations(&group);
            group.leave().unwrap();
        }
        Err(error) => {
            let text = error.to_string();
            println!("no group of GPUs here: {text}");
            let expected = match (softclip_sys::NCCL, cuda_loaded()) {
                (None, _) => "scripts/setup --nccl",
                (_, false) => "scripts/setup --cuda",
                _ if !cuda_available() => "no GPUs found",
                _ => "a group: there are NCCL, CUDA and a GPU",
            };
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
    // CPUs are none the worse for it.
    let store = Store::host("127.0.0.1", 0, TIMEOUT).unwrap();
    let group = ProcessGroup::new(&store, 0, 1, &Backend::loopback(), TIMEOUT).unwrap();
    let one = Tensor::from_slice(&[1f32]);
    group.all_reduce(&one, Reduce::Sum).unwrap();
    assert_eq!(one.double_value(&[0]), 1.0);
}

fn operations(group: &ProcessGroup) {
    let gpu = group.device();
    assert_eq!(gpu, Device::Cuda(0));
    let numbers = |kind| Tensor::from_slice(&[1i64, 2, 3, 4]).to_kind(kind).to_device(gpu);
    for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Int8, Kind::Uint8] {
        for reduce in [Reduce::Sum, Reduce::Product, Reduce::Min, Reduce::Max] {
            let t = numbers(kind);
            group.all_reduce(&t, reduce).unwrap();
            assert_eq!(t, numbers(kind), "{kind:?} {reduce:?}");
        }
        let t = numbers(kind);
        group.broadcast(&t, 0).unwrap();
        assert_eq!(t, numbers(kind));
        assert_eq!(group.all_gather(&t).unwrap(), t);
        assert_eq!(group.reduce_scatter(&t).unwrap(), t);
        if t.is_floating_point() {
            group.all_reduce(&t, Reduce::Mean).unwrap();
            assert_eq!(t, numbers(kind));
        }
    }
    group.barrier().unwrap();
    group.agree_on("a test", &[numbers(Kind::Float)]).unwrap();
    assert!(group.all_reduce(&Tensor::from_slice(&[1f32]), Reduce::Sum).unwrap_err().to_string().contains("the group's device"));

    let weight = numbers(Kind::Float).set_requires_grad(true);
    let named = [("weight".to_owned(), weight.shallow_clone())];
    let mut ddp = Ddp::new(group, &named, BucketSizes::default()).unwrap();
    for _ in 0..3 {
        let mut grad = weight.grad();
        if grad.defined() {
            let _ = grad.zero_();
        }
        ddp.prepare_for_forward().unwrap();
        let loss = (&weight * &weight).sum(Kind::Float);
        ddp.backward(|| loss.f_backward()).unwrap();
        assert_eq!(weight.grad(), &weight.detach() * 2.0);
    }
}
