//! Lines of a TSV, found by reading it or through an index beside it.

use super::*;

#[test]
fn keys_are_checked_while_a_file_is_opened() {
    let folder = Folder::new();
    let long = format!("{}\t[]\n", "k".repeat(5000));
    for (text, words) in [
        ("a\t[]\nb\t[]\na\t[]\n", &["line 3 (byte 10)", "key 'a' again, first in line 1"][..]),
        ("a\t[]\nb []\nc\t[]\n", &["line 2 (byte 5)", "no key"]),
        ("a\t[]\n\nc\t[]\n", &["line 2", "no key"]),
        ("a\t[]\n\t[]\n", &["line 2", "the key is empty"]),
        (&long, &["line 1", "no key"]),
        ("no tab at all", &["line 1", "no key"]),
    ] {
        let file = folder.write("x.tsv", text);
        assert_has(&refusal(&format!("vinvl:{file}")), &[&[&*file], words].concat());
    }
    let file = folder.write("x.tsv", b"a\t[]\n\xff\t[]\n");
    assert_has(&refusal(&format!("vinvl:{file}")), &[&file, "line 2 (byte 5)", "UTF-8"]);
}

const ROWS: &str = "a\t[\"one\"]\nb\t[\"two\"]\nc\t[\"three\"]\n";

#[test]
fn an_index_of_lines_is_used_where_it_fits() {
    let folder = Folder::new();
    let file = folder.write("x.tsv", ROWS);
    for (index, offsets) in [("x.lineidx", "0\n10\n20\n"), ("x.tsv.lineidx", "0\r\n10\r\n20"), ("x.lineidx", "0\n10\n20\n32\n")] {
        let index = folder.write(index, offsets);
        let vinvl = opened(&format!("vinvl:{file}"));
        for (key, name) in [("a", "one"), ("b", "two"), ("c", "three")] {
            assert_eq!(names(&vinvl.find(key, SIZE).unwrap().unwrap()), [name]);
        }
        assert_eq!(vinvl.describe(), "VinVL TSV, 3 images");
        std::fs::remove_file(index).unwrap();
    }
}

#[test]
fn an_index_of_lines_that_does_not_fit_is_passed_over_and_told() {
    let folder = Folder::new();
    let file = folder.write("x.tsv", ROWS);
    for offsets in
        ["", "0\n10\n", "10\n20\n", "0\n11\n20\n", "0\n20\n10\n", "0\n10\n10\n20\n", "0\n10\n90\n", "0\nten\n20\n", "0\n2\n20\n"]
    {
        folder.write("x.lineidx", offsets);
        let vinvl = opened(&format!("vinvl:{file}"));
        assert_eq!(names(&vinvl.find("b", SIZE).unwrap().unwrap()), ["two"], "{offsets:?}");
        assert_has(&vinvl.describe(), &["3 images", ".lineidx that does not fit is not used"]);
    }
    // A line that is lacking in the middle shows when the one before it is read.
    folder.write("x.lineidx", "0\n20\n");
    let vinvl = opened(&format!("vinvl:{file}"));
    assert_has(&vinvl.find("a", SIZE).unwrap_err(), &[&file, "line 1", ".lineidx", "delete it"]);
    assert_eq!(names(&vinvl.find("c", SIZE).unwrap().unwrap()), ["three"]);
}

#[test]
fn rows_of_a_file_that_was_changed_since_are_errors() {
    let folder = Folder::new();
    let file = folder.write("x.tsv", ROWS);
    let vinvl = opened(&format!("vinvl:{file}"));
    std::fs::write(&file, &ROWS[..12]).unwrap();
    assert_has(&vinvl.find("c", SIZE).unwrap_err(), &[&file, "line 3"]);
    std::fs::write(&file, ROWS.replace('b', "x")).unwrap();
    assert_has(&vinvl.find("b", SIZE).unwrap_err(), &[&file, "line 2", "has changed"]);
}
