//! `softclip export`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use softclip_encoders::{Clip, Mode};
use softclip_io::PartialFolder;
use softclip_pretrained::{Error, Exported, export_hugging_face, export_open_clip};
use softclip_tensor::file::write_safetensors;
use softclip_torch::{Generator, guard};
use tch::{Device, Kind, Tensor, no_grad};

use crate::args::{Export, Layout};
use crate::model::{self, Opened};

/// Texts that the exported model is compared on, one of them longer than most contexts are filled.
const CAPTIONS: [&str; 6] = [
    "a photo of a cat",
    "two dogs, one of them running on grass",
    "ein roter Wagen vor einem Haus",
    "1,000 & more: it's \"quoted\"",
    "猫",
    "a long caption that goes on about a street with many people, a market, a red bus, some trees and the evening sky above them",
];
/// Texts that libraries make different tokens of, and what is in them.
const READINGS: [(&str, &str); 6] = [
    ("HTML's character references (`&amp;`)", "black &amp; white"),
    ("curly quotes (`\u{2019}`)", "it\u{2019}s a dog\u{2019}s toy"),
    ("full-width characters (`\u{ff21}`)", "\u{ff21}\u{ff22}\u{ff23} 123"),
    ("ligatures (`\u{fb01}`)", "a \u{fb01}sh"),
    ("mojibake (`sch\u{c3}\u{b6}n`)", "ein sch\u{c3}\u{b6}ner Hund"),
    ("control characters (U+0001)", "a\u{1}b"),
];
/// The most that outputs of equal weights may differ, relative to the largest: memory is laid out differently.
const TOLERANCE: f64 = 1e-5;

/// Exports a model; what is written is compared with it before it has its name.
pub fn export(args: &Export) -> Result<()> {
    refuse(args)?;
    let model = model::open(&args.model, Device::Cpu)?;
    let (config, tensors) = (model.clip().config(), model.tensors());
    // In a folder that is there, which may be another disk's; else beside it.
    let parent = args.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = if args.out.is_dir() { args.out.as_path() } else { parent };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let beside = PartialFolder::create(parent, ".export-").with_context(|| format!("cannot write to {}", parent.display()))?;
    let write = match args.to {
        Layout::HuggingFace => export_hugging_face,
        Layout::OpenClip => export_open_clip,
    };
    let exported = write(config, &tensors, model.tokenizer(), beside.path()).map_err(|e| match e {
        Error::Model { source, .. } => Error::Model { name: args.model.clone(), source },
        other => other,
    })?;
    let probe = Probe::new(&model)?;
    let Compared { outcome, readings } =
        compare(&model, &probe, tensors, &exported).context("what was written is not the model; nothing is kept")?;
    place(beside, &args.out)?;
    outln!("{}: {} tensors", args.out.display(), exported.tensors);
    left_out(&exported.left_out).iter().for_each(|line| outln!("left out: {line}"));
    outln!("read back: {outcome}");
    if !readings.is_empty() {
        let library = match args.to {
            Layout::HuggingFace => "transformers",
            Layout::OpenClip => "open_clip",
        };
        outln!("note: the tokenizer of {library} makes other tokens of texts with {}", readings.join(", "));
    }
    if let Some(path) = &args.check {
        probe.write(&model, path)?;
        outln!("{}: inputs and outputs for scripts/check_export.py", path.display());
    }
    Ok(())
}

/// Before the model is opened, so that what is wrong shows at once.
fn refuse(args: &Export) -> Result<()> {
    let out = args.out.display();
    let mut files = match fs::read_dir(&args.out) {
        Ok(files) => files,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("{out}")),
    };
    if files.next().is_some() && !args.force {
        bail!("{out} is not empty: take another folder, or --force to replace files of the same names");
    }
    // Only one of two models in a folder would be found.
    let other = match args.to {
        Layout::HuggingFace => "open_clip_model.safetensors",
        Layout::OpenClip => "model.safetensors",
    };
    if args.out.join(other).exists() {
        bail!("{out} holds a model in another layout ({other}): take another folder");
    }
    Ok(())
}

/// Gives what lies `beside` its name; in a folder that is there it replaces files of the same names, the weights last.
fn place(beside: PartialFolder, out: &Path) -> Result<()> {
    let failed = || format!("cannot write to {}", out.display());
    if out.is_dir() {
        let files = fs::read_dir(beside.path()).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).with_context(failed)?;
        let (weights, others): (Vec<_>, Vec<_>) =
            files.iter().map(fs::DirEntry::file_name).partition(|name| name.to_string_lossy().ends_with(".safetensors"));
        // Without weights there is no model: none of old weights and a new configuration.
        for name in weights.iter().filter(|name| out.join(name).exists()) {
            fs::remove_file(out.join(name)).with_context(failed)?;
        }
        for name in others.iter().chain(&weights) {
            fs::rename(beside.path().join(name), out.join(name)).with_context(failed)?;
        }
    } else {
        beside.persist(out).with_context(failed)?;
    }
    softclip_io::sync_folder(out).with_context(failed)
}

fn left_out(names: &[String]) -> Vec<String> {
    let regions = names.iter().any(|name| name.starts_with("regions."));
    let branch = regions.then(|| "the region branch (regions.*), which only the loss uses".to_owned());
    let others = names.iter().filter(|name| !name.starts_with("regions."));
    let others = others.map(|name| match name.as_str() {
        "logit_bias" => "logit_bias, SigLIP's, which is added to all logits alike".to_owned(),
        name => format!("{name}, which only the loss uses"),
    });
    branch.into_iter().chain(others).collect()
}

/// What goes through a model to compare it.
struct Probe {
    /// Noise, bytes `[4, 3, S, S]`.
    bytes: Tensor,
    /// Tokens of the captions, `[6, L]`.
    tokens: Tensor,
}

impl Probe {
    fn new(model: &Opened) -> Result<Self> {
        let config = model.clip().config();
        let (size, context) = (config.image_size(), config.context_length() as usize);
        let bytes = Generator::new(0).uniform([4, 3, size, size], 0.0, 256.0)?.f_to_kind(Kind::Uint8)?;
        Ok(Self { bytes, tokens: model.tokenizer().encode_batch(&CAPTIONS, context, false).tokens })
    }

    /// Normalised pixels, features of images and of texts, before they get unit length.
    fn run(&self, clip: &Clip) -> Result<[Tensor; 3]> {
        // The encoders' operators panic where libtorch fails.
        guard(|| {
            no_grad(|| {
                let pixels = clip.normalize_images(&self.bytes)?;
                let images = clip.encode_image(&pixels, Mode::Eval)?;
                Ok([pixels, images, clip.encode_text(&self.tokens)?])
            })
        })?
    }

    fn write(&self, model: &Opened, path: &Path) -> Result<()> {
        let [pixels, images, texts] = self.run(model.clip())?;
        let scale = model.clip().logit_scale().detach();
        let tensors = [
            ("pixel_values", pixels),
            ("input_ids", self.tokens.shallow_clone()),
            ("image_features", images),
            ("text_features", texts),
            ("logit_scale", scale),
        ];
        let captions = BTreeMap::from([("captions".to_owned(), serde_json::to_string(&CAPTIONS)?)]);
        Ok(write_safetensors(path, &tensors.map(|(name, tensor)| (name.to_owned(), tensor)), &captions)?)
    }
}

/// What reading an exported model back showed.
struct Compared {
    /// What was compared, and how near it is.
    outcome: String,
    /// Kinds of texts of which its tokenizer makes other tokens.
    readings: Vec<&'static str>,
}

/// Reads what was written and compares it with the model.
fn compare(model: &Opened, probe: &Probe, mut tensors: BTreeMap<String, Tensor>, exported: &Exported) -> Result<Compared> {
    let folder = exported.folder.to_str().context("the folder's name is no UTF-8")?;
    let back = model::read_pretrained(folder)?;
    tensors.retain(|name, _| !exported.left_out.contains(name));
    if let Some(name) = tensors.keys().chain(back.tensors.keys()).find(|&name| {
        let (Some(ours), Some(theirs)) = (tensors.get(name), back.tensors.get(name)) else { return true };
        !same_bits(ours, theirs)
    }) {
        bail!("`{name}` is not the same");
    }
    let bits = format!("{} tensors equal bit for bit", tensors.len());
    if back.architecture.is_none() {
        let outcome = format!("{bits}; outputs are not compared, as open_clip's configuration has no place for such towers");
        return Ok(Compared { outcome, readings: vec![] });
    }
    let loaded = back.into_clip(Device::Cpu)?;
    let context = model.clip().config().context_length() as usize;
    let differs = |text: &str| loaded.tokenizer.encode(text, context) != model.tokenizer().encode(text, context);
    if let Some(text) = CAPTIONS.iter().find(|text| differs(text)) {
        bail!("its tokens of `{text}` are others");
    }
    let readings = READINGS.iter().filter(|(_, text)| differs(text)).map(|(kind, _)| *kind).collect();
    let mut largest = 0f64;
    for (ours, theirs) in probe.run(model.clip())?.iter().zip(probe.run(&loaded.clip)?) {
        let difference = (ours.f_sub(&theirs)?.abs().max() / ours.abs().max()).double_value(&[]);
        if difference.is_nan() || difference > TOLERANCE {
            bail!("its outputs differ by {difference:.1e} of the largest");
        }
        largest = largest.max(difference);
    }
    Ok(Compared { outcome: format!("{bits}, outputs within {largest:.1e} of the largest"), readings })
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    let bits = |t: &Tensor| t.detach().contiguous().view_dtype(Kind::Uint8);
    let scalar = |t: &Tensor| if t.dim() == 0 { t.detach().reshape([1]) } else { t.shallow_clone() };
    a.kind() == b.kind() && a.size() == b.size() && bits(&scalar(a)).equal(&bits(&scalar(b)))
}
