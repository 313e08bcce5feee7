//! The `softclip` binary.
fn main() {}
