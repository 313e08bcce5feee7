//! A model of a hub: what it consists of, and how it comes into the cache.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;

use serde_json::Value;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::http::{Client, Remote, header};
use crate::locate::{Chosen, Event, ModelFiles, WEIGHTS, choose, is_adapter, is_plain, shards};
use crate::module::{self, ADAPTER, MODULES};
use crate::options::HubOptions;
use crate::pickle;

/// What is fetched beside the weights, before them. Models lack some of these.
const BESIDE: [&str; 12] = [
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "added_tokens.json",
    ADAPTER,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
];

/// A model on a hub, at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repo {
    pub(crate) id: String,
    pub(crate) revision: String,
}

impl Repo {
    /// Reads `owner/name`, `name` and either with `@revision`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let part = |p: &str| is_plain(p) && p.len() <= 96 && !p.contains("--") && !p.contains("..") && !p.starts_with('-');
        let revision_part = |p: &str| is_plain(p) && !p.contains("..");
        let whole = id.split('/').count() <= 2 && id.split('/').all(part) && revision.split('/').all(revision_part);
        whole.then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }

    fn url(&self, endpoint: &str, revision: &str, file: &str) -> String {
        format!("{endpoint}/{}/resolve/{}/{file}", self.id, revision.replace('/', "%2F"))
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

/// The model's files in the cache, fetched where they are not there yet.
pub(crate) fn fetch(name: &str, repo: &Repo, hub: &HubOptions, watch: &mut dyn FnMut(Event<'_>)) -> Result<ModelFiles> {
    let cache = Cache::new(hub, repo)?;
    if hub.offline {
        return cache.whole(name).map_err(|e| match e {
            // It is there, and the message says what to do with it.
            Error::Pickle { .. } | Error::Adapter { .. } => e,
            e => Error::Name {
                name: name.to_owned(),
                why: format!("not whole in the cache, and the hub may not be asked (HF_HUB_OFFLINE): {e}"),
            },
        });
    }
    let client = Client::new(hub)?;
    let fetched = Fetch { repo, cache: &cache, client: &client, watch }.run(name);
    match fetched {
        Err(Error::Unreachable { endpoint, why }) => match cache.whole(name) {
            Ok(files) => {
                watch(Event::Warning(&format!("{endpoint} fails ({why}); `{repo}` is taken from the cache")));
                Ok(files)
            }
            Err(there @ (Error::Pickle { .. } | Error::Adapter { .. })) => Err(there),
            Err(missing) => {
                Err(Error::Unreachable { endpoint, why: format!("{why}; nor is `{repo}` whole in the cache: {missing}") })
            }
        },
        other => other,
    }
}

struct Fetch<'a> {
    repo: &'a Repo,
    cache: &'a Cache,
    client: &'a Client,
    watch: &'a mut dyn FnMut(Event<'_>),
}

impl Fetch<'_> {
    fn run(&mut self, name: &str) -> Result<ModelFiles> {
        let listing = self.listing()?;
        let is_listed = listing.is_some();
        let (commit, all) = match listing {
            Some(listing) => listing,
            None => self.probe(&self.repo.revision, "")?,
        };
        let folder = self.clip_folder(&commit, &all)?;
        let names: BTreeSet<String> = match (&folder, is_listed) {
            (None, _) => all.into_iter().filter(|name| !name.contains('/')).collect(),
            (Some(folder), true) => all.iter().filter_map(|name| name.strip_prefix(folder)).map(str::to_owned).collect(),
            (Some(folder), false) => self.probe(&commit, folder)?.1,
        };
        let folder = folder.unwrap_or_default();
        let root = self.cache.snapshot(&commit).join(&folder);
        if is_adapter(&names) {
            let config = names.contains(ADAPTER).then(|| self.bring(&commit, &format!("{folder}{ADAPTER}"))).transpose()?;
            return Err(module::adapter(&self.repo.id, config.map(|()| root.join(ADAPTER)).as_deref()));
        }
        let weights = match choose(&names) {
            Chosen::Weights(weights) => weights,
            Chosen::Pickles(pickles) => return Err(pickle::refuse_on_hub(&self.repo.id, &self.repo.revision, &pickles)),
            Chosen::Several(some) => {
                return Err(self.refuse(format!(
                    "has several files of weights and none is model.safetensors ({}): fetch it and name the file",
                    some.join(", ")
                )));
            }
            Chosen::Nothing => return Err(self.refuse("has no weights in safetensors".into())),
        };
        for beside in BESIDE.into_iter().filter(|b| names.contains(*b)) {
            self.bring(&commit, &format!("{folder}{beside}"))?;
        }
        self.bring(&commit, &format!("{folder}{weights}"))?;
        if weights.ends_with(".json") {
            for shard in shards(&root.join(weights))? {
                self.bring(&commit, &format!("{folder}{shard}"))?;
            }
        }
        self.cache.note(&commit)?;
        ModelFiles::beside(name, Some(&commit), &root, weights)
    }

    /// The folder, with a slash behind it, of a sentence-transformers model's CLIP.
    fn clip_folder(&mut self, commit: &str, names: &BTreeSet<String>) -> Result<Option<String>> {
        if !names.contains(MODULES) {
            return Ok(None);
        }
        self.bring(commit, MODULES)?;
        let folder = module::clip_folder(&self.cache.snapshot(commit).join(MODULES))?;
        Ok(folder.map(|folder| format!("{folder}/")))
    }

    fn refuse(&self, why: String) -> Error {
        Error::Hub { name: self.repo.to_string(), endpoint: self.client.endpoint().to_owned(), why }
    }

    /// The commit that the revision means, and its files. None where a mirror does not tell.
    fn listing(&self) -> Result<Option<(String, BTreeSet<String>)>> {
        let Repo { id, revision } = self.repo;
        let url = format!("{}/api/models/{id}/revision/{}", self.client.endpoint(), revision.replace('/', "%2F"));
        let response = self.client.get(&url, 0)?;
        match response.status().as_u16() {
            200 => {}
            404 | 405 | 501 if header(response.headers(), "x-error-code").is_none() => return Ok(None),
            _ => return Err(self.client.refusal(self.repo, &response)),
        }
        let mut text = String::new();
        let read = response.into_body().into_reader().take(64 << 20).read_to_string(&mut text);
        read.map_err(|e| self.client.unreachable(format!("{url}: {e}")))?;
        let Ok(json) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        let (Some(commit), Some(siblings)) = (json["sha"].as_str().filter(|c| is_plain(c)), json["siblings"].as_array()) else {
            return Ok(None);
        };
        let names = siblings.iter().filter_map(|s| s["rfilename"].as_str()).map(str::to_owned).collect();
        Ok(Some((commit.to_owned(), names)))
    }

    /// As [`Self::listing`], by asking for each file in `folder`.
    fn probe(&self, revision: &str, folder: &str) -> Result<(String, BTreeSet<String>)> {
        let (mut commit, mut names) = (None, BTreeSet::new());
        for name in BESIDE.iter().chain(&WEIGHTS).chain(&[MODULES]) {
            if let Some(remote) = self.ask(revision, &format!("{folder}{name}"))? {
                commit = remote.commit.or(commit);
                names.insert((*name).to_owned());
            }
        }
        if names.is_empty() {
            return Err(self.refuse("there is no such model, nor a file or folder of this name here".into()));
        }
        match commit.filter(|c| is_plain(c)) {
            Some(commit) => Ok((commit, names)),
            None => Err(self.refuse("files come without `x-repo-commit`, so this is no hub".into())),
        }
    }

    fn ask(&self, revision: &str, name: &str) -> Result<Option<Remote>> {
        self.client.head(self.repo, &self.repo.url(self.client.endpoint(), revision, name))
    }

    /// Brings one file of the commit into the cache.
    fn bring(&mut self, commit: &str, name: &str) -> Result<()> {
        if self.cache.snapshot(commit).join(name).is_file() {
            return Ok(());
        }
        let Some(remote) = self.ask(commit, name)? else {
            return Err(self.refuse(format!("lacks {name}, which it says it has")));
        };
        let blob = self.cache.blob(&remote.etag)?;
        let _lock = self.cache.lock(&remote.etag, self.watch)?;
        if !blob.is_file() {
            let url = self.repo.url(self.client.endpoint(), commit, name);
            let watch = &mut *self.watch;
            let mut progress = |done, total| watch(Event::Download { file: name, done, total });
            self.client.download(self.repo, &url, &remote, &blob, &mut progress)?;
        }
        self.cache.link(&remote.etag, commit, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_other_names() {
        let parsed = |name: &str| Repo::parse(name).map(|r| (r.id, r.revision));
        let repo = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(parsed("openai/clip-vit-base-patch32"), repo("openai/clip-vit-base-patch32", "main"));
        assert_eq!(parsed("bert-base-uncased@v1.0"), repo("bert-base-uncased", "v1.0"));
        assert_eq!(parsed("a/b@refs/pr/1"), repo("a/b", "refs/pr/1"));
        for bad in
            ["", "a/b/c", "../a", "a/..", "/a", "a/", "a b", "a/b@", "a/b@../c", "a/b@x/../../y", "a--b/c", "~/a", "a/b@x?y"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
