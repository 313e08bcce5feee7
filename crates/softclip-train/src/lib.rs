//! Configuration, optimizer groups, schedule, training step, checkpoints and the loop.
