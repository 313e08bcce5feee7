//! The keys that a file names, and which of them is an image's.

use std::path::Path;

/// Extensions of images, which a key may have or lack.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// A key that comes twice, with the numbers of both entries.
#[derive(Debug, PartialEq)]
pub(super) struct Twice {
    pub(super) key: Box<str>,
    pub(super) first: usize,
    pub(super) again: usize,
}

/// The keys of a file in its order, to be found by their short forms.
#[derive(Debug)]
pub(super) struct Keys {
    names: Vec<Box<str>>,
    /// Numbers of the names, sorted by short form.
    order: Vec<u32>,
}

impl Keys {
    pub(super) fn new(mut names: Vec<Box<str>>) -> Result<Self, Twice> {
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        let form = |i: &u32| {
            let name = &*names[*i as usize];
            (short(name), name, *i)
        };
        order.sort_unstable_by(|a, b| form(a).cmp(&form(b)));
        let pairs = order.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize));
        match pairs.filter(|&(first, again)| names[first] == names[again]).min_by_key(|pair| pair.1) {
            Some((first, again)) => Err(Twice { key: std::mem::take(&mut names[again]), first, again }),
            None => Ok(Self { names, order }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }

    /// The number of the entry that is meant by a key; none if there is no such; an error if there are several.
    pub(super) fn find(&self, key: &str) -> Result<Option<usize>, String> {
        let form = short(key);
        let from = self.order.partition_point(|&i| short(&self.names[i as usize]) < form);
        let alike = self.order[from..].iter().map(|&i| i as usize).take_while(|&i| short(&self.names[i]) == form);
        for fits in [str::eq as fn(&str, &str) -> bool, same, folders_agree] {
            let mut hits = alike.clone().filter(|&i| fits(&self.names[i], key));
            match (hits.next(), hits.next()) {
                (Some(a), Some(b)) => {
                    let (a, b) = (&self.names[a], &self.names[b]);
                    return Err(format!("'{key}' may be '{a}' or '{b}': name images in the file as the source does"));
                }
                (Some(only), None) => return Ok(Some(only)),
                (None, _) => {}
            }
        }
        Ok(None)
    }
}

/// Whether two keys differ in their images' extension at most.
pub(super) fn same(a: &str, b: &str) -> bool {
    bare(a) == bare(b)
}

/// Whether the folders of one key end those of the other: `train/1` is neither `val/1` nor in doubt beside it.
fn folders_agree(a: &str, b: &str) -> bool {
    let folders = |key| Path::new(str::rsplit_once(key, '/').map_or("", |(folders, _)| folders));
    let (a, b) = (folders(a), folders(b));
    a.ends_with(b) || b.ends_with(a)
}

/// The key without its image's extension.
fn bare(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() && EXTENSIONS.iter().any(|known| end.eq_ignore_ascii_case(known)) => stem,
        _ => key,
    }
}

/// The last part of a key without extension, COCO's prefix and leading zeros.
pub(super) fn short(key: &str) -> &str {
    let last = bare(key.rsplit_once('/').map_or(key, |(_, last)| last));
    let number = coco_number(last).unwrap_or(last);
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return last;
    }
    match number.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

/// The digits of `COCO_train2014_000000391895`.
fn coco_number(name: &str) -> Option<&str> {
    let (split, digits) = name.strip_prefix("COCO_")?.split_once('_')?;
    let year = ["train", "val", "test"].iter().find_map(|known| split.strip_prefix(known))?;
    (year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Keys {
        Keys::new(names.iter().map(|&name| name.into()).collect()).unwrap()
    }

    #[test]
    fn short_forms_are_what_file_names_share() {
        for (key, form) in [
            ("COCO_train2014_000000391895", "391895"),
            ("images/COCO_val2014_000000000042.jpg", "42"),
            ("train2017/000000391895.JPG", "391895"),
            ("0000", "0"),
            ("COCO_train2014_x", "COCO_train2014_x"),
            ("COCO_2014_7", "COCO_2014_7"),
            ("COCO_train2014_", "COCO_train2014_"),
            ("00ab", "00ab"),
            ("v1.5", "v1.5"),
            (".jpg", ".jpg"),
            ("a/", ""),
            ("", ""),
        ] {
            assert_eq!(short(key), form, "{key}");
        }
    }

    #[test]
    fn the_exact_key_wins_then_the_one_that_is_alike() {
        let found = |names: &[&str], key| keys(names).find(key);
        assert_eq!(found(&["391895", "COCO_train2014_000000391895"], "391895"), Ok(Some(0)));
        assert_eq!(found(&["391895", "42"], "train2014/COCO_train2014_000000391895.jpg"), Ok(Some(0)));
        assert_eq!(found(&["x.jpg", "x.png"], "x.png"), Ok(Some(1)));
        assert_eq!(found(&["b.jpg", "a/b.jpg"], "a/b"), Ok(Some(1)));
        assert_eq!(found(&["train/1", "val/1"], "coco/val/1"), Ok(Some(1)));
        assert_eq!(found(&["train/1"], "val/1"), Ok(None));
        assert_eq!(found(&["a", "b"], "c"), Ok(None));
        assert_eq!(found(&[], "c"), Ok(None));
    }

    #[test]
    fn what_may_be_two_entries_is_an_error() {
        for (names, key) in [
            (["007", "7"], "00007"),
            (["x.jpg", "x.png"], "x"),
            (["train/1", "val/1"], "1"),
            (["a/7", "COCO_val2014_7"], "7.jpg"),
        ] {
            let error = keys(&names).find(key).unwrap_err();
            assert!(names.iter().all(|name| error.contains(&format!("'{name}'"))), "{error}");
        }
    }

    #[test]
    fn a_key_twice_is_told_with_both_places() {
        let names = ["b", "a", "c", "a", "b", "a"].map(Into::into).to_vec();
        assert_eq!(Keys::new(names).unwrap_err(), Twice { key: "a".into(), first: 1, again: 3 });
    }
}
