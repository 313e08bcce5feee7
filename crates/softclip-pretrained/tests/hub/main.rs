//! Models of a hub that runs in this process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use server::{COMMIT, Server, sha256};
use softclip_pretrained::{Error, Event, HubOptions, ModelFiles, locate, read_weights};
use softclip_tensor::file::write_safetensors;
use tch::{Device, Kind, Tensor};

const NAME: &str = "org/model";

/// A safetensors file with one tensor of `[1000]`.
fn weights(name: &str, value: f64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let tensor = Tensor::full([1000], value, (Kind::Half, Device::Cpu));
    write_safetensors(&path, &[(name.to_owned(), tensor)], &BTreeMap::new()).unwrap();
    fs::read(path).unwrap()
}

fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"a\": 1}".to_vec()),
        ("README.md", b"not wanted".to_vec()),
        ("pytorch_model.bin", b"not wanted".to_vec()),
        ("model.safetensors", weights("w", 1.0)),
    ]
}

struct User {
    hub: HubOptions,
    /// The file, bytes there and total, as events told; warnings.
    downloads: Vec<(String, u64, Option<u64>)>,
    warnings: Vec<String>,
    _cache: tempfile::TempDir,
}

impl User {
    fn of(server: &Server) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let hub = HubOptions {
            cache: Some(cache.path().join("hub")),
            endpoint: server.endpoint.clone(),
            token: Some("hf_secret".into()),
            offline: false,
            certificates: None,
        };
        Self { hub, downloads: vec![], warnings: vec![], _cache: cache }
    }

    fn locate(&mut self, name: &str) -> Result<ModelFiles, Error> {
        locate(name, &self.hub, &mut |event| match event {
            Event::Download { file, done, total } => self.downloads.push((file.to_owned(), done, total)),
            Event::Warning(text) => self.warnings.push(text.to_owned()),
        })
    }

    fn refused(&mut self, name: &str) -> String {
        self.locate(name).unwrap_err().to_string()
    }

    fn cache(&self) -> &Path {
        self.hub.cache.as_deref().unwrap()
    }
}

#[test]
fn a_model_is_fetched_once_and_found_offline() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    let files = user.locate(NAME).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert_eq!(files.config, files.file("config.json"));
    assert!(files.config.is_some() && files.open_clip_config.is_none() && files.index.is_none());
    assert_eq!(fs::read(files.file("tokenizer.json").unwrap()).unwrap(), b"{\"a\": 1}");
    assert!(files.file("README.md").is_none() && files.file("pytorch_model.bin").is_none(), "more than is wanted");

    let tensor = &read_weights(&files).unwrap()["w"];
    assert_eq!((tensor.size(), tensor.kind()), (vec![1000], Kind::Half));
    let length = model()[4].1.len() as u64;
    let last = user.downloads.last().unwrap();
    assert_eq!(*last, ("model.safetensors".to_owned(), length, Some(length)), "weights come last");

    // huggingface_hub's layout.
    let repo = user.cache().join("models--org--model");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(files.root.ends_with(Path::new("snapshots").join(COMMIT)));
    let link = fs::read_link(&files.weights[0]).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&model()[4].1)));

    server.asked();
    assert_eq!(user.locate(NAME).unwrap(), files);
    assert_eq!(server.asked().len(), 1, "only the listing is asked for again");

    user.hub.offline = true;
    assert_eq!(user.locate(NAME).unwrap(), files);
    assert_eq!(user.locate(&format!("{NAME}@{COMMIT}")).unwrap().root, files.root);
    fs::remove_file(&files.weights[0]).unwrap();
    let message = user.refused(NAME);
    assert!(message.contains("model.safetensors") && message.contains("HF_HUB_OFFLINE"), "{message}");
    assert!(user.refused("org/other").contains("models--org--other"));
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn the_token_stays_with_the_hub() {
    let server = Server::start(&model());
    User::of(&server).locate(NAME).unwrap();
    let asked = server.asked();
    assert!(asked.iter().any(|a| a.cdn), "the weights come from the CDN");
    for a in asked {
        let expected = (!a.cdn).then_some("Bearer hf_secret");
        assert_eq!(a.token.as_deref(), expected, "{a:?}");
    }
}

#[test]
fn the_cache_helps_when_the_hub_fails() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    let files = user.locate(NAME).unwrap();
    for (endpoint, refuse, why) in
        [(&server.endpoint, Some((503, "")), "503"), (&"http://127.0.0.1:1".to_owned(), None, "refused")]
    {
        server.behaviour.lock().unwrap().refuse = refuse;
        user.hub.endpoint = endpoint.clone();
        assert_eq!(user.locate(NAME).unwrap(), files);
        let warning = user.warnings.pop().unwrap();
        assert!(warning.contains(why) && warning.contains("cache"), "{warning}");
        let message = user.refused("org/other");
        assert!(message.contains(why) && message.contains("cache"), "{message}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    for (refuse, token, expected) in [
        ((401, "GatedRepo"), None, "HF_TOKEN"),
        ((403, "GatedRepo"), Some("hf_secret"), "ask for access at"),
        ((401, ""), Some("hf_secret"), "not valid"),
        ((404, "RepoNotFound"), None, "no such model, nor a file or folder"),
        ((404, "RevisionNotFound"), None, "no revision `v2`"),
    ] {
        server.behaviour.lock().unwrap().refuse = Some(refuse);
        user.hub.token = token.map(str::to_owned);
        let message = user.refused("org/model@v2");
        assert!(message.contains(expected) && message.contains("org/model@v2"), "{message}");
    }
    server.behaviour.lock().unwrap().refuse = None;
    assert!(user.refused("org/absent").contains("no such model"), "a plain 404");
    assert!(!user.cache().exists(), "nothing is left behind");
}

#[test]
fn a_mirror_without_listing_will_do() {
    let server = Server::start(&model());
    server.behaviour.lock().unwrap().no_api = true;
    let mut user = User::of(&server);
    let files = user.locate(NAME).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert!(files.file("tokenizer.json").is_some());
    assert_eq!(read_weights(&files).unwrap().len(), 1);
}

#[test]
fn a_repository_of_pickles_is_refused_with_the_way_out() {
    let server = Server::start(&[("config.json", b"{}".to_vec()), ("open_clip_pytorch_model.bin", b"x".to_vec())]);
    let message = User::of(&server).refused(NAME);
    for part in [
        "can run code",
        "weights_only=True",
        "'org/model' 'main' 'open_clip_pytorch_model.bin' 'model' 'open_clip_model.safetensors'",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(server.asked().iter().all(|a| !a.path.ends_with(".bin")));
}

#[test]
fn what_transformers_5_writes_is_fetched() {
    let mut files = model();
    files.push(("processor_config.json", b"{}".to_vec()));
    files.push(("added_tokens.json", b"{}".to_vec()));
    for no_api in [false, true] {
        let server = Server::start(&files);
        server.behaviour.lock().unwrap().no_api = no_api;
        let mut user = User::of(&server);
        let found = user.locate(NAME).unwrap();
        assert!(found.file("processor_config.json").is_some() && found.file("added_tokens.json").is_some());
    }
}

#[test]
fn the_clip_of_sentence_transformers_is_fetched_from_its_folder() {
    let modules = br#"[{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]"#;
    let files = [
        ("modules.json", modules.to_vec()),
        ("config_sentence_transformers.json", b"{}".to_vec()),
        ("0_CLIPModel/config.json", b"{}".to_vec()),
        ("0_CLIPModel/processor_config.json", b"{}".to_vec()),
        ("0_CLIPModel/model.safetensors", weights("w", 1.0)),
    ];
    for no_api in [false, true] {
        let server = Server::start(&files);
        server.behaviour.lock().unwrap().no_api = no_api;
        let mut user = User::of(&server);
        let found = user.locate(NAME).unwrap();
        assert!(found.root.ends_with("0_CLIPModel") && found.config.is_some() && found.file("processor_config.json").is_some());
        assert_eq!(read_weights(&found).unwrap()["w"].size(), [1000]);
        user.hub.offline = true;
        assert_eq!(user.locate(NAME).unwrap(), found);
    }
}

#[test]
fn an_adapter_names_its_model_and_the_command_that_merges_it() {
    let config = br#"{"base_model_name_or_path": "openai/clip-vit-base-patch32", "peft_type": "LORA"}"#;
    let server = Server::start(&[("adapter_config.json", config.to_vec()), ("adapter_model.safetensors", weights("w", 1.0))]);
    let message = User::of(&server).refused(NAME);
    for part in ["PEFT adapter (LORA) of `openai/clip-vit-base-patch32`", "merge_and_unload", "'org/model' 'model-merged'"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(server.asked().iter().all(|a| !a.cdn), "its weights are not fetched");
}

#[test]
fn a_pickle_in_the_cache_is_refused_with_its_path() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    let root = user.locate(NAME).unwrap().root;
    fs::remove_file(root.join("model.safetensors")).unwrap();
    let pickle = root.join("pytorch_model.bin");
    fs::write(&pickle, b"\x80\x02}q\x00.").unwrap();
    user.hub.offline = true;
    let message = user.refused(NAME);
    assert!(message.starts_with(&format!("{} is a Python pickle", pickle.display())), "{message}");
    assert!(message.contains(&format!("'{}' '{}'", pickle.display(), root.join("model.safetensors").display())), "{message}");
}

#[test]
fn other_forms_of_a_hubs_name_are_the_same_model() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    let plain = user.locate(NAME).unwrap();
    for name in ["hf-hub:org/model".to_owned(), format!("{}/org/model/tree/main", server.endpoint)] {
        let found = user.locate(&name).unwrap();
        assert_eq!(found, plain);
        assert_eq!(found.lasting_name().unwrap(), format!("org/model@{COMMIT}"));
    }
    let message = user.refused("org/absent");
    assert!(message.starts_with("there is no file or folder `org/absent` here; as a model's id on the hub: "), "{message}");
    assert!(user.refused("hf-hub:org/absent").starts_with("`org/absent` on"), "what is no path is not looked for as one");
    server.asked();
    assert!(user.refused("ViT-B-32").contains("name of an architecture"));
    assert_eq!(server.asked().len(), 0, "no request is sent for a name that is no model's");
}

fn index(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(n, f)| format!(r#""{n}": "{f}""#)).collect();
    format!(r#"{{"metadata": {{}}, "weight_map": {{{}}}}}"#, entries.join(", ")).into_bytes()
}

#[test]
fn shards_are_fetched_and_held_against_their_index() {
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let server = Server::start(&[
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index(&[("a", first), ("b", second)])),
        (first, weights("a", 1.0)),
        (second, weights("b", 2.0)),
    ]);
    let mut user = User::of(&server);
    let files = user.locate(NAME).unwrap();
    assert_eq!(files.weights, [files.root.join(first), files.root.join(second)]);
    assert_eq!(read_weights(&files).unwrap().keys().collect::<Vec<_>>(), ["a", "b"]);

    // The same as a folder, with one thing after the other wrong.
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let mut read = || user.locate(dir.path().to_str().unwrap()).and_then(|f| read_weights(&f)).map_err(|e| e.to_string());
    put("model.safetensors.index.json", &index(&[("a", first), ("b", second)]));
    put(first, &weights("a", 1.0));
    let message = read().unwrap_err();
    assert!(message.contains(second) && message.contains("missing"), "{message}");
    put(second, &weights("a", 1.0));
    let message = read().unwrap_err();
    assert!(message.contains("`a`") && message.contains(first) && message.contains(second), "{message}");
    put(second, &weights("c", 1.0));
    assert!(read().unwrap_err().contains("lacks `b`"));
    for evil in ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".safetensors"] {
        put("model.safetensors.index.json", &index(&[("a", evil)]));
        assert!(read().unwrap_err().contains("same folder"), "{evil}");
    }
}

#[test]
fn a_cut_download_goes_on() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    server.behaviour.lock().unwrap().cut = (700, 2);
    let files = user.locate(NAME).unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), model()[4].1);
    let ranges: Vec<_> = server.asked().into_iter().filter(|a| a.cdn).map(|a| a.range.unwrap_or_default()).collect();
    assert_eq!(ranges, ["", "bytes=700-", "bytes=1400-"]);
}

#[test]
fn what_an_earlier_run_left_is_gone_on_with_if_it_is_right() {
    let bytes = model()[4].1.clone();
    let wrong = vec![7; 100];
    let too_long = vec![7; bytes.len() + 1];
    for (left, ranges) in [
        (&bytes[..100], vec!["bytes=100-"]),
        (&bytes[..], vec![]),
        // Another beginning shows in the SHA-256 of the whole.
        (&wrong, vec!["bytes=100-", ""]),
        (&too_long, vec![""]),
    ] {
        let server = Server::start(&model());
        let mut user = User::of(&server);
        let blobs = user.cache().join("models--org--model/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), left).unwrap();
        let files = user.locate(NAME).unwrap();
        assert_eq!(fs::read(&files.weights[0]).unwrap(), bytes);
        let asked: Vec<_> = server.asked().into_iter().filter(|a| a.cdn).map(|a| a.range.unwrap_or_default()).collect();
        assert_eq!(asked, ranges);
    }
}

#[test]
fn damaged_weights_never_stand_in_the_cache() {
    let server = Server::start(&model());
    let mut user = User::of(&server);
    let blob = user.cache().join("models--org--model/blobs").join(sha256(&model()[4].1));
    for (damage, cut, expected) in [(2, (0, 0), "damaged"), (0, (0, 99), "broke off")] {
        *server.behaviour.lock().unwrap() = server::Behaviour { damage, cut, files: model_files(), ..Default::default() };
        let message = user.refused(NAME);
        assert!(message.contains(expected) || message.contains("isconnected"), "{message}");
        assert!(!blob.exists() && !user.cache().join("models--org--model/refs/main").exists());
    }
    *server.behaviour.lock().unwrap() = server::Behaviour { damage: 1, files: model_files(), ..Default::default() };
    user.locate(NAME).unwrap();
    assert_eq!(fs::read(blob).unwrap(), model()[4].1);
}

fn model_files() -> BTreeMap<String, Vec<u8>> {
    model().into_iter().map(|(n, b)| (n.to_owned(), b)).collect()
}
