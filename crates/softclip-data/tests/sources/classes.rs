//! Published sets of classified images, in small.

use std::path::Path;

use softclip_data::source::{Source, SourceFaultKind, open};

use crate::{Folder, error, keys, kinds, png, tar};

impl Folder {
    fn put_all(&self, names: &[&str]) {
        names.iter().for_each(|name| drop(self.put(name, &png())));
    }

    fn text(&self, name: &str, text: &str) {
        self.put(name, text.as_bytes());
    }

    fn spec(&self, scheme: &str, options: &str) -> String {
        format!("{scheme}:{}{options}", self.0.path().display())
    }

    fn mat(&self, name: &str) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/mat").join(name);
        self.put(name, &std::fs::read(golden).unwrap());
    }
}

/// Each sample's key with the key of its class.
fn labels(source: &dyn Source) -> Vec<(String, String)> {
    let classes = source.class_keys().unwrap();
    (0..source.len()).map(|i| (source.key(i), classes[source.read(i).unwrap().class.unwrap()].clone())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, class)| ((*key).to_owned(), (*class).to_owned())).collect()
}

/// Writing `text` to `name` makes `spec` an error with all of `words`, the file's name among them.
fn refused(folder: &Folder, spec: &str, name: &str, text: &str, words: &str) {
    let path = folder.0.path().join(name);
    let before = std::fs::read(&path).ok();
    folder.text(name, text);
    let message = error(spec).to_string();
    let file = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(message.contains(words) && message.contains(&file), "{message} / {words} / {file}");
    match before {
        Some(bytes) => drop(folder.put(name, &bytes)),
        None => std::fs::remove_file(path).unwrap(),
    }
}

#[test]
fn imagenet_as_folders_of_synsets() {
    let folder = Folder::new();
    folder.put_all(&[
        "val/n01443537/b.JPEG",
        "val/n01440764/ILSVRC2012_val_00000293.JPEG",
        "val/n01440764/a.JPEG",
        "val/other/x.JPEG",
    ]);
    folder.text("val/n01443537/notes.txt", "");
    let inside = format!("imagenet:{}", folder.path("val"));
    for spec in [folder.spec("imagenet", ""), inside] {
        let source = open(&spec).unwrap();
        assert_eq!(source.name(), Some("imagenet1k"));
        assert_eq!(source.class_keys().unwrap(), ["n01440764", "n01443537"]);
        let expected =
            [("n01440764/ILSVRC2012_val_00000293", "n01440764"), ("n01440764/a", "n01440764"), ("n01443537/b", "n01443537")];
        assert_eq!(labels(&*source), pairs(&expected));
        assert_eq!(kinds(&*source), [SourceFaultKind::Orphan; 2]);
    }
}

const TRUTH: &str = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt";

#[test]
fn imagenet_flat_with_the_development_kit() {
    let folder = Folder::new();
    let image = |n: usize| format!("ILSVRC2012_val_{n:08}");
    folder.text(TRUTH, "3\n1\n2\n1\n");
    let lists = [("meta.mat", None), ("synsets.txt", Some("1 n02119789\n2 n02100735\n3\tn01440764\n"))];
    // The third is missing.
    for n in [1, 2, 4] {
        folder.put_all(&[&format!("val/{}.JPEG", image(n))]);
    }
    let members = [("ILSVRC2012_val_00000001.JPEG", b"x".as_slice()), ("ILSVRC2012_val_00000004.JPEG", b"x")];
    let packed = folder.put("packed/ILSVRC2012_img_val.tar", &tar(&members));
    for (name, text) in lists {
        match text {
            Some(text) => folder.text("synsets.txt", text),
            None => folder.mat(name),
        }
        let source = open(&folder.spec("imagenet", "")).unwrap();
        assert_eq!(source.class_keys().unwrap(), ["n01440764", "n02100735", "n02119789"], "{name}");
        let expected = [(1, "n01440764"), (2, "n02119789"), (4, "n02119789")].map(|(n, class)| (image(n), class.to_owned()));
        assert_eq!(labels(&*source), expected, "{name}");
        assert_eq!((kinds(&*source), source.faults()[0].place.clone()), (vec![SourceFaultKind::MissingImage], image(3)));
        let spec = folder.spec("imagenet", "");
        refused(&folder, &spec, TRUTH, "3\n1001\n", "line 2: '1001' is not among the 3 numbers");
        if text.is_some() {
            refused(&folder, &spec, "synsets.txt", "n01440764\nn01443537\n", "line 1: expected a number (ILSVRC2012_ID)");
            refused(&folder, &spec, "synsets.txt", "1 n01440764\n1 n01443537\n", "line 2: 1 or n01443537 comes twice");
        } else {
            refused(&folder, &spec, "meta.mat", "x", "level 5");
        }
        let _ = std::fs::remove_file(folder.path(name));
    }
    assert!(error(&folder.spec("imagenet", "")).to_string().contains("no meta.mat or synsets.txt"));
    // Kaggle's table needs no kit; images may lie in their tar.
    let table = "ImageId,PredictionString\nILSVRC2012_val_00000004,n03995372 85 1 499 272 n03995372 1 2 3 4 \nILSVRC2012_val_00000001,n01440764 1 2 3 4\n";
    let spec = format!("imagenet:{}", Path::new(&packed).parent().unwrap().display());
    assert!(error(&spec).to_string().contains("LOC_val_solution.csv"));
    folder.text("packed/LOC_val_solution.csv", table);
    let source = open(&spec).unwrap();
    assert_eq!(labels(&*source), [(4, "n03995372"), (1, "n01440764")].map(|(n, class)| (image(n), class.to_owned())));
    refused(&folder, &spec, "packed/LOC_val_solution.csv", "ImageId,b\nx.JPEG\n", "line 2: expected an image's name");
    let twice = "ImageId,PredictionString\nx,n01440764 1\nx,n01440764 1\n";
    // Without its heading, and with images that it does not name.
    folder.text("packed/LOC_val_solution.csv", "ILSVRC2012_val_00000004,n03995372 85 1 499 272\n");
    let source = open(&spec).unwrap();
    assert_eq!(labels(&*source), [(image(4), "n03995372".to_owned())]);
    assert_eq!((kinds(&*source), source.faults()[0].place.clone()), (vec![SourceFaultKind::Orphan], image(1) + ".JPEG"));
    refused(&folder, &spec, "packed/LOC_val_solution.csv", twice, "line 3: image 'x.JPEG' stands in line 2, too");
    assert!(error(&format!("imagenet:{}", folder.path("packed/none"))).to_string().contains("is no folder"));
    let empty = Folder::new();
    assert!(error(&empty.spec("imagenet", "")).to_string().contains("a folder a synset (n01440764)"));
}

#[test]
fn pets_are_called_as_their_images_are() {
    let folder = Folder::new();
    folder.put_all(&["images/Abyssinian_201.jpg", "images/american_bulldog_10.jpg", "images/Bengal_7.jpg"]);
    let list = "# name class species breed\nAbyssinian_201 1 1 1\nBengal_7 6 1 2\namerican_bulldog_10 2 2 1\nBengal_8 6 1 2\n";
    folder.text("annotations/test.txt", list);
    folder.text("annotations/trainval.txt", "Bengal_7 6 1 2\n");
    let spec = folder.spec("pets", "");
    let source = open(&spec).unwrap();
    assert_eq!(
        (source.name().filter(|_| source.is_published()), source.classes().unwrap()),
        (Some("pets"), ["Abyssinian", "american bulldog", "Bengal"].map(str::to_owned).as_slice())
    );
    let expected = [("Abyssinian_201", "Abyssinian"), ("Bengal_7", "Bengal"), ("american_bulldog_10", "american_bulldog")];
    assert_eq!(labels(&*source), pairs(&expected));
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage]);
    assert_eq!(keys(&*open(&folder.spec("pets", ",split=trainval")).unwrap()), ["Bengal_7"]);
    assert!(error(&folder.spec("pets", ",split=val")).to_string().contains("no split 'val' (there are test, trainval)"));
    for (text, words) in [
        ("Bengal_7 38 1 2\n", "line 1: class 38 is not among 1 to 37"),
        ("Bengal_7 0 1 2\n", "line 1: class 0 is not"),
        ("Bengal_7\n", "line 1: expected an image's name and its class"),
        ("Bengal_7 6 1 2\n\nBirman_1 6 1 2\n", "line 3: class 6 is Bengal, but the image is called Birman_1"),
        ("Bengal_7 6 1 2\nBengal_8 5 1 2\n", "two classes are called Bengal"),
        ("Bengal_7 6 1 2\nBengal_7 6 1 2\n", "line 2: image 'Bengal_7.jpg' stands in line 1, too"),
    ] {
        refused(&folder, &spec, "annotations/test.txt", text, words);
    }
    std::fs::remove_file(folder.path("annotations/test.txt")).unwrap();
    assert!(error(&spec).to_string().contains("test.txt"));
}

#[test]
fn textures_food_and_scenes_follow_their_lists() {
    let folder = Folder::new();
    folder.put_all(&["images/banded/banded_0002.jpg", "images/dotted/dotted_0001.jpg"]);
    folder.text("labels/test1.txt", "banded/banded_0002.jpg\ndotted/dotted_0001.jpg\ndotted/dotted_0003.jpg\n");
    folder.text("labels/val10.txt", "dotted/dotted_0001.jpg\n");
    let source = open(&folder.spec("dtd", "")).unwrap();
    assert_eq!(labels(&*source), pairs(&[("banded/banded_0002", "banded"), ("dotted/dotted_0001", "dotted")]));
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage]);
    assert_eq!(open(&folder.spec("dtd", ",split=val10")).unwrap().len(), 1);
    for split in ["test11", "test", "../x1"] {
        assert!(error(&folder.spec("dtd", &format!(",split={split}"))).to_string().contains("there is no split"), "{split}");
    }
    refused(&folder, &folder.spec("dtd", ""), "labels/test1.txt", "banded_0002.jpg\n", "line 1: expected CLASS/IMAGE");

    let folder = Folder::new();
    folder.put_all(&["images/apple_pie/1011328.jpg", "images/waffles/7.jpg"]);
    folder.text("meta/classes.txt", "apple_pie\nwaffles\n");
    folder.text("meta/test.txt", "waffles/7\napple_pie/1011328\n");
    let spec = folder.spec("food101", "");
    assert_eq!(open(&spec).unwrap().classes().unwrap(), ["apple pie", "waffles"]);
    folder.text("meta/labels.txt", "Apple pie\nWaffles\n");
    let source = open(&spec).unwrap();
    assert_eq!(source.classes().unwrap(), ["Apple pie", "Waffles"]);
    assert_eq!(labels(&*source), pairs(&[("waffles/7", "waffles"), ("apple_pie/1011328", "apple_pie")]));
    refused(&folder, &spec, "meta/test.txt", "waffles/7\nsushi/1\n", "line 2: 'sushi' is not among the 2 classes");
    refused(&folder, &spec, "meta/classes.txt", "waffles\nwaffles\n", "line 2: class 'waffles' comes twice");
    refused(&folder, &spec, "meta/labels.txt", "Waffles\n", "1 names, but classes.txt has 2");

    for (root, lists) in [("SUN397/", "Partitions/"), ("", "")] {
        let folder = Folder::new();
        folder.put_all(&[&format!("{root}a/abbey/sun_a.jpg"), &format!("{root}a/apse/indoor/sun_b.jpg")]);
        folder.text(&format!("{lists}ClassName.txt"), "/a/abbey\n/a/apse/indoor\n");
        let list = format!("{lists}Testing_01.txt");
        folder.text(&list, "/a/apse/indoor/sun_b.jpg\n/a/abbey/sun_a.jpg\n");
        let source = open(&folder.spec("sun397", "")).unwrap();
        assert_eq!(
            (source.name(), source.classes().unwrap()),
            (Some("sun397"), ["abbey", "apse indoor"].map(str::to_owned).as_slice())
        );
        assert_eq!(labels(&*source), pairs(&[("a/apse/indoor/sun_b", "a/apse/indoor"), ("a/abbey/sun_a", "a/abbey")]));
        assert!(error(&folder.spec("sun397", ",split=11")).to_string().contains("there are 1 to 10"));
        assert!(error(&folder.spec("sun397", ",split=2")).to_string().contains("Testing_02.txt"));
        refused(&folder, &folder.spec("sun397", ""), &list, "/a/alley/x.jpg\n", "line 1: 'a/alley' is not among the 2");
    }
}

#[test]
fn flowers_have_their_labels_in_matlabs_files() {
    let folder = Folder::new();
    folder.put_all(&["jpg/image_00001.jpg", "jpg/image_00003.jpg", "jpg/image_00005.jpg"]);
    ["imagelabels.mat", "setid.mat"].iter().for_each(|name| folder.mat(name));
    let spec = folder.spec("flowers102", "");
    let source = open(&spec).unwrap();
    assert_eq!((source.name(), source.classes().unwrap().len()), (Some("flowers"), 102));
    // In the order of the split; image 4 is not there.
    assert_eq!(labels(&*source), pairs(&[("image_00005", "3"), ("image_00003", "102")]));
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage]);
    assert_eq!(labels(&*open(&folder.spec("flowers102", ",split=train")).unwrap()), pairs(&[("image_00001", "77")]));
    refused(&folder, &spec, "setid.mat", "MATLAB 7.3 MAT-file", "version 7.3 (HDF5)");
    // Splits of more images than there are labels.
    folder.mat("kinds.mat");
    std::fs::rename(folder.path("kinds.mat"), folder.path("imagelabels.mat")).unwrap();
    assert!(error(&spec).to_string().contains("imagelabels.mat: it has no variable 'labels'"));
}

#[test]
fn caltechs_first_thirty_of_a_class_are_for_training() {
    let folder = Folder::new();
    let root = "101_ObjectCategories";
    for n in 1..=33 {
        folder.put_all(&[&format!("{root}/ant/image_{n:04}.jpg")]);
    }
    folder.put_all(&[&format!("{root}/BACKGROUND_Google/image_0001.jpg")]);
    folder.text(&format!("{root}/BACKGROUND_Google/tmp"), "");
    let of = |options: &str| keys(&*open(&folder.spec("caltech101", options)).unwrap());
    assert_eq!(of(""), ["ant/image_0031", "ant/image_0032", "ant/image_0033"]);
    assert_eq!((of(",split=train").len(), of(",split=all").len()), (31, 34));
    let source = open(&folder.spec("caltech101", "")).unwrap();
    assert_eq!(source.class_keys().unwrap(), ["BACKGROUND_Google", "ant"]);
    assert_eq!(kinds(&*source), [SourceFaultKind::Orphan]);
    folder.text("mine.txt", "ant/image_0002.jpg\nant/image_0099.jpg\n");
    let mine = format!(",split={}", folder.path("mine.txt"));
    assert_eq!(of(&mine), ["ant/image_0002"]);
    refused(&folder, &folder.spec("caltech101", &mine), "mine.txt", "bee/1.jpg\n", "line 1: 'bee/1.jpg' begins with none");
    assert!(error(&folder.spec("caltech101", ",split=val")).to_string().contains("no split 'val'"));
}

#[test]
fn clip_benchmarks_folders_of_shards() {
    let folder = Folder::new();
    folder.text("classnames.txt", "cat\ndog\n");
    folder.text("zeroshot_classification_templates.txt", "a photo of a {c}.\n");
    let image = png();
    folder.put("test/0.tar", &tar(&[("s0.cls", b"1\n"), ("s0.png", &image), ("s1.png", &image), ("s1.cls", b"0")]));
    folder.put("test/1.tar", &tar(&[("s0.png", &image), ("s0.cls", b"0"), ("s7.cls", b"0"), ("s8.png", &image)]));
    folder.text("test/nshards.txt", "2\n");
    let spec = folder.spec("wds", "");
    let source = open(&spec).unwrap();
    assert_eq!(labels(&*source), pairs(&[("0/s0", "1"), ("0/s1", "0"), ("1/s0", "0")]));
    assert_eq!(source.read(2).unwrap().image, image);
    assert_eq!(source.templates().unwrap(), ["a photo of a {}."]);
    assert_eq!(source.name(), folder.0.path().file_name().and_then(|name| name.to_str()));
    assert!(!source.is_published(), "the folder's name is not a published set's");
    assert_eq!(kinds(&*source), [SourceFaultKind::Orphan, SourceFaultKind::MissingImage]);
    refused(&folder, &spec, "test/nshards.txt", "two\n", "line 1: expected the number of tars");
    refused(&folder, &spec, "zeroshot_classification_templates.txt", "\na cat\n", "line 2: 'a cat' has no {c}");
    folder.text("test/nshards.txt", "3");
    assert!(error(&spec).to_string().contains("2.tar"));
    std::fs::remove_file(folder.path("test/nshards.txt")).unwrap();
    assert_eq!(open(&spec).unwrap().len(), 3);
    folder.put("test/1.tar", &tar(&[("s0.png", &image), ("s0.cls", b"2")]));
    assert!(error(&spec).to_string().contains("1.tar: s0.cls: class '2' is not among 0 to 1"));
    assert!(error(&folder.spec("wds", ",split=train")).to_string().contains("0.tar"));
}

#[test]
fn tables_of_labelled_images() {
    let folder = Folder::new();
    folder.put_all(&["a.png", "b.png", "c.png"]);
    folder.text("t.csv", "path,kind,id\na.png,cat,10\nb.png,dog,9\nnone.png,cat,9\nc.png,cat,9\n");
    let spec = |options: &str| format!("csv:{}{options}", folder.path("t.csv"));
    let source = open(&spec(",label=kind")).unwrap();
    assert_eq!(labels(&*source), pairs(&[("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat")]));
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage]);
    // No label is no class.
    folder.text("bare.csv", "path,kind\na.png,cat\nb.png,\nc.png,  \n");
    let bare = open(&format!("csv:{},label=kind", folder.path("bare.csv"))).unwrap();
    assert_eq!((labels(&*bare), kinds(&*bare)), (pairs(&[("a.png", "cat")]), vec![SourceFaultKind::BadRow; 2]));
    for twice in [",label=kind,label=id", ",label=kind,image=path,image=path"] {
        assert!(error(&spec(twice)).to_string().contains("stands there twice"), "{twice}");
    }
    // Numbers in their order, or that of a file, with names.
    assert_eq!(open(&spec(",label=id")).unwrap().class_keys().unwrap(), ["9", "10"]);
    folder.text("classes.txt", "dog\tsmall dog\ncow\ncat\n");
    let listed = spec(&format!(",label=kind,classes={}", folder.path("classes.txt")));
    let source = open(&listed).unwrap();
    assert_eq!(source.classes().unwrap(), ["small dog", "cow", "cat"]);
    assert_eq!(source.read(0).unwrap().class, Some(2));
    refused(&folder, &listed, "t.csv", "path,kind\na.png,cow\nb.png,bee\n", "line 3: label 'bee' is not among the 3 classes");
    refused(&folder, &listed, "t.csv", "path,kind\na.png,cow\na.png,cow\n", "line 3: image 'a.png' stands in line 2, too");
    refused(&folder, &listed, "classes.txt", "cat\ncat\n", "line 2: class 'cat' comes twice");
    for (options, words) in [
        (",label=colour", "no column for the label"),
        (",label=kind,caption=id", "neither captions nor sidecars"),
        (",classes=x", "goes with label=COLUMN"),
    ] {
        assert!(error(&spec(options)).to_string().contains(words), "{options}");
    }
}
