//! SoftCLIP's losses and its baselines: f64 reference, plain and blockwise.
