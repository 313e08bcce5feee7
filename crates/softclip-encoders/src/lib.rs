//! CLIP's image, text and region encoders over libtorch.
