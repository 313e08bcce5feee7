//! What the name of a model that is not on disk means.

use crate::hub::Repo;

/// What a name means.
#[derive(Debug, PartialEq)]
pub(crate) enum Name {
    /// A repository of a hub. `explicit` if only a hub's name has this form.
    Repo {
        /// The repository.
        repo: Repo,
        /// Whether the form of the name leaves no doubt.
        explicit: bool,
    },
    /// Nothing: what it looks like, and what to write instead.
    Unknown(String),
}

/// open_clip's published weights that a hub has: architecture, name of the weights, repository. From open_clip's own table.
const OPEN_CLIP: &[(&str, &str, &str)] = &[
    ("ViT-B-32", "openai", "openai/clip-vit-base-patch32"),
    ("ViT-B-32", "laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ("ViT-B-32", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"),
    ("ViT-B-32", "datacomp_m_s128m_b4k", "laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K"),
    ("ViT-B-32", "datacomp_s_s13m_b4k", "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K"),
    ("ViT-B-32", "commonpool_m_clip_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K"),
    ("ViT-B-32", "commonpool_m_laion_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K"),
    ("ViT-B-32", "commonpool_m_image_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K"),
    ("ViT-B-32", "commonpool_m_text_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K"),
    ("ViT-B-32", "commonpool_m_basic_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K"),
    ("ViT-B-32", "commonpool_m_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K"),
    ("ViT-B-32", "commonpool_s_clip_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K"),
    ("ViT-B-32", "commonpool_s_laion_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K"),
    ("ViT-B-32", "commonpool_s_image_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K"),
    ("ViT-B-32", "commonpool_s_text_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K"),
    ("ViT-B-32", "commonpool_s_basic_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K"),
    ("ViT-B-32", "commonpool_s_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K"),
    ("ViT-B-32-256", "datacomp_s34b_b86k", "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"),
    ("ViT-B-16", "openai", "openai/clip-vit-base-patch16"),
    ("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    ("ViT-B-16", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
    ("ViT-B-16", "datacomp_l_s1b_b8k", "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_clip_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_laion_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_image_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_text_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_basic_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K"),
    ("ViT-B-16", "commonpool_l_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K"),
    ("ViT-L-14", "openai", "openai/clip-vit-large-patch14"),
    ("ViT-L-14", "laion2b_s32b_b82k", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    ("ViT-L-14", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
    ("ViT-L-14", "commonpool_xl_clip_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K"),
    ("ViT-L-14", "commonpool_xl_laion_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K"),
    ("ViT-L-14", "commonpool_xl_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K"),
    ("ViT-L-14-336", "openai", "openai/clip-vit-large-patch14-336"),
    ("ViT-H-14", "laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    ("ViT-g-14", "laion2b_s12b_b42k", "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"),
    ("ViT-g-14", "laion2b_s34b_b88k", "laion/CLIP-ViT-g-14-laion2B-s34B-b88K"),
    ("ViT-bigG-14", "laion2b_s39b_b160k", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"),
    ("roberta-ViT-B-32", "laion2b_s12b_b32k", "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k"),
];

/// Architectures of OpenAI and open_clip without published weights in the table.
const OTHERS: [&str; 5] = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"];

impl Name {
    /// Reads a name; `endpoint` is the hub's address, whose models' addresses are names too.
    pub(crate) fn parse(name: &str, endpoint: &str) -> Self {
        let unknown = Name::Unknown;
        if let Some(id) = name.strip_prefix("hf-hub:").or_else(|| name.strip_prefix("hf_hub:")) {
            return match Repo::parse(id) {
                Some(repo) => Name::Repo { repo, explicit: true },
                None => unknown(format!("behind `hf-hub:` comes OWNER/NAME or OWNER/NAME@REVISION, not `{id}`")),
            };
        }
        if name.starts_with("http://") || name.starts_with("https://") {
            return of_address(name, endpoint);
        }
        if let Some((architecture, weights)) = name.split_once(',') {
            return of_pair(architecture.trim(), weights.trim());
        }
        if let Some(meaning) = architecture(name) {
            return unknown(meaning);
        }
        match Repo::parse(name).filter(|_| !looks_like_a_path(name)) {
            Some(repo) => Name::Repo { repo, explicit: false },
            None => unknown("it is no model's id on a hub either (owner/name or owner/name@revision)".to_owned()),
        }
    }
}

fn looks_like_a_path(name: &str) -> bool {
    let of_weights = [".safetensors", ".json", ".yaml"].iter().any(|end| name.ends_with(end));
    of_weights || crate::pickle::is_pickle_name(name)
}

/// `https://HOST/OWNER/NAME`, also with `/tree/REVISION`.
fn of_address(name: &str, endpoint: &str) -> Name {
    let address = name.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let hubs = [endpoint, "https://huggingface.co", "https://www.huggingface.co", "https://hf.co"];
    let Some(path) = hubs.iter().find_map(|hub| address.strip_prefix(hub)?.strip_prefix('/')) else {
        let why = format!(
            "it is an address outside of {endpoint}, the hub that models are fetched from: set HF_ENDPOINT to that hub and write \
             OWNER/NAME, or download the model and name its folder"
        );
        return Name::Unknown(why);
    };
    let parts: Vec<&str> = path.split('/').collect();
    let id = match parts[..] {
        [owner, model] => format!("{owner}/{model}"),
        [model] => model.to_owned(),
        [owner, model, "tree", ref revision @ ..] if !revision.is_empty() => format!("{owner}/{model}@{}", revision.join("/")),
        [owner, model, "blob" | "resolve" | "raw", revision, ..] => {
            let why = format!("it is the address of one file; write the model's name: {owner}/{model}@{revision}");
            return Name::Unknown(why);
        }
        _ => String::new(),
    };
    match Repo::parse(&id) {
        Some(repo) => Name::Repo { repo, explicit: true },
        None => Name::Unknown("it is no model's address, which is HUB/OWNER/NAME or HUB/OWNER/NAME/tree/REVISION".to_owned()),
    }
}

/// open_clip's `ARCHITECTURE,WEIGHTS`.
fn of_pair(architecture: &str, weights: &str) -> Name {
    let of_this = |(a, ..): &&(&str, &str, &str)| *a == without_quick_gelu(architecture);
    let is_published = architecture == without_quick_gelu(architecture) || weights == "openai";
    let found = OPEN_CLIP.iter().filter(of_this).find(|(_, w, _)| *w == weights && is_published);
    if let Some(repo) = found.and_then(|(.., id)| Repo::parse(id)) {
        return Name::Repo { repo, explicit: true };
    }
    let known: Vec<&str> = OPEN_CLIP.iter().filter(of_this).map(|(_, w, _)| *w).collect();
    let known = match known.is_empty() {
        true => "of this architecture no weights are known here".to_owned(),
        false => format!("of this architecture these weights are known here: {}", known.join(", ")),
    };
    Name::Unknown(format!("as open_clip's `ARCHITECTURE,WEIGHTS`, {known}. Write the model's id on a hub, OWNER/NAME, instead"))
}

/// Whether weights need QuickGELU is in the configuration that comes with them.
fn without_quick_gelu(architecture: &str) -> &str {
    architecture.strip_suffix("-quickgelu").unwrap_or(architecture)
}

/// What an architecture's name means, as OpenAI (`ViT-B/32`) or open_clip (`ViT-B-32`) writes it.
fn architecture(name: &str) -> Option<String> {
    let plain = without_quick_gelu(name).replace('/', "-").replace("@336px", "-336").to_ascii_lowercase();
    let all = OPEN_CLIP.iter().map(|(a, ..)| *a).chain(OTHERS);
    let found = all.into_iter().find(|a| a.to_ascii_lowercase() == plain)?;
    let weights: Vec<String> =
        OPEN_CLIP.iter().filter(|(a, ..)| *a == found).take(4).map(|(a, w, id)| format!("{a},{w} ({id})")).collect();
    let remedy = match weights.is_empty() {
        true => "name a folder or file with its weights, or a hub's id".to_owned(),
        false => format!("name weights of it: {}", weights.join(", ")),
    };
    Some(format!("it is the name of an architecture, {found}, and not of a model's weights: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "https://huggingface.co";

    fn repo(name: &str) -> Option<(String, bool)> {
        match Name::parse(name, HUB) {
            Name::Repo { repo, explicit } => Some((repo.to_string(), explicit)),
            Name::Unknown(_) => None,
        }
    }

    #[test]
    fn every_form_of_a_hubs_name_is_read() {
        for (name, id) in [
            ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
            ("hf-hub:a/b@v1", "a/b@v1"),
            ("https://huggingface.co/openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
            ("https://huggingface.co/openai/clip-vit-base-patch32/", "openai/clip-vit-base-patch32"),
            ("https://huggingface.co/openai/clip-vit-base-patch32/tree/main", "openai/clip-vit-base-patch32"),
            ("https://huggingface.co/a/b/tree/refs/pr/3?x=1#top", "a/b@refs/pr/3"),
            ("https://hf.co/bert-base-uncased", "bert-base-uncased"),
            ("ViT-B-32,laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
            ("ViT-B-32, openai", "openai/clip-vit-base-patch32"),
            ("ViT-L-14-quickgelu,openai", "openai/clip-vit-large-patch14"),
        ] {
            assert_eq!(repo(name), Some((id.to_owned(), true)), "{name}");
        }
        assert_eq!(repo("openai/clip-vit-base-patch32"), Some(("openai/clip-vit-base-patch32".into(), false)));
        let mirror = Name::parse("http://127.0.0.1:8/hub/u/m/tree/main", "http://127.0.0.1:8/hub");
        assert!(matches!(mirror, Name::Repo { repo, .. } if repo.to_string() == "u/m"));
        assert!(OPEN_CLIP.iter().all(|(.., id)| Repo::parse(id).is_some()));
    }

    #[test]
    fn what_is_no_model_says_what_it_is() {
        for (name, says) in [
            ("ViT-B-32", "ViT-B-32,laion2b_s34b_b79k (laion/CLIP-ViT-B-32-laion2B-s34B-b79K)"),
            ("ViT-B/32", "architecture, ViT-B-32"),
            ("vit-l/14@336px", "architecture, ViT-L-14-336"),
            ("RN50", "architecture, RN50"),
            ("ViT-B-32,laion5b", "laion2b_s34b_b79k, datacomp_xl_s13b_b90k"),
            ("nothing,openai", "no weights are known"),
            ("https://example.org/a/b", "HF_ENDPOINT"),
            ("https://huggingface.co/a/b/blob/main/model.safetensors", "a/b@main"),
            ("https://huggingface.co/a/b/c/d", "no model's address"),
            ("hf-hub:a/b/c", "OWNER/NAME"),
            ("no/such/folder", "owner/name"),
        ] {
            match Name::parse(name, HUB) {
                Name::Unknown(why) => assert!(why.contains(says), "{name}: {why}"),
                found => panic!("{name}: {found:?}"),
            }
        }
    }
}
