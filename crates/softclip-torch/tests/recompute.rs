//! What is computed again in backward is what was computed before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use softclip_torch::{Autocast, Error, Pass, Precision, recompute};
use tch::{Device, Kind, Tensor, no_grad};

/// Where tensors lie: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn leaf(shape: &[i64], speed: f64) -> Tensor {
    let wave = (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, device())) * speed).sin();
    wave.view(shape).detach().set_requires_grad(true)
}

/// Two inputs, and the two parameters of each of three layers.
struct Leaves {
    x: Tensor,
    mask: Tensor,
    w: Vec<[Tensor; 2]>,
}

impl Leaves {
    fn new() -> Self {
        let mask = leaf(&[6, 8], 0.9).detach().gt(0.0).to_kind(Kind::Float);
        let w = (0..3).map(|i| [0.37, 0.71].map(|speed| leaf(&[8, 8], speed + 0.1 * f64::from(i)))).collect();
        Leaves { x: leaf(&[6, 8], 0.13), mask, w }
    }
}

#[test]
fn an_autocast_inside_and_a_backward_on_another_thread() {
    let run = |again: bool| {
        let leaves = Leaves::new();
        let [parameter, _] = &leaves.w[0];
        let w = parameter.shallow_clone();
        let f = move |inputs: &[Tensor], _: Pass| {
            let _bf16 = Autocast::enter(device(), Precision::Bf16).unwrap();
            let h = inputs[0].matmul(&w);
            let _fp32 = Autocast::enter(device(), Precision::Fp32).unwrap();
            h.to_kind(Kind::Float).matmul(&w).sin()
        };
        let y = match again {
            true => recompute(&[&leaves.x], &[parameter], f).unwrap(),
            false => f(&[leaves.x.shallow_clone()], Pass::First),
        };
        let loss = y.sum(Kind::Float);
        // It starts with a state of its own: no autocast.
        std::thread::spawn(move || loss.f_backward()).join().unwrap().unwrap();
        [leaves.x.grad(), parameter.grad()]
    };
    for (again, plain) in run(true).iter().zip(run(false)) {
        // The weight is cast once in the plain call.
        assert!(again.allclose(&plain, 1e-5, 1e-5, false));
    }
}

#[test]
fn without_a_gradient_to_find_it_is_a_plain_call() {
    let leaves = Leaves::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let run = |inputs: &[&Tensor], parameters: &[&Tensor]| {
        let calls = Arc::clone(&calls);
        recompute(inputs, parameters, move |inputs, pass| {
            assert_eq!(pass, Pass::First);
            calls.fetch_add(1, Ordering::Relaxed);
            inputs[0].exp()
        })
        .unwrap()
    };
    let y = no_grad(|| run(&[&leaves.x], &[&leaves.w[0][0]]));
    assert!(!y.requires_grad() && !run(&[&leaves.mask], &[]).requires_grad());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(Arc::strong_count(&calls), 1);
}

#[test]
fn only_what_requires_a_gradient_gets_one_and_all_is_released() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (x, w, unused) = (leaf(&[2, 3], 0.2).detach(), leaf(&[3, 3], 0.3), leaf(&[2], 1.0));
    let (own, counted) = (w.shallow_clone(), Arc::clone(&calls));
    let y = recompute(&[&x], &[&w, &unused], move |inputs, pass| {
        counted.fetch_add(usize::from(pass == Pass::Again), Ordering::Relaxed);
        inputs[0].matmul(&own)
    });
    let y = y.unwrap();
    assert_eq!(Arc::strong_count(&calls), 2);
    let loss = y.sum(Kind::Float);
    loss.backward();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&calls), 1, "the closure outlives the graph");
    assert!(w.grad().defined() && !unused.grad().defined() && !x.grad().defined());
    let twice = loss.f_backward().unwrap_err().to_string();
    assert!(twice.contains("second time"), "{twice}");
    // A graph that is never used releases it too.
    let counted = Arc::clone(&calls);
    drop(recompute(&[&w], &[], move |inputs, _| inputs[0].exp() * counted.load(Ordering::Relaxed) as f64).unwrap());
    assert_eq!(Arc::strong_count(&calls), 1);
}

#[test]
fn a_panic_in_backward_is_its_error() {
    for (what, words) in [(0, "a panic: so it is"), (1, "(2x3 and 2x3)"), (2, "a panic: of another kind")] {
        let w = leaf(&[2, 3], 0.3);
        let y = recompute(&[&w], &[], move |inputs, pass| match (pass, what) {
            (Pass::First, _) => inputs[0].exp(),
            (Pass::Again, 0) => panic!("so it is"),
            (Pass::Again, 1) => inputs[0].matmul(&inputs[0]),
            (Pass::Again, _) => panic!("of {} kind", "another"),
        });
        let error = Error::from(y.unwrap().sum(Kind::Float).f_backward().unwrap_err());
        assert!(matches!(error, Error::Torch(_)) && error.to_string().contains(words), "{error}");
        assert!(!w.grad().defined());
        // The thread goes on with gradients as before.
        let y = recompute(&[&w], &[], |inputs, _| inputs[0].exp()).unwrap();
        y.sum(Kind::Float).backward();
        assert_eq!(w.grad(), w.exp().detach());
    }
}

#[test]
fn it_nests_and_takes_views_and_its_own_input() {
    let w = leaf(&[4, 4], 0.3);
    let own = w.shallow_clone();
    let y = recompute(&[&w], &[], move |inputs, _| {
        let inner = own.shallow_clone();
        let y = recompute(&[&inputs[0].tr()], &[&own], move |inputs, _| inputs[0].matmul(&inner)).unwrap();
        recompute(&[&y], &[], |inputs, _| inputs[0].shallow_clone()).unwrap()
    });
    // Its own parameter is not named in the outer one: the input's path alone has a gradient.
    y.unwrap().sum(Kind::Float).backward();
    let (x, constant) = (w.detach().set_requires_grad(true), w.detach());
    x.tr().matmul(&constant).sum(Kind::Float).backward();
    assert_eq!(w.grad(), x.grad());
}

#[test]
fn an_input_that_was_changed_meanwhile_is_refused() {
    let x = leaf(&[3], 0.3).exp();
    let y = recompute(&[&x], &[], |inputs, _| inputs[0].sin()).unwrap();
    no_grad(|| drop(x.shallow_clone().fill_(0.0)));
    let error = y.sum(Kind::Float).f_backward().unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}

#[test]
fn a_parameter_that_was_changed_meanwhile_is_refused() {
    let (x, w) = (leaf(&[2, 3], 0.3), leaf(&[3], 0.7));
    let run = || {
        let own = w.shallow_clone();
        recompute(&[&x], &[&w], move |inputs, _| inputs[0].exp() + &own).unwrap().sum(Kind::Float)
    };
    let before = run();
    no_grad(|| drop(w.shallow_clone().fill_(0.5)));
    let error = before.f_backward().unwrap_err().to_string();
    assert!(error.contains("a parameter of shape [3]") && error.contains("modified by an inplace operation"), "{error}");
    assert!(!w.grad().defined());
    run().backward();
    assert_eq!(w.grad(), Tensor::full([3], 2.0, (Kind::Float, device())));
}

#[test]
fn a_parameter_that_is_named_twice_gets_its_gradient_once() {
    let (x, w) = (leaf(&[3, 3], 0.3), leaf(&[3, 3], 0.7));
    let tied = |inputs: &[Tensor], w: &Tensor| inputs[0].matmul(w).tanh().matmul(&w.tr());
    let own = w.shallow_clone();
    let y = recompute(&[&x], &[&w, &w.shallow_clone()], move |inputs, _| tied(inputs, &own)).unwrap();
    y.sum(Kind::Float).backward();
    let again = w.grad().copy();
    let _ = w.grad().zero_();
    tied(&[x.shallow_clone()], &w).sum(Kind::Float).backward();
    assert_eq!(again, w.grad());
}

#[test]
fn a_result_of_whole_numbers_is_an_error() {
    let x = leaf(&[3], 0.3);
    assert!(recompute(&[&x], &[], |inputs, _| inputs[0].to_kind(Kind::Int64)).is_err());
}
