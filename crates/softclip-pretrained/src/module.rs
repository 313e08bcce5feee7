//! Folders that hold a model for another library: sentence-transformers' and PEFT's.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result, file};

/// sentence-transformers' list of a model's parts.
pub(crate) const MODULES: &str = "modules.json";
/// PEFT's description of an adapter.
pub(crate) const ADAPTER: &str = "adapter_config.json";

/// The folder, within the one of `modules.json`, that a sentence-transformers model keeps its CLIP in. `None` where it has no CLIP, or
/// keeps it in the same folder.
///
/// # Errors
/// It is no such list; another part changes the embeddings.
pub(crate) fn clip_folder(path: &Path) -> Result<Option<String>> {
    let text = softclip_io::read_text(path).map_err(|e| file(path, e.to_string()))?;
    let modules: Vec<Value> = serde_json::from_str(&text).map_err(|e| file(path, format!("is no list of modules ({e})")))?;
    let kind = |module: &Value| module["type"].as_str().and_then(|t| t.rsplit('.').next()).unwrap_or_default().to_owned();
    let Some(clip) = modules.iter().find(|module| kind(module) == "CLIPModel") else { return Ok(None) };
    // Cosines do not depend on lengths.
    if let Some(other) = modules.iter().map(kind).find(|kind| kind != "CLIPModel" && kind != "Normalize") {
        return Err(file(path, format!("its module {other} changes the embeddings of its CLIPModel, which is not supported")));
    }
    match clip["path"].as_str() {
        None | Some("") => Ok(None),
        Some(folder) if crate::locate::is_plain(folder) => Ok(Some(folder.to_owned())),
        Some(other) => Err(file(path, format!("its CLIPModel is said to be in `{other}`, which is not a folder there"))),
    }
}

/// The refusal of a PEFT adapter: `config` is its `adapter_config.json`, `name` what names it here and in Python.
pub(crate) fn adapter(name: &str, config: Option<&Path>) -> Error {
    let read = |path: &Path| serde_json::from_str::<Value>(&softclip_io::read_text(path).ok()?).ok();
    let config = config.and_then(read).unwrap_or_default();
    let base = config["base_model_name_or_path"].as_str().unwrap_or("BASE_MODEL");
    let kind = config["peft_type"].as_str().unwrap_or("LoRA");
    let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or("model");
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let merged = format!("{last}-merged");
    let why = format!(
        "it is a PEFT adapter ({kind}) of `{base}`, which holds only what changes. Merge it into its model with\n\n    \
         python -c \"import sys; from transformers import AutoModel, AutoProcessor; from peft import PeftModel; \
         b, a, o = sys.argv[1:]; PeftModel.from_pretrained(AutoModel.from_pretrained(b), a).merge_and_unload().save_pretrained(o); \
         AutoProcessor.from_pretrained(b).save_pretrained(o)\" {} {} {}\n\nand give the folder `{merged}` then.\n",
        quote(base),
        quote(name),
        quote(&merged),
    );
    Error::Adapter { name: name.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_of_sentence_transformers_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODULES);
        let read = |modules: &str| {
            std::fs::write(&path, modules).unwrap();
            clip_folder(&path).map_err(|e| e.to_string())
        };
        let clip = r#"{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}"#;
        let other = |kind: &str| format!(r#"{{"idx": 1, "path": "1_{kind}", "type": "sentence_transformers.models.{kind}"}}"#);
        let found = Ok(Some("0_CLIPModel".to_owned()));
        assert_eq!(read(&format!("[{clip}]")), found);
        assert_eq!(read(&format!("[{clip}, {}]", other("Normalize"))), found);
        assert_eq!(read(&format!("[{}, {}]", other("Transformer"), other("Pooling"))), Ok(None));
        assert!(read(&format!("[{clip}, {}]", other("Dense"))).unwrap_err().contains("Dense changes"));
        assert!(read(&format!("[{}]", clip.replace("0_CLIPModel", "../x"))).unwrap_err().contains("`../x`"));
        assert!(read("{").unwrap_err().contains("modules.json"));
    }
}
