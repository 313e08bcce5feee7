//! Image-text data: sources, decoding, augmentation, tokenizing, deterministic batches.
