//! Data sets: random access to samples by index, whatever the layout on disk.
//!
//! | spec | is |
//! | --- | --- |
//! | `cc3m/{00000..00331}.tar`, `cc3m/*.tar`, `a.tar::b.tar`, `list.txt` | webdataset shards, plain or gzipped |
//! | `cc3m/{0..9}.tar+rois/{0..9}.tar` | shards with sidecars of the same keys (tags, regions) |
//! | `coco:captions.json,images/[,instances=instances.json][,rois=DIR]` | COCO captions; images in a folder or a tar |
//! | `karpathy:dataset_coco.json,images/,split=test` | Karpathy's splits (`train+restval` joins two, `all` takes everything) |
//! | `csv:pairs.csv[,image=COLUMN][,caption=COLUMN][,root=DIR][,quotes=off]`, `tsv:…` | a table of local paths, one caption per row |
//! | `coco:…,sidecars=soft/*.tar`, likewise `karpathy:`, `csv:`, `tsv:` | with sidecars |
//! | `folder:val/`, `folder:val.tar` | a folder for each class |
//! | `csv:images.csv,label=COLUMN[,classes=FILE]`, `tsv:…` | a table of images with a class each |
//! | `imagenet:DIR` | ImageNet's validation images: a folder a synset, or flat with the development kit |
//! | `pets:DIR`, `dtd:DIR`, `food101:DIR`, `flowers102:DIR`, `sun397:DIR`, `caltech101:DIR` | as they are published; `,split=…` |
//! | `wds:DIR[,split=test]` | CLIP_benchmark's folders of shards with `.cls` members |

mod annotated;
mod classes;
mod error;
mod fault;
pub(crate) mod folders;
mod lenient;
mod list;
mod members;
mod parts;
mod pattern;
mod rois;
mod sample;
mod shards;
mod sidecar;
mod store;
mod subset;
mod table;
mod tarball;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::SourceError;
pub use fault::{SourceFault, SourceFaultKind};
pub use sample::{Rois, Sample, SampleError, SampleErrorKind};
pub use sidecar::{SidecarRecord, fingerprint, member_name};
pub use subset::subset;

/// Samples that lie in one tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    /// The tar.
    pub path: PathBuf,
    /// Numbers of its samples.
    pub samples: Range<usize>,
}

/// A data set. Opening it reads names and positions only; samples are read when asked for, from any thread.
pub trait Source: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key of the sample `index`, unique within the source; empty when `index` is out of range.
    fn key(&self, index: usize) -> String;

    /// Reads the sample `index`.
    ///
    /// # Errors
    /// The sample is incomplete or damaged, or the system cannot read it; other samples are not concerned.
    fn read(&self, index: usize) -> Result<Sample, SampleError>;

    /// The key without what tells shards apart: what the sample's members are called in a sidecar.
    fn stem(&self, index: usize) -> String {
        self.key(index)
    }

    /// Bytes of the image file of the sample `index`, where that is known without reading it.
    fn image_len(&self, _index: usize) -> Option<u64> {
        None
    }

    /// The tars that the samples are in, one after another; none where images lie otherwise.
    fn shards(&self) -> Vec<ShardRange> {
        Vec::new()
    }

    /// The file with the image of the sample `index`: the image itself or a tar, where the source knows.
    fn path(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// One line: layout, files, number of samples.
    fn describe(&self) -> String;

    /// The short name of a data set, CLIP_benchmark's where it has one.
    fn name(&self) -> Option<&str> {
        None
    }

    /// Whether the data set was opened by its own scheme: only then [`Source::name`] says that it is that published set, and not that a
    /// folder is called so.
    fn is_published(&self) -> bool {
        false
    }

    /// Class names in the order of class ids, where samples have a class.
    fn classes(&self) -> Option<&[String]> {
        None
    }

    /// What the data set itself calls its classes, in the order of class ids: folders, WordNet's ids, numbers.
    fn class_keys(&self) -> Option<&[String]> {
        None
    }

    /// Templates of prompts that come with the data, `{}` for the class.
    fn templates(&self) -> Option<&[String]> {
        None
    }

    /// What was found wrong while indexing: truncated shards, duplicate keys, members without an image, …
    fn faults(&self) -> &[SourceFault] {
        &[]
    }
}

/// Files of a folder that are examined for a message.
const LOOKED_AT: usize = 10_000;

/// What a folder seems to hold, and how that is named or packed.
fn what_folder(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(LOOKED_AT);
    let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let ends = |path: &Path, ends: &[&str]| {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        extension.is_some_and(|extension| ends.contains(&extension.as_str()))
    };
    let captions: HashSet<PathBuf> =
        paths.iter().filter(|path| ends(path, &["txt", "json"])).map(|path| path.with_extension("")).collect();
    let image = |path: &&PathBuf| ends(path, &folders::IMAGE_EXTENSIONS) && captions.contains(&path.with_extension(""));
    let shown = folder.display();
    match paths.iter().filter(image).min() {
        Some(image) => {
            let name = image.file_name().unwrap_or_default().to_string_lossy();
            format!(
                "a folder of images with captions next to them ({name}): pack it with `tar --sort=name -cf pairs.tar -C {shown} .` and \
                 name pairs.tar"
            )
        }
        None => format!("a folder: name its shards ('{shown}/*.tar'), or use folder:{shown} for class folders"),
    }
}

/// Opens a data set named by a spec (see the module's table). Names and positions are read, no images.
///
/// # Errors
/// The spec cannot be understood, a file cannot be read, or nothing in it can be used.
pub fn open(spec: &str) -> Result<Arc<dyn Source>, SourceError> {
    let wrong = |reason: &str| Err(SourceError::Spec { spec: spec.to_owned(), reason: reason.to_owned() });
    if spec.contains("://") || spec.starts_with("pipe:") {
        return wrong("only local files are read: download the shards first");
    }
    Ok(match spec.split_once(':') {
        Some(("coco", rest)) => Arc::new(annotated::coco(spec, rest)?),
        Some(("karpathy", rest)) => Arc::new(annotated::karpathy(spec, rest)?),
        Some(("csv", rest)) => Arc::new(table::table(spec, rest, None)?),
        Some(("tsv", rest)) => Arc::new(table::table(spec, rest, Some(b'\t'))?),
        Some(("folder", rest)) => Arc::new(folders::folders(spec, rest)?),
        Some((scheme, rest)) if classes::is_known(scheme) => Arc::new(classes::open(spec, scheme, rest)?),
        Some((scheme, rest)) if !rest.starts_with(':') && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            let known = classes::schemes();
            return wrong(&format!(
                "unknown kind of data set: coco:, karpathy:, csv:, tsv:, folder:, {known}, or a pattern of tars"
            ));
        }
        _ if spec.trim().is_empty() => return wrong("nothing is named"),
        _ if Path::new(spec).is_dir() => return wrong(&what_folder(Path::new(spec))),
        _ => Arc::new(shards::Shards::open(spec)?),
    })
}
