//! Where the hub and its cache are.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Result, io};

/// The hub, its cache and the right to read there.
#[derive(Clone)]
pub struct HubOptions {
    /// The folder of the cache, in `huggingface_hub`'s layout. None where nothing says where home is.
    pub cache: Option<PathBuf>,
    /// The hub or a mirror of it, such as `https://huggingface.co`, without a slash at the end.
    pub endpoint: String,
    /// The token of a user's account, for gated and private models. It is sent to `endpoint` and nowhere else.
    pub token: Option<String>,
    /// Whether only the cache is used.
    pub offline: bool,
    /// A PEM file of the certificates to trust; Mozilla's without one.
    pub certificates: Option<PathBuf>,
}

impl HubOptions {
    /// What the environment says, read as `huggingface_hub` reads it:
    ///
    /// | | variables, the first one wins |
    /// | --- | --- |
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `hub` in `HF_HOME` (`$XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface`) |
    /// | endpoint | `HF_ENDPOINT` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `token` in `HF_HOME` |
    /// | offline | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`: `1`, `ON`, `YES` or `TRUE` |
    /// | certificates | `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE` |
    ///
    /// Proxies (`HTTPS_PROXY`, `NO_PROXY`) are obeyed as well. An empty variable counts as none.
    ///
    /// # Errors
    /// A file with a token is there and cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let first = |names: &[&str]| names.iter().find_map(|n| var(n));
        let path = |text: String| match (text.strip_prefix("~/"), var("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            _ => PathBuf::from(text),
        };
        let home = (var("HF_HOME").map(path))
            .or_else(|| var("XDG_CACHE_HOME").map(|c| path(c).join("huggingface")))
            .or_else(|| var("HOME").map(|h| Path::new(&h).join(".cache/huggingface")));
        let token = match first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Some(token) => Some(token),
            None => match var("HF_TOKEN_PATH").map(path).or_else(|| home.as_ref().map(|h| h.join("token"))) {
                Some(file) => token_in(&file)?,
                None => None,
            },
        };
        let yes = |name: &str| var(name).is_some_and(|v| matches!(v.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        Ok(Self {
            cache: first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(path).or_else(|| home.map(|h| h.join("hub"))),
            endpoint: var("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()).trim_end_matches('/').to_owned(),
            token,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            certificates: first(&["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]).map(path),
        })
    }
}

fn token_in(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(file)(e)),
    }
}

/// A token is a secret: logs may show everything else.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .field("certificates", &self.certificates)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_lookup(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())).unwrap()
    }

    #[test]
    fn the_environment_is_read_as_huggingface_hub_reads_it() {
        let cache = |vars: &[(&str, &str)]| read(vars).cache.map(|c| c.display().to_string());
        let mut vars = vec![("HOME", "/home/a")];
        assert_eq!(cache(&[]), None);
        assert_eq!(cache(&vars).unwrap(), "/home/a/.cache/huggingface/hub");
        for (name, value, expected) in [
            ("XDG_CACHE_HOME", "/x", "/x/huggingface/hub"),
            ("HF_HOME", "~/hf", "/home/a/hf/hub"),
            ("HUGGINGFACE_HUB_CACHE", "/old", "/old"),
            ("HF_HUB_CACHE", "/new", "/new"),
        ] {
            vars.push((name, value));
            assert_eq!(cache(&vars).unwrap(), expected);
        }

        assert_eq!(read(&[]).endpoint, "https://huggingface.co");
        assert_eq!(read(&[("HF_ENDPOINT", "https://mirror.example/")]).endpoint, "https://mirror.example");
        for (value, expected) in [("1", true), ("yes", true), ("TRUE", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).offline, expected, "{value}");
            assert_eq!(read(&[("TRANSFORMERS_OFFLINE", value)]).offline, expected, "{value}");
        }
    }

    #[test]
    fn a_token_comes_from_a_variable_or_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(read(&[("HF_HOME", home)]).token.unwrap(), "hf_file");
        let other = dir.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(read(&[("HF_HOME", home), path]).token.unwrap(), "hf_other");
        let options = read(&[("HF_HOME", home), path, ("HF_TOKEN", "hf_variable ")]);
        assert_eq!(options.token.as_deref(), Some("hf_variable"));
        assert!(!format!("{options:?}").contains("hf_"), "{options:?}");
    }
}
