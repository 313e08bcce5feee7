//! `softclip detect`, and the detector as arguments describe it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use softclip_data::image::DecodeOptions;
use softclip_detector::{DetectorConfig, Network};
use softclip_extract::{Looked, look};
use softclip_report::boxes::{Labelled, draw};
use softclip_tensor::Precision;
use softclip_tensor::file::write_atomic;

use crate::args::extract::{Detect, Network as Args};

/// Settings from the file, changed by what the command line says.
pub fn config(args: &Args) -> Result<DetectorConfig> {
    let mut config = args.detector_config.as_deref().map_or_else(|| Ok(DetectorConfig::default()), DetectorConfig::read)?;
    if let Some(sha256) = &args.sha256 {
        config.sha256 = Some(sha256.clone());
    }
    if let Some(classes) = &args.classes {
        config.classes = Some(classes.clone());
    }
    config.thresholds.confidence = args.confidence.unwrap_or(config.thresholds.confidence);
    config.thresholds.iou = args.iou.unwrap_or(config.thresholds.iou);
    config.thresholds.least = args.least.unwrap_or(config.thresholds.least);
    if let Some(precision) = &args.precision {
        config.precision = serde_yaml::from_str::<Precision>(precision).context("--precision: fp32, bf16 or fp16")?;
    }
    config.validate()?;
    Ok(config)
}

pub fn detect(args: &Detect) -> Result<()> {
    let device = crate::device(&args.device)?;
    let config = config(&args.network)?;
    let network = config.open(&args.detector, args.network.trust, device)?;
    if !args.no_pictures {
        std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    }
    let decode = args.decoding.limit(DecodeOptions { dct_scaling: false, ..DecodeOptions::default() });
    let mut failed = 0;
    let pictures = pictures(&args.images)?;
    for (path, picture) in args.images.iter().zip(&pictures) {
        let looked = std::fs::read(path)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(look(&bytes, &network, &config.thresholds, decode)?));
        match looked {
            Ok(looked) => show(args, path, picture, &looked, &network)?,
            Err(error) => {
                failed += 1;
                tracing::warn!("{}: {error}", path.display());
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} images cannot be used", args.images.len());
    }
    Ok(())
}

/// What the images' pictures are called: two of one name are told before anything is done.
fn pictures(images: &[PathBuf]) -> Result<Vec<String>> {
    let mut taken: HashMap<String, &Path> = HashMap::new();
    let name = |path: &Path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        format!("{stem}.boxes.{}", if is_png(path) { "png" } else { "jpg" })
    };
    for path in images {
        if let Some(other) = taken.insert(name(path), path) {
            let (other, path) = (other.display(), path.display());
            bail!("the pictures of {other} and {path} would have one name: give them to two calls, with two --out");
        }
    }
    Ok(images.iter().map(|path| name(path)).collect())
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

fn show(args: &Detect, path: &Path, picture: &str, looked: &Looked, network: &Network) -> Result<()> {
    let name = |class: usize| network.names().get(class).map_or("?", String::as_str);
    if args.json {
        let found = looked
            .detections
            .iter()
            .map(|d| serde_json::json!({ "name": name(d.class), "class": d.class, "confidence": d.confidence, "box": d.xyxy }));
        let found: Vec<_> = found.collect();
        outln!(
            "{}",
            serde_json::json!({ "image": path.to_string_lossy(), "width": looked.width, "height": looked.height, "objects": found })
        );
    } else {
        outln!("{}: {} x {}, {} objects", path.display(), looked.width, looked.height, looked.detections.len());
        for d in &looked.detections {
            let [l, t, r, b] = d.xyxy;
            outln!("  {:<20} {:.3}  {l:7.1} {t:7.1} {r:7.1} {b:7.1}", name(d.class), d.confidence);
        }
    }
    if args.no_pictures {
        return Ok(());
    }
    let label = |d: &softclip_detector::Detection| Labelled {
        xyxy: d.xyxy,
        label: format!("{} {:.2}", name(d.class), d.confidence),
        class: d.class,
    };
    let boxes: Vec<Labelled> = looked.detections.iter().map(label).collect();
    let file = draw(&looked.pixels, looked.width, looked.height, &boxes, is_png(path))?;
    let out = args.out.join(picture);
    write_atomic(&out, &file)?;
    tracing::info!("{}", out.display());
    Ok(())
}
