//! Models on disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use softclip_pretrained::{HubOptions, ModelFiles, locate, read_weights};
use softclip_tensor::file::write_safetensors;
use tch::Tensor;

/// No hub: what is on disk is found without one.
fn find(path: impl AsRef<Path>) -> Result<ModelFiles, String> {
    let hub = HubOptions { cache: None, endpoint: "http://127.0.0.1:1".into(), token: None, offline: false, certificates: None };
    locate(path.as_ref().to_str().unwrap(), &hub, &mut |event| panic!("{event:?}")).map_err(|e| e.to_string())
}

fn put_weights(path: &Path) {
    write_safetensors(path, &[("w".into(), Tensor::from_slice(&[1.0f32, 2.0]))], &BTreeMap::new()).unwrap();
}

#[test]
fn a_folder_or_a_file_names_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("open_clip_model.safetensors");
    put_weights(&path);
    fs::write(dir.path().join("open_clip_config.json"), "{}").unwrap();
    let folder = find(dir.path()).unwrap();
    assert_eq!(folder.open_clip_config, Some(dir.path().join("open_clip_config.json")));
    assert_eq!((folder.revision.as_deref(), &folder.weights), (None, &vec![path.clone()]));
    let file = find(&path).unwrap();
    assert_eq!((&file.root, &file.weights, &file.open_clip_config), (&folder.root, &folder.weights, &folder.open_clip_config));
    assert_eq!(read_weights(&file).unwrap()["w"].size(), [2]);

    put_weights(&dir.path().join("a.safetensors"));
    fs::rename(&path, dir.path().join("b.safetensors")).unwrap();
    let message = find(dir.path()).unwrap_err();
    assert!(message.contains("a.safetensors, b.safetensors"), "{message}");
}

#[test]
fn a_name_that_is_nothing_says_how_it_was_read() {
    for name in ["no/such/folder", "./nothing", "nothing.safetensors", "nothing.pt", ""] {
        let message = find(name).unwrap_err();
        assert!(message.contains("no such file or folder") && message.contains("owner/name"), "{message}");
    }
}

#[test]
fn what_is_no_safetensors_is_refused_by_its_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let zip = b"PK\x03\x04 ViT-B-32/constants.pkl";
    let pickle = b"\x80\x02}q\x00(X\x05\x00\x00\x00epoch";
    for (bytes, expected) in [
        (&pickle[..], "torch.load(sys.argv[1], map_location='cpu', weights_only=True)"),
        (zip, "torch.jit.load"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "no safetensors"),
        (b"", "no safetensors"),
    ] {
        fs::write(&path, bytes).unwrap();
        for name in [dir.path(), &path] {
            let message = find(name).unwrap_err();
            assert!(message.contains(expected) && message.contains("model.safetensors"), "{message}");
            // What tells that a file is OpenAI's is kept.
            assert!(!message.contains("context_length"), "{message}");
        }
    }
    // Named as a pickle, with a name that a shell would take apart.
    let path = dir.path().join("it's.pt");
    fs::write(&path, pickle).unwrap();
    let message = find(&path).unwrap_err();
    assert!(message.contains(r"it'\''s.pt' '") && message.contains(r"it'\''s.safetensors'"), "{message}");
}

#[test]
fn a_cut_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    put_weights(&path);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = read_weights(&find(&path).unwrap()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors") && message.contains("whole"), "{message}");
}
