//! The YAML file of an older scoring script, which names a table, a model and a few settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Value;

use crate::error::{Error, Result};

/// A job as an older script's YAML file describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Job {
    /// The table.
    pub csv_path: PathBuf,
    /// `url`, or the folder of the images.
    #[serde(default)]
    pub image_path: Option<String>,
    /// Whether a GPU is used where there is one.
    #[serde(default)]
    pub use_cuda: Option<bool>,
    /// The model.
    #[serde(default)]
    pub pretrained_model: Option<String>,
    /// Pairs a batch.
    #[serde(default)]
    pub batch_size: Option<u16>,
    /// What has no effect here.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Job {
    /// Whether a file is such a job rather than a table, by its extension: `.yaml` or `.yml`.
    pub fn is(path: &Path) -> bool {
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
    }

    /// Reads the file. Paths in it are taken from the working directory, as the script does, or from the file's folder where there is
    /// nothing.
    ///
    /// # Errors
    /// The file cannot be read, or is no such job.
    pub fn open(path: &Path) -> Result<Self> {
        let text = softclip_io::read_text(path).map_err(|e| Error::file(path, e))?;
        let mut job: Job = softclip_io::parse_yaml(&text).map_err(|e| {
            let keys = "csv_path, image_path (url or a folder), use_cuda, pretrained_model, batch_size";
            Error::file(path, format!("{e}; the keys are {keys}"))
        })?;
        let beside = |found: PathBuf| match path.parent() {
            Some(folder) if !found.exists() && folder.join(&found).exists() => folder.join(found),
            _ => found,
        };
        job.csv_path = beside(job.csv_path);
        if !job.images_are_urls() {
            job.image_path = job.image_path.map(|folder| beside(folder.into()).to_string_lossy().into_owned());
        }
        Ok(job)
    }

    /// Whether images are addresses.
    pub fn images_are_urls(&self) -> bool {
        self.image_path.as_deref() == Some("url")
    }

    /// What the file says without any effect here.
    pub fn warnings(&self) -> Vec<String> {
        let say = |key: &String| match key.as_str() {
            "img_resize" => "img_resize is ignored: another size would change the scores; the model's own is used".to_owned(),
            key => format!("{key} is not known and ignored"),
        };
        self.rest.keys().map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_scripts_file_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.yaml");
        let open = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Job::open(&path)
        };
        std::fs::write(folder.path().join("pairs.csv"), "image,caption\n").unwrap();
        let text = "csv_path: pairs.csv\nimage_path: url\nuse_cuda: true\npretrained_model: openai/clip-vit-base-patch32\n";
        let job = open(text).unwrap();
        assert_eq!(job.csv_path, folder.path().join("pairs.csv"));
        assert!(job.images_are_urls() && job.warnings().is_empty());
        assert_eq!((job.use_cuda, job.pretrained_model.as_deref()), (Some(true), Some("openai/clip-vit-base-patch32")));
        let job = open("csv_path: x/pairs.csv\nimage_path: .\nimg_resize: 128\nbatch_size: 8\nverbose: 1\n").unwrap();
        assert_eq!((job.csv_path, job.batch_size), ("x/pairs.csv".into(), Some(8)));
        let job = open("csv_path: a\nimg_resize: 128\nverbose: 1\n").unwrap();
        assert_eq!(job.warnings().len(), 2);
        assert!(job.warnings()[0].contains("img_resize is ignored") && job.warnings()[1].contains("verbose"));
        let error = open("image_path: url\n").unwrap_err().to_string();
        assert!(error.contains("job.yaml") && error.contains("csv_path"), "{error}");
        assert!(Job::is(Path::new("a/B.YML")) && !Job::is(Path::new("yaml.csv")));
    }
}
