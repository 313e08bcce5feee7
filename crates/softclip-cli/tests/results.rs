//! From a trained model to a table of results.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::path::Path;

use serde_json::Value;

use support::{fails, succeeds};
use world::World;

fn text(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(args)).unwrap()
}

/// The folders of `from` again under synsets' names, as ImageNet's.
fn as_imagenet(from: &Path, to: &Path) -> Vec<(String, String)> {
    let mut folders: Vec<_> =
        fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    let names = ["n01440764", "n01443537", "n01484850"];
    for (folder, name) in folders.iter().zip(names) {
        fs::create_dir_all(to.join("val").join(name)).unwrap();
        for image in fs::read_dir(folder).unwrap() {
            let image = image.unwrap();
            fs::copy(image.path(), to.join("val").join(name).join(image.file_name())).unwrap();
        }
    }
    folders
        .iter()
        .zip(names)
        .map(|(folder, name)| (folder.file_name().unwrap().to_string_lossy().into_owned(), name.to_owned()))
        .collect()
}

#[test]
fn classes_are_evaluated_and_results_come_into_one_table() {
    let world = World::new();
    let config = fs::read_to_string(world.at("tiny.yaml")).unwrap();
    let classes = format!("folder:{}/zeroshot", world.at("data"));
    let entry = format!("eval: [{{task: retrieval}}, {{task: zeroshot, data: '{classes}', prompts: imagenet7}}]");
    fs::write(world.at("tiny.yaml"), config.replace("eval: [{task: retrieval}]", &entry)).unwrap();
    succeeds(&text(&world.train_args("run", &[])));
    let run = world.at("run");
    let eval = ["eval", &run, "--task", "zeroshot", "--json", "-", "--data"];

    // A published set brings CLIP's names of all 1,000 classes, also where three have images.
    let pairs = as_imagenet(Path::new(&world.at("data/zeroshot")), Path::new(&world.at("imagenet")));
    let imagenet = format!("imagenet:{}", world.at("imagenet"));
    let found = json(&[&eval[..], &[&imagenet, "--prompts", "simple"]].concat());
    assert_eq!(
        (&found["dataset"], &found["task"], &found["language"]),
        (&"imagenet1k".into(), &"zeroshot_classification".into(), &"en".into())
    );
    assert_eq!((found["classnames"].as_array().unwrap().len(), found["data"]["classes"].as_u64()), (1000, Some(1000)));
    assert_eq!(
        (&found["classnames"][0], &found["main_metric"], &found["model"]),
        (&"tench".into(), &"acc1".into(), &"run".into())
    );
    assert_eq!(found["pretrained"], format!("{run} step 6"));
    let with_images = found["classes"].as_array().unwrap().iter().filter(|class| class["images"].as_u64() > Some(0)).count();
    assert_eq!(with_images, 3);

    // The same images under their own names: the same model is right as often by either layout.
    let own = |key: &str| format!("a drawing of {key}");
    let lines: String = pairs.iter().map(|(folder, synset)| format!("{synset}\t{}\n", own(folder))).collect();
    fs::write(world.at("by-synset.txt"), lines).unwrap();
    let all = fs::read_dir(world.at("data/zeroshot")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut all: Vec<String> = all.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    all.sort();
    for other in &all[3..] {
        fs::remove_dir_all(world.at(&format!("data/zeroshot/{other}"))).unwrap();
    }
    let lines: String = all[..3].iter().map(|folder| format!("{folder}\t{}\n", own(folder))).collect();
    fs::write(world.at("by-folder.txt"), lines).unwrap();
    let by_synset = json(&[&eval[..], &[&imagenet, "--classnames", &world.at("by-synset.txt")]].concat());
    let by_folder =
        json(&[&eval[..], &[&classes, "--classnames", &world.at("by-folder.txt"), "--prompts", "imagenet80"]].concat());
    assert_eq!((by_synset["prompts"].as_str(), by_folder["prompts"].as_str()), (Some("clip"), Some("imagenet80")));
    assert_eq!((&by_synset["metrics"], &by_synset["classes"]), (&by_folder["metrics"], &by_folder["classes"]));

    let shown = succeeds(&["eval", &run, "--task", "zeroshot", "--data", &classes, "--per-class"]);
    assert!(shown.contains("(main)") && shown.contains("most often taken for"), "{shown}");
    let wrong = fails(&["eval", &run, "--task", "retrieval", "--data", &classes, "--per-class"], 2);
    assert!(wrong.contains("go with --task zeroshot"), "{wrong}");
    fs::write(world.at("by-folder.txt"), "x\tX\n").unwrap();
    let wrong = fails(&["eval", &run, "--task", "zeroshot", "--data", &classes, "--classnames", &world.at("by-folder.txt")], 1);
    assert!(wrong.contains("3 of the data set's 3 classes have no name"), "{wrong}");
    let wrong = fails(&["eval", &run, "--task", "zeroshot", "--data", &classes, "--prompts", "clip"], 1);
    assert!(wrong.contains("only published data sets have such"), "{wrong}");
    tables(&world);
}

/// What training and the evaluations above left, beside a file of CLIP_benchmark.
fn tables(world: &World) {
    let (run, theirs) = (world.at("run"), world.at("theirs.json"));
    let line = r#"{"dataset": "wds/pcam", "model": "ViT-B-32", "pretrained": "laion400m_e32", "task": "zeroshot_classification", "metrics": {"acc1": 0.6, "acc5": NaN, "mean_per_class_recall": 0.59}, "language": "en"}"#;
    fs::write(&theirs, line).unwrap();
    let csv =
        succeeds(&["results", &run, &theirs, "--format", "csv", "--metric", "acc1", "--metric", "image_retrieval_recall@1"]);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "model,pretrained,dataset,task,prompts,acc1,image_retrieval_recall@1");
    assert_eq!(lines[lines.len() - 2], "ViT-B-32,laion400m_e32,wds/pcam,zeroshot_classification,,0.6,");
    assert!(
        lines.iter().any(|line| line.starts_with(&format!("run,{run} step 6,")) && line.contains("zeroshot_retrieval,,,")),
        "{csv}"
    );
    assert!(lines.iter().any(|line| line.contains("imagenet1k,zeroshot_classification,clip,")), "{csv}");
    let markdown = succeeds(&["results", &run, &theirs, "--format", "markdown"]);
    assert!(
        markdown.starts_with("| model | pretrained | dataset | task | prompts |") && markdown.contains("wds/pcam"),
        "{markdown}"
    );
    let found = json(&["results", &theirs, "--format", "json"]);
    assert_eq!((found[0]["metrics"]["acc1"].as_f64(), found[0]["metrics"].get("acc5")), (Some(0.6), None));
    assert_eq!(found[0]["file"], theirs);

    // Of an earlier step nothing is left.
    let results = Path::new(&run).join("results");
    let name = |step: u64| results.join(format!("again-{step}.json"));
    for step in [2, 4] {
        let result = line.replace("laion400m_e32", &format!("r step {step}")).replace("0.59", &format!("0.{step}"));
        fs::write(name(step), result).unwrap();
    }
    let all = json(&["results", results.to_str().unwrap(), "--format", "json"]).as_array().unwrap().len();
    let last = json(&["results", results.to_str().unwrap(), "--format", "json", "--last"]);
    assert_eq!(last.as_array().unwrap().len(), all - 1);
    assert!(last.as_array().unwrap().iter().all(|result| result["pretrained"] != "r step 2"));

    let wrong = fails(&["results", &run, "--metric", "acc2"], 2);
    assert!(wrong.contains("no result has it; they have") && wrong.contains("acc1"), "{wrong}");
    fs::create_dir(world.at("empty")).unwrap();
    assert!(fails(&["results", &world.at("empty")], 1).contains("no results"));
    assert!(fails(&["results", &world.at("tiny.yaml")], 1).contains("no result of an evaluation"));

    let folder = world.at("names");
    assert!(succeeds(&["data", "prompts", "pets", &folder]).contains("classnames.txt"));
    assert!(fails(&["data", "prompts", "pets", &folder], 1).contains("there already"));
    assert!(fails(&["data", "prompts", "cars", &folder], 2).contains("imagenet1k"));
}
