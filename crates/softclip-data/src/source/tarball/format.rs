//! What a file is that was named as a tar and is not one.

use std::path::Path;

/// Returns what a file is by its first bytes, and what to do; `None` if it has no known format.
pub(super) fn describe(head: &[u8], path: &Path) -> Option<String> {
    let path = path.display();
    let packed = |name: &str, command: &str| Some(format!("it is compressed with {name}: unpack it with `{command}`"));
    match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => packed("zstd", &format!("zstd -d {path}")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => packed("xz", &format!("xz -dk {path}")),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', ..] => packed("bzip2", &format!("bzip2 -dk {path}")),
        [0x04, 0x22, 0x4d, 0x18, ..] => packed("lz4", &format!("lz4 -d {path}")),
        [b'L', b'Z', b'I', b'P', ..] => packed("lzip", &format!("lzip -dk {path}")),
        [0x5d, 0, 0, ..] => packed("lzma", &format!("unlzma -k {path}")),
        [0x1f, 0x9d, ..] => packed("compress", &format!("uncompress -k {path}")),
        [0x1f, 0x8b, ..] => packed("gzip twice", &format!("gunzip -k {path}")),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(repack("zip archive")),
        [b'7', b'z', 0xbc, 0xaf, ..] => Some(repack("7z archive")),
        [b'R', b'a', b'r', b'!', ..] => Some(repack("RAR archive")),
        [b'P', b'A', b'R', b'1', ..] => Some(repack("Parquet file")),
        [0xff, 0xd8, 0xff, ..] => Some("it is a JPEG image: name the folder or the tar that holds the images".to_owned()),
        [0x89, b'P', b'N', b'G', ..] => Some("it is a PNG image: name the folder or the tar that holds the images".to_owned()),
        _ => describe_text(head),
    }
}

fn repack(what: &str) -> String {
    format!("it is a {what}: unpack it, and pack its files with `tar --sort=name -cf NAME.tar -C FOLDER .`")
}

fn describe_text(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(softclip_io::strip_bom(head));
    let text = text.trim_start().to_ascii_lowercase();
    let again = "download the file again, and check what the server asks for (a login, a confirmation, another address)";
    if text.starts_with("version https://git-lfs.") {
        return Some("it is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`".to_owned());
    }
    if ["<!doctype html", "<html", "<head", "<body"].iter().any(|start| text.starts_with(start)) {
        return Some(format!("it is a web page (HTML): {again}"));
    }
    if text.starts_with("<?xml") || text.starts_with("<error") {
        return Some(format!("it is an XML answer of a server: {again}"));
    }
    // A header begins with a name, which may begin with a brace: a quote must follow.
    (text.starts_with("{\"") || text.starts_with("[{")).then(|| "it is JSON text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        let of = |head: &[u8]| describe(head, Path::new("a.tar")).unwrap_or_default();
        assert!(of(b"\x28\xb5\x2f\xfd\x04").contains("`zstd -d a.tar`"));
        assert!(of(b"\xfd7zXZ\0\0").contains("`xz -dk a.tar`"));
        assert!(of(b"BZh91AY&SY").contains("`bzip2 -dk a.tar`"));
        assert!(of(b"PK\x03\x04").contains("zip archive"));
        assert!(of(b"version https://git-lfs.github.com/spec/v1\noid").contains("`git lfs pull`"));
        assert!(of(b"\xef\xbb\xbf\r\n <!DOCTYPE HTML>").contains("HTML"));
        assert!(of(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied").contains("XML answer"));
        assert!(of(b"{\"error\": 1}").contains("JSON"));
        assert_eq!(of(b"BZh is a name"), "");
        assert_eq!(of(b""), "");
    }
}
