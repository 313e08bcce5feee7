//! What draws from libtorch's default generators, or saves and restores them.
//!
//! These generators belong to the process, and the test harness runs tests on several threads. So this file has one test only: no
//! other thread of its process draws meanwhile. Everything else draws from a `Generator`.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::disallowed_methods, reason = "the only test of this process")]

use std::sync::{Arc, Mutex};

use softclip_torch::{Autocast, Generator, Pass, Precision, RandomState, recompute, rng_state, set_rng_state};
use tch::{Device, Kind, Tensor};

/// Where tensors lie: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn draw() -> Tensor {
    Tensor::rand([16], (Kind::Float, device()))
}

fn leaf(shape: &[i64], speed: f64) -> Tensor {
    let wave = (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, device())) * speed).sin();
    wave.view(shape).detach().set_requires_grad(true)
}

#[test]
fn default_generators() {
    let _first = draw(); // a GPU's generator starts with its first use
    the_same_state_draws_the_same_numbers();
    manual_seed_draws_what_a_generator_draws();
    a_replay_draws_the_same_and_leaves_the_generators_where_they_were();
    where_nothing_is_drawn_the_generator_is_left_alone();
    gradients_are_those_of_the_plain_call_to_the_bit();
}

fn the_same_state_draws_the_same_numbers() {
    let state = rng_state(device()).unwrap();
    let drawn = draw();
    assert_ne!(drawn, draw());
    set_rng_state(device(), &state).unwrap();
    assert_eq!(drawn, draw());
}

/// Runs that were seeded by `manual_seed` start from the same weights with a `Generator`.
fn manual_seed_draws_what_a_generator_draws() {
    let options = |kind| (kind, Device::Cpu);
    for seed in [0, 5, i64::MAX, -3] {
        tch::manual_seed(seed);
        let expected = [
            Tensor::randn([7, 30], options(Kind::Float)),
            Tensor::zeros([31], options(Kind::Float)).f_uniform_(-0.5, 2.0).unwrap(),
            Tensor::randn([3], options(Kind::Double)),
        ];
        let generator = Generator::new(seed as u64);
        let found = [
            generator.normal([7, 30]).unwrap(),
            generator.uniform([31], -0.5, 2.0).unwrap(),
            generator.normal_of([3], Kind::Double).unwrap(),
        ];
        assert_eq!(expected, found, "seed {seed}");
    }
}

fn a_replay_draws_the_same_and_leaves_the_generators_where_they_were() {
    let state = RandomState::save(device()).unwrap();
    let first = draw();
    let second = draw();
    assert_eq!(state.replay(draw).unwrap(), first);
    assert!(std::panic::catch_unwind(|| state.replay(|| panic!("inside"))).is_err());
    let third = draw();
    state.restore().unwrap();
    assert_eq!([draw(), draw(), draw()], [first, second, third]);
}

fn where_nothing_is_drawn_the_generator_is_left_alone() {
    let drawn = Arc::new(Mutex::new(None));
    let inside = Arc::clone(&drawn);
    let y = recompute(&[&leaf(&[3], 0.3)], &[], move |inputs, pass| {
        if pass == Pass::Again {
            *inside.lock().unwrap() = Some(draw());
        }
        inputs[0].exp()
    });
    let before = draw();
    y.unwrap().sum(Kind::Float).backward();
    // Not the number that followed the first pass: the next.
    assert_ne!(drawn.lock().unwrap().take().unwrap(), before);
}

fn gradients_are_those_of_the_plain_call_to_the_bit() {
    for dropout in [0.0, 0.4] {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let (plain, y, after) = three_layers(false, dropout, precision);
            let (again, same, same_after) = three_layers(true, dropout, precision);
            assert_eq!(y, same, "{dropout} {precision:?}");
            assert_eq!(after, same_after, "the generator stands elsewhere");
            for (plain, again) in plain.iter().zip(&again) {
                assert!(plain.abs().max().double_value(&[]) > 0.0);
                assert_eq!(plain, again, "{dropout} {precision:?}");
            }
        }
    }
}

/// The gradients of three layers, their output, and what the generator draws next.
fn three_layers(again: bool, dropout: f64, precision: Precision) -> (Vec<Tensor>, Tensor, Tensor) {
    let mask = leaf(&[6, 8], 0.9).detach().gt(0.0).to_kind(Kind::Float);
    let weights: Vec<[Tensor; 2]> = (0..3).map(|i| [0.37, 0.71].map(|speed| leaf(&[8, 8], speed + 0.1 * f64::from(i)))).collect();
    let start = leaf(&[6, 8], 0.13);
    tch::manual_seed(11);
    let y = {
        let _autocast = Autocast::enter(device(), precision).unwrap();
        weights.iter().fold(start.shallow_clone(), |x, w| {
            let [v, u] = w.each_ref().map(Tensor::shallow_clone);
            let f = move |inputs: &[Tensor], _: Pass| {
                inputs[0].matmul(&v).gelu("none").dropout(dropout, true).matmul(&u).tanh() * &inputs[1]
            };
            match again {
                true => recompute(&[&x, &mask], &w.each_ref(), f).unwrap(),
                false => f(&[x, mask.shallow_clone()], Pass::First),
            }
        })
    };
    // Autocast is another one in backward, and the generator has moved on.
    let noise = draw();
    let _autocast = Autocast::enter(device(), Precision::Fp32).unwrap();
    (y.to_kind(Kind::Float) * leaf(&[6, 8], 1.1).detach()).sum(Kind::Float).backward();
    let gradients = [&start].into_iter().chain(weights.iter().flatten()).map(|t| t.grad().copy()).collect();
    (gradients, y.detach(), Tensor::cat(&[noise, draw()], 0))
}
