//! Folders with the vocabularies of `tests/goldens/vocab`, as Hugging Face keeps them.

use std::fs;
use std::io::Read;
use std::path::Path;

use tempfile::TempDir;

const VOCABULARIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/vocab");

fn unpacked(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(Path::new(VOCABULARIES).join(name)).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// `vocab.txt` alone.
pub fn bert() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(Path::new(VOCABULARIES).join("bert_vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    folder
}

/// `vocab.json` and `merges.txt` alone.
pub fn roberta() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.json"), unpacked("roberta_vocab.json.gz")).unwrap();
    fs::write(folder.path().join("merges.txt"), unpacked("roberta_merges.txt.gz")).unwrap();
    folder
}
