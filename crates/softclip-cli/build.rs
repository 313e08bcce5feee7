//! Lets the binary find libtorch when it is started without cargo.
#![allow(clippy::print_stdout)]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_SOFTCLIP_SHIM_LIBDIR");
    if let Ok(libdir) = std::env::var("DEP_SOFTCLIP_SHIM_LIBDIR") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{libdir}");
    }
}
