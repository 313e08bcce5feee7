//! Instance retrieval and copy detection from files to figures, with a small model of random weights: pictures that are the same to the
//! pixel have the same embedding.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use image::{Rgb, RgbImage, imageops};
use serde_json::json;
use softclip_encoders::{Clip, ClipConfig, ClipTextConfig, TextConfig, VisionConfig, VitConfig, seeded};
use softclip_eval::{EvalError, EvalOptions, EvalResult, InstanceSet, Rankings, Relevant, Task, evaluate_instances};
use softclip_tensor::Embeddings;
use tch::nn::VarStore;
use tch::{Device, Tensor};

fn model() -> Clip {
    let text = ClipTextConfig { context_length: 8, vocab_size: 30, heads: 2, layers: 1, ..ClipTextConfig::clip(16) };
    let vision = VisionConfig::Vit(VitConfig::clip(32, 8, 32, 2, 2));
    let config = ClipConfig::new(16, vision, TextConfig::Clip(text));
    seeded(7, || Clip::new(&VarStore::new(Device::Cpu).root(), &config)).unwrap()
}

/// A picture like no other.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |k: u32| (((x * (seed + k) + y * (3 * seed + 1)) % 97) * 2 + 20 * k) as u8;
        Rgb([wave(1), wave(2), wave(3)])
    })
}

/// Without loss, though the layout wants the name.
fn save(image: &RgbImage, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save_with_format(path, image::ImageFormat::Png).unwrap();
}

fn run(task: &Task, spec: &str, options: &EvalOptions) -> Result<EvalResult, EvalError> {
    let set = InstanceSet::of(task, spec)?.expect("a set of pictures");
    let read = Cell::new(0);
    let done = |n: usize, _: usize| {
        read.set(n);
        ControlFlow::Continue(())
    };
    let result = evaluate_instances(&model(), &set, task, options, &done)?;
    assert_eq!(read.get(), result.data.images, "each is encoded once");
    Ok(result)
}

fn options() -> EvalOptions {
    EvalOptions { batch_size: 4, workers: 2, ..EvalOptions::new(Device::Cpu) }
}

fn metric(result: &EvalResult, name: &str) -> f64 {
    result.metric(name).unwrap_or_else(|| panic!("{name} in {:?}", result.metrics))
}

/// A query whose box holds what the image `right` shows alone, while the whole query is the image `whole` to the pixel.
fn revisited(folder: &Path, bbx: [f64; 4], more: &serde_json::Value) -> String {
    let (part, mut whole) = (picture(5, 40, 36), picture(11, 100, 80));
    imageops::replace(&mut whole, &part, 50, 30);
    for (name, image) in
        [("whole", &whole), ("query", &whole), ("junk", &part), ("right", &part), ("other", &picture(17, 64, 48))]
    {
        save(image, &folder.join(format!("jpg/{name}.jpg")));
    }
    let mut entry = json!({"bbx": bbx, "easy": [2], "hard": [], "junk": [1]});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let truth = json!({"imlist": ["whole", "junk", "right", "other"], "qimlist": ["query"], "gnd": [entry]});
    fs::write(folder.join("gnd.json"), truth.to_string()).unwrap();
    format!("revisited:{0}/gnd.json,{0}/jpg/", folder.display())
}

#[test]
fn a_query_is_what_its_box_shows_and_junk_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    for scales in [vec![1.0], vec![1.0, std::f64::consts::FRAC_1_SQRT_2, 0.5]] {
        let instance = Task::Instance(scales);
        // Rounded, this is 50, 30, 90, 66.
        let spec = revisited(folder.path(), [50.4, 29.7, 89.6, 66.0], &json!({}));
        let found = run(&instance, &spec, &options()).unwrap();
        assert_eq!((metric(&found, "mAP_easy"), metric(&found, "mP@1_easy"), metric(&found, "mAP_medium")), (1.0, 1.0, 1.0));
        assert!(found.metric("mAP_hard").is_none(), "nothing is hard: {found}");
        assert_eq!((found.task.as_str(), found.data.images, found.data.skipped.len()), ("instance_retrieval", 5, 0));
        // Of three images that count one is right: 1, 1/4 and 1/6 at its three places.
        assert!((found.chance["mAP_easy"] - (1.0 + 0.25 + 1.0 / 6.0) / 3.0).abs() < 1e-12, "{:?}", found.chance);
        // The whole picture is another image's: that comes first, so the right one cannot.
        let spec = revisited(folder.path(), [0.0, 0.0, 100.0, 80.0], &json!({}));
        assert!(metric(&run(&instance, &spec, &options()).unwrap(), "mAP_easy") <= 0.25);
    }
}

#[test]
fn levels_differ_in_what_is_right_and_what_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    // The image that is the same to the pixel is hard and the other one easy.
    let spec = revisited(folder.path(), [50.0, 30.0, 90.0, 66.0], &json!({"easy": [0, 3], "hard": [1], "junk": [2]}));
    let found = run(&Task::Instance(vec![1.0]), &spec, &options()).unwrap();
    for name in ["mAP_easy", "mAP_medium", "mAP_hard", "mP@10_easy", "mP@5_hard"] {
        assert_eq!(metric(&found, name), 1.0, "{name}");
    }
    assert!(found.protocol.as_deref().unwrap().contains("1 easy, 1 medium, 1 hard"), "{found}");
}

#[test]
fn copies_find_their_originals_among_distractors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for i in 0..6u32 {
        let original = picture(i * 7 + 2, 60, 44);
        save(&original, &at(&format!("original/20{i}000.jpg")));
        save(&original, &at(&format!("strong/20{i}001.jpg")));
        save(&picture(i * 5 + 4, 70, 41), &at(&format!("distractors/deep/{i}.jpg")));
        save(&picture(i * 5 + 3, 50, 50), &at(&format!("distractors/{i}.jpg")));
    }
    let copy = Task::Copy(vec![1.0]);
    let spec = format!("copydays:{}", folder.path().display());
    let alone = run(&copy, &spec, &options()).unwrap();
    assert_eq!((alone.metrics.len(), metric(&alone, "mAP"), metric(&alone, "mP@1")), (2, 1.0, 1.0));
    let with = format!("{spec},distractors={}", at("distractors").display());
    let among = run(&copy, &with, &options()).unwrap();
    assert_eq!((metric(&among, "mAP"), among.data.images), (1.0, 24));
    assert!(among.chance["mAP"] < alone.chance["mAP"]);
    // A copy of another picture's pixels: that is the first, its own at best the second.
    save(&picture(2, 60, 44), &at("strong/204002.jpg"));
    let less = metric(&run(&copy, &spec, &options()).unwrap(), "mAP");
    assert!((6.0 / 7.0..=(6.0 + 0.25) / 7.0).contains(&less), "{less}");

    // A distractor that cannot be read is counted, beyond the share it is an error; any other image must be readable.
    fs::write(at("distractors/broken.jpg"), b"no image").unwrap();
    let found = run(&copy, &with, &EvalOptions { max_bad_share: 0.1, ..options() }).unwrap();
    assert_eq!(found.data.skipped.get("distractors"), Some(&1));
    let error = run(&copy, &with, &EvalOptions { max_bad_share: 0.01, ..options() }).unwrap_err().to_string();
    assert!(error.contains("1 of 13 distractors") && error.contains("broken.jpg"), "{error}");
    let protocol = found.protocol.as_deref().unwrap();
    assert!(protocol.contains("6 + 12 distractors (1 more cannot be read)"), "{protocol}");
    fs::write(at("original/200000.jpg"), b"no image").unwrap();
    let error = run(&copy, &spec, &options()).unwrap_err().to_string();
    assert!(error.contains("200000.jpg") && error.contains("known format"), "{error}");
}

#[test]
fn a_subset_is_one_folder_and_distractors_are_all_below_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("key=value");
    for name in ["original/200000.jpg", "jpegqual/3/200001.jpg", "jpegqual/5/200001.jpg", "more/a/b.jpg", "more/c.jpg"] {
        save(&picture(1, 8, 8), &root.join(name));
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(&root, root.join("more/a/again")).unwrap();
    let spec = |options: &str| format!("copydays:{}{options}", root.display());
    let set = InstanceSet::copydays(&spec(&format!(",subset=jpegqual/5,distractors={}", root.join("more").display()))).unwrap();
    assert_eq!((set.queries.len(), set.database.len(), set.distractors.len()), (1, 1, 2), "{set:?}");
    let above = InstanceSet::copydays(&spec(",subset=jpegqual")).unwrap_err().to_string();
    assert!(above.contains("jpegqual: there is no image in it;"), "{above}");
    for subset in ["", ".", "..", "../jpegqual", "/"] {
        let error = InstanceSet::copydays(&spec(&format!(",subset={subset}"))).unwrap_err().to_string();
        assert!(error.contains(&format!("'{subset}' is no folder in")), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_data_set_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let boxed = [50.0, 30.0, 90.0, 66.0];
    let error = |spec: &str| run(&Task::Instance(vec![1.0]), spec, &options()).unwrap_err().to_string();
    for (more, words) in [
        (json!({"easy": [4]}), "query names image 4, but there are 4"),
        (json!({"hard": [2]}), "query names image 2 twice"),
        (json!({"bbx": [9.0, 9.0, 9.2, 30.0]}), "has no pixel"),
        (json!({"easy": "all"}), "scripts/revisited-to-json"),
    ] {
        let message = error(&revisited(folder.path(), boxed, &more));
        assert!(message.contains(words), "{message} / {words}");
    }
    let spec = revisited(folder.path(), boxed, &json!({}));
    fs::remove_file(folder.path().join("jpg/other.jpg")).unwrap();
    fs::remove_file(folder.path().join("jpg/query.jpg")).unwrap();
    let message = error(&spec);
    assert!(message.contains("2 of 5 images") && message.contains("other.jpg") && message.contains("query.jpg"), "{message}");
    let message = error(&format!("{spec},scale=2"));
    assert!(message.contains("expected revisited:") && message.contains("scale=2"), "{message}");
    let message = error(&format!("{spec},distractors=a/,distractors=b/"));
    assert!(message.contains("'distractors' is given twice: 'a/' and 'b/'"), "{message}");
    assert!(error("coco:x.json,images/").contains("expected revisited:"));
    let copies = format!("copydays:{}", folder.path().display());
    let missing = InstanceSet::copydays(&copies).unwrap_err().to_string();
    assert!(missing.contains("original"), "{missing}");
    save(&picture(1, 8, 8), &folder.path().join("original/200000.jpg"));
    save(&picture(1, 8, 8), &folder.path().join("strong/200101.jpg"));
    let orphan = InstanceSet::copydays(&copies).unwrap_err().to_string();
    assert!(orphan.contains("200101.jpg") && orphan.contains("'2001'"), "{orphan}");
    fs::remove_file(folder.path().join("strong/200101.jpg")).unwrap();
    save(&picture(1, 8, 8), &folder.path().join("strong/200001.jpg"));
    save(&picture(1, 8, 8), &folder.path().join("original/200007.jpg"));
    let twice = InstanceSet::copydays(&copies).unwrap_err().to_string();
    assert!(twice.contains("200000.jpg") && twice.contains("200007.jpg") && twice.contains("'2000'"), "{twice}");
    let set = InstanceSet::revisited(&revisited(folder.path(), boxed, &json!({}))).unwrap();
    let scales = evaluate_instances(&model(), &set, &Task::Instance(vec![0.0]), &options(), &|_, _| ControlFlow::Continue(()));
    assert!(scales.unwrap_err().to_string().contains("scales"));
    let stopped = evaluate_instances(&model(), &set, &Task::Instance(vec![1.0]), &options(), &|_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(EvalError::Stopped)));
}

#[test]
fn rankings_by_hand() {
    let at = |degrees: &[f64]| {
        let rows: Vec<f64> = degrees.iter().flat_map(|d| [d.to_radians().cos(), d.to_radians().sin()]).collect();
        Embeddings::checked(Tensor::from_slice(&rows).view([-1, 2])).unwrap()
    };
    let relevant = |positives: &[usize], junk: &[usize]| Relevant { positives: positives.to_vec(), junk: junk.to_vec() };
    // In the order of the query at 0°: 1 (junk), 3, 0, 4, 2 (junk), 5.
    let database = at(&[20.0, 1.0, 40.0, 10.0, 30.0, 50.0]);
    let levels = vec![vec![relevant(&[0, 5], &[1, 2]), relevant(&[], &[0])], vec![relevant(&[3], &[]), relevant(&[], &[])]];
    let mut rankings = Rankings::new(&at(&[0.0, 90.0]), &database, levels.clone()).unwrap();
    let first = |rankings: &Rankings| rankings.precision()[0].clone().unwrap();
    let found = first(&rankings);
    // Places 1 and 3: trapezoids (0 + 1/2)/2 and (1/3 + 2/4)/2, each half as wide.
    assert!((found.map - (0.25 + 5.0 / 12.0) / 2.0).abs() < 1e-12 && found.queries == 1, "{found:?}");
    assert_eq!(found.precision_at, [0.0, 0.5, 0.5]);
    assert_eq!(rankings.precision()[1].as_ref().unwrap().map, 0.25);
    // Two distractors before the first right one, one between, one equal to the last: that ranks behind it.
    rankings.add_distractors(&at(&[5.0, 35.0])).unwrap();
    rankings.add_distractors(&at(&[-15.0, 50.0])).unwrap();
    let found = first(&rankings);
    // Places 3 and 6.
    assert!((found.map - (0.125 + (1.0 / 6.0 + 2.0 / 7.0) / 2.0) / 2.0).abs() < 1e-12, "{found:?}");
    assert_eq!(found.precision_at, [0.0, 1.0 / 5.0, 2.0 / 7.0]);
    for levels in [vec![vec![]], vec![vec![relevant(&[6], &[]), relevant(&[], &[])]], vec![vec![relevant(&[1], &[1]); 2]]] {
        assert!(Rankings::new(&at(&[0.0, 90.0]), &database, levels).is_err());
    }
    let wide = Embeddings::normalize(&Tensor::from_slice(&[1.0, 0.0, 0.0]).view([1, 3])).unwrap();
    assert!(rankings.add_distractors(&wide).is_err() && Rankings::new(&wide, &database, vec![]).is_err());
}

/// What scripts/revisited-to-json makes of a pickle of `value`, Python that stands behind `PRELUDE`. `None` where there is no Python.
fn from_pickle(value: &str, protocol: u32) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/revisited-to-json");
    let folder = tempfile::tempdir().unwrap();
    let pickle = folder.path().join("gnd.pkl");
    let python = format!("{PRELUDE}\npickle.dump({value}, open(sys.argv[1], 'wb'), protocol={protocol})\n");
    let written = match Command::new("python3").arg("-c").arg(python).arg(&pickle).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("python3 is not there: the script that reads pickles is not tested");
            return None;
        }
        written => written.unwrap(),
    };
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let done = Command::new("python3").arg(&script).arg(&pickle).output().unwrap();
    let text = if done.status.success() { done.stdout } else { done.stderr };
    Some((done.status.success(), String::from_utf8(text).unwrap()))
}

/// Pickles as NumPy writes them, without it.
const PRELUDE: &str = r#"
import pickle, sys, types
for name in ("numpy", "numpy.core", "numpy.core.multiarray"):
    sys.modules[name] = types.ModuleType(name)
numpy, multiarray = sys.modules["numpy"], sys.modules["numpy.core.multiarray"]
class Call:
    def __init__(self, *parts): self.parts = parts
    def __reduce__(self): return self.parts
def stub(module, name):
    def made(*args): pass
    made.__module__, made.__name__, made.__qualname__ = module.__name__, name, name
    setattr(module, name, made)
    return made
ndarray, dtype = stub(numpy, "ndarray"), stub(numpy, "dtype")
_reconstruct, scalar = stub(multiarray, "_reconstruct"), stub(multiarray, "scalar")
def sort(name, order): return Call(dtype, (name, False, True), (3, order, None, None, None, -1, -1, 0))
def array(count, of, data): return Call(_reconstruct, (ndarray, (0,), b"b"), (1, (count,), of, False, data))
def truth(**more):
    entry = {"bbx": (50.0, 30.0, 90, 66), "easy": [2], "hard": [], "junk": [1], **more}
    return {"imlist": ["whole", "junk", "right", "other"], "qimlist": ["query"], "gnd": [entry]}
"#;

#[test]
fn a_published_pickle_becomes_json() {
    let box_of_f4 = "array(4, sort('f4', '>'), bytes.fromhex('42480000 41f00000 42b40000 42840000'))";
    let arrays = format!(
        "truth(bbx={box_of_f4}, easy=array(1, sort('i8', '<'), b'\\2' + bytes(7)), hard=array(0, sort('i8', '<'), b''), \
         junk=array(1, sort('O8', '|'), [Call(scalar, (sort('u2', '<'), b'\\1\\0'))]))"
    );
    for value in ["truth()", &arrays] {
        for protocol in [0, 2, 4] {
            let Some((done, text)) = from_pickle(value, protocol) else { return };
            assert!(done, "{text}");
            let folder = tempfile::tempdir().unwrap();
            revisited(folder.path(), [0.0; 4], &json!({}));
            fs::write(folder.path().join("gnd.json"), text).unwrap();
            let set = InstanceSet::revisited(&format!("revisited:{0}/gnd.json,{0}/jpg", folder.path().display())).unwrap();
            assert_eq!((set.queries[0].part, set.database.len()), (Some([50.0, 30.0, 90.0, 66.0]), 4));
            let easy = Relevant { positives: vec![2], junk: vec![1] };
            assert_eq!(set.levels[0].1, [easy]);
        }
    }
}

#[test]
fn a_pickle_runs_no_code_and_makes_no_array_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let touched = folder.path().join("touched");
    let code = format!("Call(__import__('os').system, ('touch {}',))", touched.display());
    for (value, words) in [
        (code.as_str(), "system"),
        ("Call(ndarray, ((1,), sort('O', '|'), b'A' * 8))", "array of memory"),
        ("array(1, sort('O', '|'), b'A' * 8)", "not listed"),
        ("array(1 << 40, sort('f8', '<'), b'A' * 8)", "8 bytes instead of"),
        ("array(1, Call(dtype, ([('a', 'O')],)), b'A' * 8)", "array of ["),
        ("Call(dtype, ('f8',), (3, '|', None, ('a',), {}, 8, 1, 0))", "sort of its own"),
        ("truth(bbx=(1.0, 2.0, float('inf'), 4.0))", "'bbx' of query"),
        ("truth(bbx=(1.0, float('nan'), 3.0, 4.0))", "'bbx' of query"),
        ("truth(easy=[float('inf')])", "'easy' of query"),
    ] {
        let Some((done, text)) = from_pickle(value, 2) else { return };
        assert!(!done && text.contains(words), "{value}: {text}");
    }
    assert!(!touched.exists());
}
