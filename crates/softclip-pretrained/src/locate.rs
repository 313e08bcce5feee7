//! From a model's name to its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::error::{Error, Result, file, io};
use crate::hub;
use crate::module::{self, ADAPTER, MODULES};
use crate::name::Name;
use crate::options::HubOptions;
use crate::{pickle, weights};

/// What happens while a model is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// More of a file has come. Many a second; a first one, at once, tells the total.
    Download {
        /// The file.
        file: &'a str,
        /// Bytes that are there, those of an earlier, cut download included.
        done: u64,
        /// Bytes of the whole file, where the hub tells.
        total: Option<u64>,
    },
    /// The user should know of this.
    Warning(&'a str),
}

/// The files of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// The name it was asked for by.
    pub name: String,
    /// The commit on the hub; none for local files.
    pub revision: Option<String>,
    /// The folder with the files.
    pub root: PathBuf,
    /// The file or files with the weights.
    pub weights: Vec<PathBuf>,
    /// Says which of several files each weight is in.
    pub index: Option<PathBuf>,
    /// `config.json`: Hugging Face's (or timm's) description of the model.
    pub config: Option<PathBuf>,
    /// `open_clip_config.json`: open_clip's.
    pub open_clip_config: Option<PathBuf>,
}

impl ModelFiles {
    /// A further file of the model, such as `tokenizer.json`, if it is there.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.root.join(name)).filter(|p| p.is_file())
    }

    /// A name that stays this model's: of one on a hub the id with its commit, of local files their absolute path.
    ///
    /// # Errors
    /// The working folder is gone.
    pub fn lasting_name(&self) -> Result<String> {
        Ok(match &self.revision {
            Some(commit) => format!("{}@{commit}", self.name.split('@').next().unwrap_or_default()),
            None => {
                let path = Path::new(&self.name);
                std::path::absolute(path).map_err(io(path))?.display().to_string()
            }
        })
    }

    /// The SHA-256 of the files of weights, one after another, in hexadecimal. Reads them in full.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sha256(&self) -> Result<String> {
        cache::sha256(&self.weights)
    }

    /// The files beside `weights`, the name of one file or of an index, in `root`.
    pub(crate) fn beside(name: &str, revision: Option<&str>, root: &Path, weights: &str) -> Result<Self> {
        let index = weights.ends_with(".json").then(|| root.join(weights));
        let weights = match &index {
            None => vec![root.join(weights)],
            Some(index) => shards(index)?.iter().map(|s| root.join(s)).collect(),
        };
        if let Some(missing) = weights.iter().find(|w| !w.is_file()) {
            return Err(file(missing, "is missing"));
        }
        let mut files = Self {
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
            root: root.to_owned(),
            weights,
            index,
            config: None,
            open_clip_config: None,
        };
        files.config = files.file("config.json");
        files.open_clip_config = files.file("open_clip_config.json");
        Ok(files)
    }
}

/// Finds the files of the model `name`: a folder, a file of weights, or a model on a hub. What exists on disk wins.
///
/// A hub's model is named by `owner/name`, `owner/name@revision`, either behind `hf-hub:`, by its address
/// (`https://huggingface.co/owner/name/tree/revision`), or as open_clip names published weights (`ViT-B-32,laion2b_s34b_b79k`). A
/// sentence-transformers model is the CLIP that its `modules.json` names.
///
/// Where a model is there twice, open_clip's weights are taken if its configuration is there too, Hugging Face's otherwise.
///
/// # Errors
/// The name names nothing; the hub refuses (the message says how to be let in) or cannot be reached and the cache lacks the
/// model; weights are pickles or an adapter (the message has the command that converts them); files are missing or not what they
/// should be.
pub fn locate(name: &str, hub: &HubOptions, watch: &mut dyn FnMut(Event<'_>)) -> Result<ModelFiles> {
    let path = Path::new(name);
    if path.is_dir() {
        return in_folder(name, path);
    }
    if path.exists() {
        return at_file(name, path);
    }
    match Name::parse(name, &hub.endpoint) {
        // By the id, as other forms of a name have no place for a commit.
        Name::Repo { repo, explicit: true } => hub::fetch(&repo.to_string(), &repo, hub, watch),
        Name::Repo { repo, explicit: false } => hub::fetch(name, &repo, hub, watch).map_err(|e| match e {
            Error::Name { .. } | Error::Hub { .. } | Error::Unreachable { .. } => {
                Error::NotHere { name: name.to_owned(), source: Box::new(e) }
            }
            other => other,
        }),
        Name::Unknown(why) => {
            Err(Error::Name { name: name.to_owned(), why: format!("there is no such file or folder, and {why}") })
        }
    }
}

/// The names of a folder's files.
pub(crate) fn names_in(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root).map_err(io(root))? {
        let entry = entry.map_err(io(root))?;
        if let (true, Ok(name)) = (entry.path().is_file(), entry.file_name().into_string()) {
            names.insert(name);
        }
    }
    Ok(names)
}

fn in_folder(name: &str, root: &Path) -> Result<ModelFiles> {
    let names = names_in(root)?;
    if names.contains(MODULES)
        && let Some(folder) = module::clip_folder(&root.join(MODULES))?
    {
        let root = root.join(folder);
        return of_names(name, None, &root, &names_in(&root)?);
    }
    of_names(name, None, root, &names)
}

/// The model of a folder's files.
pub(crate) fn of_names(name: &str, revision: Option<&str>, root: &Path, names: &BTreeSet<String>) -> Result<ModelFiles> {
    if is_adapter(names) {
        return Err(module::adapter(name, Some(&root.join(ADAPTER))));
    }
    let weights = match choose(names) {
        Chosen::Weights(weights) => weights,
        // By its contents it may be something else than by its name.
        Chosen::Pickles(pickles) if pickles.len() == 1 && weights::is_safetensors(&root.join(pickles[0])) => pickles[0],
        Chosen::Pickles(pickles) => return Err(pickle::refuse(&pickles.iter().map(|p| root.join(p)).collect::<Vec<_>>())),
        Chosen::Several(some) => return Err(file(root, format!("has several files of weights, name one: {}", some.join(", ")))),
        Chosen::Nothing => return Err(file(root, "has no weights (model.safetensors or open_clip_model.safetensors)")),
    };
    let files = ModelFiles::beside(name, revision, root, weights)?;
    files.weights.iter().try_for_each(|w| weights::check_start(w))?;
    Ok(files)
}

fn at_file(name: &str, path: &Path) -> Result<ModelFiles> {
    let Some(last) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(file(path, "is no file of weights"));
    };
    let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if last.starts_with(ADAPTER_WEIGHTS) {
        let config = Some(root.join(ADAPTER)).filter(|config| config.is_file());
        return Err(module::adapter(&root.display().to_string(), config.as_deref()));
    }
    if !last.ends_with(".index.json") {
        weights::check_start(path)?;
    }
    ModelFiles::beside(name, None, root, last)
}

/// Which of a model's files its weights are read from.
#[derive(Debug, PartialEq)]
pub(crate) enum Chosen<'a> {
    Weights(&'a str),
    Pickles(Vec<&'a str>),
    Several(Vec<&'a str>),
    Nothing,
}

/// Weights by their well-known names, the better ones first.
pub(crate) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
];

/// What PEFT's weights are called, before the extension.
const ADAPTER_WEIGHTS: &str = "adapter_model.";

/// Whether files are PEFT's adapter, and there is no whole model.
pub(crate) fn is_adapter(names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| name.starts_with(ADAPTER_WEIGHTS)) && !WEIGHTS.iter().any(|whole| names.contains(*whole))
}

pub(crate) fn choose(names: &BTreeSet<String>) -> Chosen<'_> {
    let has = |name: &str| names.get(name).map(String::as_str);
    // Beside open_clip's weights `model.safetensors` may be timm's, which is the image tower alone.
    if let (Some(_), Some(weights)) = (has("open_clip_config.json"), WEIGHTS[2..].iter().find_map(|w| has(w))) {
        return Chosen::Weights(weights);
    }
    if let Some(weights) = WEIGHTS.iter().find_map(|w| has(w)) {
        return Chosen::Weights(weights);
    }
    let some: Vec<&str> = names.iter().map(String::as_str).filter(|n| is_plain(n) && n.ends_with(".safetensors")).collect();
    match some[..] {
        [] => match pickle::best(names) {
            none if none.is_empty() => Chosen::Nothing,
            pickles => Chosen::Pickles(pickles),
        },
        [one] => Chosen::Weights(one),
        _ => Chosen::Several(some),
    }
}

/// Whether a name from elsewhere is that of a file in one folder, and needs no quoting in an address.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The files that an index names, each once.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(weights::read_index(index)?.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_chosen_that_fit_a_configuration() {
        for (names, expected) in [
            ("config.json model.safetensors pytorch_model.bin", Chosen::Weights("model.safetensors")),
            (
                "config.json open_clip_config.json model.safetensors open_clip_pytorch_model.bin",
                Chosen::Weights("model.safetensors"),
            ),
            (
                "config.json open_clip_config.json model.safetensors open_clip_model.safetensors",
                Chosen::Weights("open_clip_model.safetensors"),
            ),
            (
                "model.safetensors.index.json model-1.safetensors model-2.safetensors",
                Chosen::Weights("model.safetensors.index.json"),
            ),
            ("weights.safetensors", Chosen::Weights("weights.safetensors")),
            ("a.safetensors b.safetensors", Chosen::Several(vec!["a.safetensors", "b.safetensors"])),
            ("rng_state.pth pytorch_model.bin", Chosen::Pickles(vec!["pytorch_model.bin"])),
            ("config.json", Chosen::Nothing),
        ] {
            let names: BTreeSet<String> = names.split(' ').map(str::to_owned).collect();
            assert_eq!(choose(&names), expected, "{names:?}");
        }
    }
}
