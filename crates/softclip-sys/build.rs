//! Compiles the shim, with NCCL where its headers are, and tells every crate of the workspace where libtorch is.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::{env, fs};

const LIBTORCH: &str = "2.11.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rustc-env=SOFTCLIP_LIBTORCH={LIBTORCH}");
    if let Err(message) = build() {
        println!("cargo::error={message}");
    }
}

fn build() -> Result<(), String> {
    // torch-sys names its directory under this variable, for its direct dependents only.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB")
        .map(PathBuf::from)
        .map_err(|_| "torch-sys did not say where libtorch is: run scripts/setup first")?;
    let torch = lib.parent().ok_or("libtorch's lib folder has no parent")?;
    let include = torch.join("include");
    check_version(&include)?;

    compiler(&include)
        // Gloo is inside libtorch, its headers are not.
        .include("cpp/gloo-stubs")
        .define("USE_C10D_GLOO", None)
        .file("cpp/error.cpp")
        .file("cpp/init.cpp")
        .file("cpp/generator.cpp")
        .file("cpp/autocast.cpp")
        .file("cpp/linear.cpp")
        .file("cpp/recompute.cpp")
        .file("cpp/optim.cpp")
        .file("cpp/store.cpp")
        .file("cpp/group.cpp")
        .file("cpp/reducer.cpp")
        .compile("softclip_shim");
    nccl(torch, &include)?;

    let lib = link_under_target(torch)?;
    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    // For executables that are started without cargo: the real folder, which outlives target/.
    println!("cargo::metadata=libdir={}", torch.join("lib").display());
    Ok(())
}

fn compiler(include: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).flag("-fvisibility=hidden");
    build.include(include).include(include.join("torch/csrc/api/include"));
    build
}

/// What needs libtorch_cuda becomes an object of its own, which the crate holds as bytes: so it can be built without a GPU, and what is
/// built still starts where there is none.
fn nccl(torch: &Path, include: &Path) -> Result<(), String> {
    println!("cargo::rustc-check-cfg=cfg(softclip_nccl)");
    let nvidia = torch.parent().ok_or("LIBTORCH has no parent folder")?.join("nvidia");
    if nvidia.is_dir() {
        println!("cargo::rerun-if-changed={}", nvidia.display());
    }
    let folders = [nvidia.join("cu13/include"), nvidia.join("nccl/include")];
    let headers =
        ["cu13/include/cuda_runtime.h", "cu13/include/crt/host_config.h", "cu13/include/nv/target", "nccl/include/nccl.h"];
    if !headers.iter().all(|header| nvidia.join(header).is_file()) {
        return Ok(());
    }
    let mut build = compiler(include);
    // Before CUDA's own: of some libraries types alone are named, and their headers may or may not be there.
    build.include("cpp/nccl/handle-stubs").includes(folders).define("USE_C10D_NCCL", None);
    let objects = build.file("cpp/nccl/nccl.cpp").try_compile_intermediates().map_err(|e| format!("NCCL: {e}"))?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?).join("softclip_nccl.so");
    let mut link = build.get_compiler().to_command();
    let status =
        link.arg("-shared").arg("-s").arg("-o").arg(&out).args(objects).status().map_err(|e| format!("{link:?}: {e}"))?;
    if !status.success() {
        return Err(format!("{link:?}: {status}"));
    }
    println!("cargo::rustc-cfg=softclip_nccl");
    Ok(())
}

fn check_version(include: &Path) -> Result<(), String> {
    let header = include.join("torch/headeronly/version.h");
    let text = fs::read_to_string(&header)
        .map_err(|e| format!("{}: {e}. Run scripts/setup, or set LIBTORCH to a libtorch {LIBTORCH}", header.display()))?;
    if text.contains(&format!("\"{LIBTORCH}\"")) {
        return Ok(());
    }
    Err(format!(
        "{} is not libtorch {LIBTORCH}, the one this build is pinned to: run scripts/setup, or set LIBTORCH",
        header.display()
    ))
}

/// Cargo keeps only search paths below `target/` when it sets the loader path of `cargo run`, tests and doc-tests, so a
/// link there serves every crate. It points to the folder above `torch/`, because libtorch finds its CUDA libraries
/// relative to itself.
fn link_under_target(torch: &Path) -> Result<PathBuf, String> {
    let site = torch.parent().ok_or("LIBTORCH has no parent folder")?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let link = out.join("site");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(site, &link).map_err(|e| format!("{}: {e}", link.display()))?;
    let name = torch.file_name().ok_or("LIBTORCH has no folder name")?;
    Ok(link.join(name).join("lib"))
}
