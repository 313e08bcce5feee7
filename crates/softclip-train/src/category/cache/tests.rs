use super::*;

const ID: [u8; 32] = [7; 32];

fn group(names: &[&str]) -> Vec<(Key, Vec<f32>)> {
    names.iter().map(|name| (key(name), vec![name.len() as f32, 0.5, -1.0])).collect()
}

fn open(root: &Path) -> Cache {
    Cache::open(root, &ID, 3).unwrap()
}

fn has(cache: &mut Cache, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| cache.get(&key(name)).is_some_and(|row| row == [name.len() as f32, 0.5, -1.0])).collect()
}

fn files(root: &Path, extension: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(root).unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

#[test]
fn what_was_put_is_found_again_at_every_opening() {
    let root = tempfile::tempdir().unwrap();
    let mut first = open(root.path());
    first.put(&group(&["a", "bb"])).unwrap();
    first.put(&group(&["", "cccc"])).unwrap();
    assert_eq!((first.len(), has(&mut first, &["a", "bb", "", "cccc", "d"])), (4, vec![true, true, true, true, false]));
    drop(first);
    let mut again = open(root.path());
    assert_eq!(has(&mut again, &["a", "bb", "", "cccc", "d"]), [true, true, true, true, false]);
    again.put(&group(&["d"])).unwrap();
    again.sync().unwrap();
    drop(again);
    assert_eq!(open(root.path()).len(), 5);
    assert_eq!(files(root.path(), "keys").len(), 1);
}

#[test]
fn a_torn_tail_is_cut_back_to_the_last_whole_group() {
    let root = tempfile::tempdir().unwrap();
    {
        let mut cache = open(root.path());
        cache.put(&group(&["a", "bb"])).unwrap();
        cache.put(&group(&["ccc", "dddd", "eeeee"])).unwrap();
    }
    let (keys, vectors) = (files(root.path(), "keys").remove(0), files(root.path(), "vectors").remove(0));
    let (all_keys, all_vectors) = (fs::read(&keys).unwrap(), fs::read(&vectors).unwrap());
    assert_eq!((all_keys.len(), all_vectors.len()), (64 + 5 * 24, 5 * 12));
    // Wherever the keys end, in the header too; vectors that have no key; keys whose vectors are gone.
    for (k, v) in (0..all_keys.len()).map(|k| (k, 60)).chain((0..60).map(|v| (all_keys.len(), v))) {
        fs::write(&keys, &all_keys[..k]).unwrap();
        fs::write(&vectors, &all_vectors[..v]).unwrap();
        let whole = if k >= 64 + 2 * 24 && v >= 24 { 2 } else { 0 };
        let mut cache = open(root.path());
        assert_eq!((cache.len(), cache.writer.as_ref().unwrap().rows), (whole, whole as u32), "{k} {v}");
        assert_eq!(fs::metadata(&vectors).unwrap().len(), 12 * whole as u64, "{k} {v}");
        // What comes next does not meet what was torn.
        cache.put(&group(&["ffffff"])).unwrap();
        drop(cache);
        assert_eq!(has(&mut open(root.path()), &["a", "bb", "ffffff"]), [whole == 2, whole == 2, true]);
    }
}

#[test]
fn processes_share_what_was_written_and_never_a_file() {
    let root = tempfile::tempdir().unwrap();
    let mut one = open(root.path());
    one.put(&group(&["a"])).unwrap();
    let mut two = open(root.path());
    assert_eq!(has(&mut two, &["a"]), [true], "another's whole groups are read");
    two.put(&group(&["bb"])).unwrap();
    one.put(&group(&["ccc", "bb"])).unwrap();
    assert_eq!(has(&mut one, &["a", "bb", "ccc"]), [true; 3]);
    drop((one, two));
    assert_eq!(files(root.path(), "keys").len(), 2);
    assert_eq!(has(&mut open(root.path()), &["a", "bb", "ccc"]), [true; 3]);
}

#[test]
fn many_that_open_at_once_each_write_their_own() {
    let root = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for i in 0..8usize {
            let root = root.path();
            scope.spawn(move || {
                let mut cache = open(root);
                for j in 0..20usize {
                    let name = "x".repeat(1 + i * 20 + j);
                    cache.put(&group(&[&name])).unwrap();
                }
            });
        }
    });
    let names: Vec<String> = (1..=160).map(|n| "x".repeat(n)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(has(&mut open(root.path()), &names), vec![true; 160]);
}

#[test]
fn a_disk_that_takes_no_more_costs_the_new_texts_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut cache = open(root.path());
    cache.put(&group(&["a"])).unwrap();
    let writer = cache.writer.as_mut().unwrap();
    writer.keys = File::open(files(root.path(), "keys").remove(0)).unwrap(); // not to be written to
    assert!(cache.put(&group(&["bb", "ccc"])).is_err());
    cache.put(&group(&["dddd"])).unwrap(); // told of once
    assert_eq!(has(&mut cache, &["a", "bb", "ccc", "dddd"]), [true, false, false, false]);
    drop(cache);
    let mut again = open(root.path());
    again.put(&group(&["bb"])).unwrap();
    drop(again);
    assert_eq!(has(&mut open(root.path()), &["a", "bb", "ccc"]), [true, true, false]);
}

#[test]
fn files_count_whatever_their_numbers() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(root.path()), open(root.path()));
    one.put(&group(&["a"])).unwrap();
    two.put(&group(&["bb"])).unwrap();
    let folder = one.folder().to_owned();
    drop((one, two));
    ["keys", "vectors"].iter().for_each(|e| fs::remove_file(folder.join(format!("0000.{e}"))).unwrap());
    ["0001.keys.swp", "2.keys", "notes.keys"].iter().for_each(|name| fs::write(folder.join(name), b"?").unwrap());
    assert_eq!(has(&mut open(root.path()), &["a", "bb"]), [false, true]);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_read() {
    use std::os::unix::fs::PermissionsExt;

    let root = tempfile::tempdir().unwrap();
    let mut cache = open(root.path());
    cache.put(&group(&["a"])).unwrap();
    let folder = cache.folder().to_owned();
    drop(cache);
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    ["0000.keys", "0000.vectors"].iter().for_each(|name| allow(&folder.join(name), 0o444));
    // A file of another user; one's own is made beside it.
    let mut beside = open(root.path());
    beside.put(&group(&["bb"])).unwrap();
    drop(beside);
    fs::read_dir(&folder).unwrap().for_each(|entry| allow(&entry.unwrap().path(), 0o444));
    allow(&folder, 0o555);
    let free = File::create(folder.join("any")).is_ok(); // as root
    let mut cache = open(root.path());
    assert!(free || cache.writer.is_none());
    cache.put(&group(&["ccc"])).unwrap();
    assert_eq!(has(&mut cache, &["a", "bb", "ccc"]), [true, true, free]);
    allow(&folder, 0o755);
}

#[test]
fn another_encoder_has_another_folder_and_damage_is_no_hit() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).put(&group(&["a", "bb"])).unwrap();
    assert_eq!(Cache::open(root.path(), &[8; 32], 3).unwrap().len(), 0);
    fs::remove_dir_all(Cache::open(root.path(), &[8; 32], 3).unwrap().folder()).unwrap();
    let vectors = files(root.path(), "vectors").remove(0);
    let mut bytes = fs::read(&vectors).unwrap();
    bytes[13] ^= 1;
    fs::write(&vectors, bytes).unwrap();
    assert_eq!(has(&mut open(root.path()), &["a", "bb"]), [true, false]);
    let keys = files(root.path(), "keys").remove(0);
    let mut bytes = fs::read(&keys).unwrap();
    bytes[9] ^= 1;
    fs::write(&keys, bytes).unwrap();
    let error = Cache::open(root.path(), &ID, 3).err().unwrap().to_string();
    assert!(error.contains("0000.keys") && error.contains("remove it"), "{error}");
}
