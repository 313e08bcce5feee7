use std::collections::BTreeSet;

use softclip_data::source::open;

use super::*;

#[test]
fn sets_have_as_many_templates_as_their_names_say() {
    let all = Prompts::named("imagenet80").unwrap();
    let mut distinct = all.templates.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 80);
    let seven = Prompts::named("imagenet7").unwrap();
    assert!(seven.templates.iter().all(|template| all.templates.contains(template)));
    assert!(all.templates.iter().all(|template| template.matches("{}").count() == 1 && template.ends_with('.')));
    assert_eq!(Prompts::named("simple").unwrap().of("red fox").collect::<Vec<_>>(), ["a photo of a red fox."]);
}

#[test]
fn published_sets_have_all_their_classes_and_templates() {
    // Classes, templates, and a class with a name that does not follow from its key.
    let expected = [
        ("imagenet1k", 1000, 80, "n02012849", "crane bird"),
        ("pets", 37, 1, "american_pit_bull_terrier", "american pit bull terrier"),
        ("caltech101", 102, 34, "yin_yang", "yin and yang symbol"),
        ("dtd", 47, 8, "polka-dotted", "polka-dotted"),
        ("food101", 101, 1, "creme_brulee", "creme brulee"),
        ("flowers", 102, 1, "12", "colt's foot"),
        ("sun397", 397, 2, "w/wine_cellar/bottle_storage", "wine cellar bottle storage"),
    ];
    assert_eq!(PUBLISHED.map(|set| set.name), expected.map(|row| row.0));
    for (set, classes, templates, key, name) in expected {
        let names = ClassNames::named(set).unwrap();
        assert_eq!((names.entries.len(), lines(published(set).unwrap().templates).len()), (classes, templates), "{set}");
        assert_eq!(names.entries[names.ids(&[key.to_owned()]).unwrap()[0]].1, name, "{set}");
        assert!(lines(published(set).unwrap().templates).iter().all(|template| template.matches("{}").count() == 1), "{set}");
        // CLIP's authors call two pairs of ImageNet's classes alike.
        let distinct: BTreeSet<&str> = names.entries.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(classes - distinct.len(), if set == "imagenet1k" { 2 } else { 0 }, "{set}");
    }
    let mut wnids: Vec<String> = ClassNames::named("imagenet1k").unwrap().entries.into_iter().map(|(key, _)| key).collect();
    assert!(wnids.is_sorted() && wnids.iter().all(|wnid| wnid.len() == 9 && wnid.starts_with('n')));
    wnids.dedup();
    assert_eq!(wnids.len(), 1000);
}

#[test]
fn files_are_read_and_their_faults_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.txt");
    let name = path.display().to_string();
    let file = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Prompts::named(&name)
    };
    assert_eq!(file("a {} here\n\nthe {c}\n").unwrap().templates, ["a {} here", "the {}"]);
    assert_eq!(file("\u{feff}a {} here\r\nthe {c}\r\n").unwrap().templates, ["a {} here", "the {}"]);
    assert_eq!(file("\u{feff}[\"a {} here\", \"the {c}\"]\n").unwrap().templates, ["a {} here", "the {}"]);
    assert_eq!(file("[\n  \"a {} here\"\n]").unwrap().templates, ["a {} here"]);
    assert_eq!(file("[a] {}\n").unwrap().templates, ["[a] {}"]);
    for (text, words) in [
        ("[\"a {}\", \"b\"]", "template 2: `b` has no {}"),
        ("[\"a {}\"", "nor a JSON list of templates"),
        ("['a {}']", "Python's notation"),
        ("{\"imagenet1k\": [\"a {}\"]}", "a JSON object"),
        ("[\"\", 3]", "nor a JSON list of templates"),
        ("a {}\nb\0{}\n", "line 2: a NUL byte"),
    ] {
        let message = file(text).unwrap_err().to_string();
        assert!(message.contains(words), "{text}: {message}");
    }
    assert!(file("a {}\nnothing\n").unwrap_err().to_string().contains("line 2: `nothing` has no {}"));
    assert!(file("\n").unwrap_err().to_string().contains("no template"));
    assert!(Prompts::named("imagenet81").unwrap_err().to_string().contains("neither clip, simple"));
    let names = |text: &str| {
        std::fs::write(&path, text).unwrap();
        ClassNames::named(&name)
    };
    let keys = ["b", "a"].map(str::to_owned);
    assert_eq!(names("\u{feff}b\tB\r\na\tA\r\n").unwrap().ids(&keys).unwrap(), [0, 1]);
    assert_eq!(names("a\tan A\n\nc\tC\nb\tB\n").unwrap().ids(&keys).unwrap(), [2, 0]);
    for (text, words) in [
        ("a\tA\nb B\n", "line 2: expected the data set's key of the class, a tab"),
        ("a\t\n", "line 1: expected"),
        ("a\tA\nb\tB\na\tA\n", "line 3: class a stands in line 1, too"),
    ] {
        assert!(names(text).unwrap_err().to_string().contains(words), "{text:?}");
    }
    let message = names("a\tA\n").unwrap().ids(&keys).unwrap_err().to_string();
    assert!(message.contains("1 of the data set's 2 classes have no name, b the first"), "{message}");
    assert!(ClassNames::named("imagenet").unwrap_err().to_string().contains("imagenet1k, pets"));
}

#[test]
fn what_is_written_out_is_what_is_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let set = published("pets").unwrap();
    let [names, templates] = set.write(folder.path()).unwrap().map(|path| path.display().to_string());
    assert_eq!(ClassNames::named(&names).unwrap().entries, ClassNames::named("pets").unwrap().entries);
    assert_eq!(Prompts::named(&templates).unwrap().templates, ["a photo of a {}, a type of pet."]);
    assert!(set.write(folder.path()).unwrap_err().to_string().contains("there already"));
}

/// Data whose folder is called "pets".
struct Called(std::sync::Arc<dyn Source>);

impl Source for Called {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> String {
        self.0.key(index)
    }

    fn read(&self, index: usize) -> Result<softclip_data::source::Sample, softclip_data::source::SampleError> {
        self.0.read(index)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn name(&self) -> Option<&str> {
        Some("pets")
    }

    fn classes(&self) -> Option<&[String]> {
        self.0.classes()
    }

    fn class_keys(&self) -> Option<&[String]> {
        self.0.class_keys()
    }
}

#[test]
fn prompts_suit_the_data_set() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["images/banded/1.jpg", "images/dotted/1.jpg", "other/banded/1.jpg"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    std::fs::create_dir(folder.path().join("labels")).unwrap();
    std::fs::write(folder.path().join("labels/test1.txt"), "banded/1.jpg\ndotted/1.jpg\n").unwrap();
    let dtd = open(&format!("dtd:{}", folder.path().display())).unwrap();
    let found = Prompts::suited(&*dtd, None, None).unwrap();
    assert_eq!((found.name.as_str(), found.templates.len(), found.classes.unwrap().entries.len()), ("clip", 8, 47));
    let simple = Prompts::suited(&*dtd, Some("simple"), None).unwrap();
    assert_eq!((simple.templates.len(), simple.classes.as_ref().unwrap().name.as_str()), (1, "dtd"));
    assert!(Prompts::suited(&*dtd, None, Some("pets")).unwrap_err().to_string().contains("2 of the data set's 2 classes"));
    assert!(simple.classes.unwrap().own && !ClassNames::named("dtd").unwrap().own);
    // A folder that is called like a published set is not that set.
    let called = Called(open(&format!("folder:{}/other", folder.path().display())).unwrap());
    assert_eq!(Prompts::suited(&called, None, None).unwrap(), Prompts::named("simple").unwrap());
    let other = open(&format!("folder:{}/other", folder.path().display())).unwrap();
    assert_eq!(Prompts::suited(&*other, None, None).unwrap(), Prompts::named("simple").unwrap());
    assert!(Prompts::suited(&*other, Some("clip"), None).unwrap_err().to_string().contains("only published data sets"));
    // One of 47 classes has images, and 47 are told apart.
    assert_eq!(Prompts::suited(&*other, None, Some("dtd")).unwrap().classes.unwrap().entries.len(), 47);
}
