//! Ranks that share a batch learn what one process learns from the whole of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../softclip-distributed/tests/ranks/mod.rs"]
mod ranks;
mod towers;

use std::collections::BTreeMap;

use softclip_distributed::World;
use softclip_encoders::ClipConfig;
use softclip_loss::LossConfig;
use softclip_tensor::Precision;
use softclip_torch::AdamWOptions;
use softclip_train::config::TowerTraining;
use softclip_train::{Model, StepOptions, StepReport, Trainer};
use tch::{Device, Kind, Tensor};
use towers::{N, config, inputs, rows};

const LOSSES: [&str; 9] = [
    "name: clip",
    "name: label_smoothing",
    "name: siglip",
    "name: softclip",
    "{name: softclip, target_grad: detach, target_temperature: own}",
    "{name: softclip, forms: [RA, AR], gamma: 0.7, divergence: js, embed: 1}",
    "name: text_based",
    "{name: text_based, blend: targets, tau: 0.1, symmetrize: true}",
    "{name: text_based, blend: targets_normalized}",
];

fn options() -> StepOptions {
    // Adam divides by the gradients' size: with a tiny ε, noise of the size of f32's rounding decides on steps where there is no gradient.
    let adam = AdamWOptions { eps: 1e-4, ..AdamWOptions::default() };
    StepOptions { grad_clip: 1.0, adam, ..StepOptions::default() }
}

fn trainer(config: &ClipConfig, loss: &str, options: StepOptions, world: &World) -> Trainer {
    let loss: LossConfig = serde_yaml::from_str(loss).unwrap();
    // Each rank by itself draws other weights: they follow the first.
    let model = Model::new(config, loss.needs(), 0.07, 5 + world.rank() as u64, Device::Cpu).unwrap();
    let mut trainer = Trainer::among(model, loss, options, world.clone()).unwrap();
    trainer.follow().unwrap();
    trainer
}

fn tensors(trainer: &Trainer, of: impl Fn(&Tensor) -> Tensor) -> BTreeMap<String, Tensor> {
    let copy = |t: &Tensor| of(t).detach().copy();
    trainer.model().parameters().into_iter().map(|(name, t)| (name, copy(&t))).collect()
}

/// The report of the first step, its gradients, and the weights after `steps`.
fn learned(trainer: &mut Trainer, steps: usize) -> (StepReport, BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let batch = rows(&inputs(false), trainer.world().part(N as usize));
    trainer.freeze(0);
    let report = trainer.step(&batch, 1e-3).unwrap();
    let grads = tensors(trainer, |t| if t.grad().defined() { t.grad() } else { t.zeros_like() });
    for step in 1..steps {
        trainer.freeze(step as u64);
        trainer.step(&batch, 1e-3).unwrap();
    }
    (report, grads, tensors(trainer, Tensor::shallow_clone))
}

/// The largest difference, relative to the largest number of all.
fn differ(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let largest = |t: Tensor| t.abs().max().double_value(&[]);
    let scale = expected.values().map(|t| largest(t.shallow_clone())).fold(0.0, f64::max);
    assert!(scale > 0.0 && scale.is_finite());
    // A NaN must not be lost in a maximum.
    found.iter().map(|(name, t)| largest(t - &expected[name])).fold(0.0, |a, b| if b.is_nan() { b } else { a.max(b) }) / scale
}

fn assert_as_alone(world: &World, config: &ClipConfig, loss: &str, options: &StepOptions, rank_options: &StepOptions) {
    let what = format!("{loss}, rank {} of {}, chunks {:?}", world.rank(), world.size(), rank_options.chunk_size);
    let (alone, grads, weights) = learned(&mut trainer(config, loss, options.clone(), &World::alone()), 20);
    let (report, rank_grads, rank_weights) = learned(&mut trainer(config, loss, rank_options.clone(), world), 20);
    let off = (report.loss - alone.loss).abs() / alone.loss.abs();
    assert!(off < 1e-5, "{what}: loss {} and {}", report.loss, alone.loss);
    assert!((report.grad_norm - alone.grad_norm).abs() < 1e-5 * alone.grad_norm, "{what}: {report:?} {alone:?}");
    let off = differ(&rank_grads, &grads);
    assert!(off < 1e-5, "{what}: gradients differ by {off:e}");
    let off = differ(&rank_weights, &weights);
    assert!(off < 1e-4, "{what}: weights after 20 steps differ by {off:e}");
    // Ranks among each other: to the bit.
    let (name, mine) = rank_weights.iter().next().unwrap();
    let first = mine.copy();
    world.broadcast(std::slice::from_ref(&first)).unwrap();
    assert_eq!(&first, mine, "{what}: {name}");
}

#[test]
fn ranks_learn_what_one_process_learns() {
    for n in [2, 4] {
        ranks::all_succeed("ranks_learn_what_one_process_learns", n, |world| {
            for loss in LOSSES.map(|loss| loss.replace(", embed: 1", "")) {
                assert_as_alone(world, &config(), &loss, &options(), &options());
            }
        });
    }
}

/// Ten pairs on three ranks, in chunks that do not divide the parts, with a tower that is frozen for some steps.
#[test]
fn uneven_parts_and_chunks_are_the_batch_too() {
    ranks::all_succeed("uneven_parts_and_chunks_are_the_batch_too", 3, |world| {
        let chunks = StepOptions { chunk_size: Some(2), ..options() };
        for loss in ["name: softclip", "name: clip", "{name: softclip, target_grad: detach}"] {
            assert_as_alone(world, &config(), loss, &options(), &chunks);
        }
        let frozen = TowerTraining { freeze_after: Some(3), ..TowerTraining::default() };
        let frozen = StepOptions { image_tower: frozen, ..options() };
        assert_as_alone(world, &config(), "name: clip", &frozen, &frozen);
    });
}

/// SoftCLIP's text tower and the rear of its image tower run twice a backward pass: the reducer must meet each parameter once.
#[test]
fn recomputed_blocks_are_the_batch_too() {
    ranks::all_succeed("recomputed_blocks_are_the_batch_too", 2, |world| {
        for chunk_size in [None, Some(2)] {
            let recompute = StepOptions { recompute: true, chunk_size, ..options() };
            assert_as_alone(world, &config(), "name: softclip", &options(), &recompute);
        }
    });
}

/// Sets whether a parameter learns, behind the trainer's back.
fn learns(trainer: &Trainer, learns: bool) {
    let parameters = trainer.model().tensors().into_iter();
    let mut named = parameters.filter(|(name, _)| name == "visual.conv1.weight");
    let _ = named.next().unwrap().1.set_requires_grad(learns);
}

#[test]
fn a_parameter_may_begin_to_learn_later() {
    ranks::all_succeed("a_parameter_may_begin_to_learn_later", 2, |world| {
        let (batch, whole) = (rows(&inputs(false), world.part(N as usize)), inputs(false));
        let mut alone = trainer(&config(), "name: clip", options(), &World::alone());
        let mut shared = trainer(&config(), "name: clip", options(), world);
        for step in 0..6 {
            [&alone, &shared].iter().for_each(|trainer| learns(trainer, step >= 3));
            let (expected, found) = (alone.step(&whole, 1e-3).unwrap(), shared.step(&batch, 1e-3).unwrap());
            assert!((found.loss - expected.loss).abs() < 1e-5 * expected.loss, "step {step}: {found:?} {expected:?}");
            assert!((found.grad_norm - expected.grad_norm).abs() < 1e-4 * expected.grad_norm, "step {step}");
        }
    });
}

#[test]
fn a_parameter_that_stops_to_learn_unannounced_is_named() {
    ranks::all_succeed("a_parameter_that_stops_to_learn_unannounced_is_named", 2, |world| {
        let batch = rows(&inputs(false), world.part(N as usize));
        let mut trainer = trainer(&config(), "name: clip", options(), world);
        (0..2).for_each(|_| drop(trainer.step(&batch, 1e-3).unwrap()));
        learns(&trainer, false);
        // The reducer sees it at the end of this step or at the beginning of the next.
        let error = (0..2).find_map(|_| trainer.step(&batch, 1e-3).err()).unwrap().to_string();
        assert!(error.contains("visual.conv1.weight"), "{error}");
    });
}

#[test]
fn ranks_take_the_optimizers_state_from_the_first() {
    ranks::all_succeed("ranks_take_the_optimizers_state_from_the_first", 2, |world| {
        let options = StepOptions { precision: Precision::Fp16, ..options() };
        let mut shared = trainer(&config(), "name: softclip", options.clone(), world);
        if world.rank() == 0 {
            let mut alone = trainer(&config(), "name: softclip", options, &World::alone());
            (0..3).for_each(|_| drop(alone.step(&inputs(false), 1e-3).unwrap()));
            shared.load_optimizer(&alone.optimizer_tensors().into_iter().collect()).unwrap();
        }
        shared.follow().unwrap();
        let mut moved = 0.0;
        for (name, mine) in shared.optimizer_tensors() {
            let first = mine.detach_copy();
            world.broadcast(std::slice::from_ref(&first)).unwrap();
            assert_eq!(first, mine, "{name}");
            moved += mine.abs().sum(Kind::Double).double_value(&[]);
        }
        assert!(moved > 0.0);
    });
}

#[test]
fn reduced_precision_and_loss_scaling_work_among_ranks() {
    ranks::all_succeed("reduced_precision_and_loss_scaling_work_among_ranks", 2, |world| {
        for precision in [Precision::Bf16, Precision::Fp16] {
            let options = StepOptions { precision, ..options() };
            let mut trainer = trainer(&config(), "name: softclip", options, world);
            let batch = rows(&inputs(false), world.part(N as usize));
            let losses: Vec<f64> = (0..20).map(|_| trainer.step(&batch, 2e-3).unwrap().loss).collect();
            assert!(losses[19] < losses[0], "{precision:?}: {losses:?}");
            let total = world.total(&losses).unwrap();
            assert!(total.iter().zip(&losses).all(|(all, mine)| *all == mine * 2.0), "the ranks tell one loss");
        }
    });
}

#[test]
fn a_part_of_another_size_is_an_error_on_all_ranks() {
    ranks::all_succeed("a_part_of_another_size_is_an_error_on_all_ranks", 2, |world| {
        let mut trainer = trainer(&config(), "name: clip", options(), world);
        // 4 + 6 pairs: the first half of ten is five.
        let part = if world.rank() == 0 { 0..4 } else { 4..10 };
        let error = trainer.step(&rows(&inputs(false), part), 1e-3).unwrap_err().to_string();
        assert!(error.contains(&format!("rank {} has 5 of 10 rows", world.rank())), "{error}");
    });
}

#[test]
fn statistics_of_ranks_become_their_mean() {
    ranks::all_succeed("statistics_of_ranks_become_their_mean", 2, |world| {
        let resnet = ClipConfig::preset("rn50").unwrap();
        let trainer = trainer(&resnet, "name: clip", options(), world);
        let find = || trainer.model().tensors().into_iter().find(|(name, _)| name == "visual.bn1.running_mean").unwrap().1;
        let _ = find().fill_(1.0 + 2.0 * world.rank() as f64);
        trainer.share_statistics().unwrap();
        assert_eq!(find().sum(Kind::Double).double_value(&[]), 2.0 * find().numel() as f64);
    });
}
