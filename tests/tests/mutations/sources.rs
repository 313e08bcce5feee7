//! Data sets and their parts.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use softclip_data::image::{DecodeOptions, Decoder};
use softclip_data::source::{self, SampleErrorKind, Source};

use super::{Format, Outcome, Reader};

/// Samples of every valid data set.
const SAMPLES: usize = 12;

/// An image that is different for each sample.
fn png(i: usize) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, i as u8 * 15]));
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for i in 0..SAMPLES {
        add(format!("{i:05}.png"), &png(i));
        add(format!("{i:05}.json"), format!(r#"{{"captions": ["a picture of {i}", "number {i}"], "width": 9}}"#).as_bytes());
        add(format!("{i:05}.txt"), format!("a picture of {i}").as_bytes());
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a source comes down to.
struct Account {
    usable: usize,
    captions: usize,
    counted: usize,
    panic: Option<String>,
}

fn account(source: &dyn Source) -> Account {
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    let mut account = Account { usable: 0, captions: 0, counted: source.faults().len(), panic: None };
    for i in 0..source.len() {
        let found = source.read(i).map_err(|e| (e.kind, e.to_string())).and_then(|sample| {
            decoder.decode(&sample.image).map_err(|e| (SampleErrorKind::CorruptImage, e.to_string()))?;
            Ok(sample.captions.len())
        });
        match found {
            Ok(captions) => {
                account.usable += 1;
                account.captions += captions;
            }
            Err((kind, why)) => {
                account.counted += 1;
                if kind == SampleErrorKind::Panic {
                    account.panic = Some(why);
                }
            }
        }
    }
    account
}

/// Opens `spec` with the folder for `{}` and reads all samples.
fn opened(spec: &'static str) -> Reader {
    opened_with(spec, 0)
}

/// As [`opened`], of a format in which no damage makes another valid file: of `samples`, those that are gone must be counted.
fn opened_with(spec: &'static str, samples: usize) -> Reader {
    Box::new(move |folder, _| {
        let source = match source::open(&spec.replace("{}", folder.to_str().unwrap())) {
            Ok(source) => source,
            Err(e) => return Outcome::Refused(e.to_string()),
        };
        let found = account(source.as_ref());
        Outcome::Read(match found.panic {
            Some(why) => Err(why),
            None if found.usable < samples && found.counted == 0 => {
                Err(format!("{} of {samples} samples are usable and nothing is counted", found.usable))
            }
            None => Ok(()),
        })
    })
}

/// As [`opened`], of a table in which every line behind the header is a caption or is counted.
fn table(spec: &'static str) -> Reader {
    let opened = opened(spec);
    Box::new(move |folder, bytes| {
        let outcome = opened(folder, bytes);
        let Outcome::Read(Ok(())) = outcome else { return outcome };
        let Ok(source) = source::open(&spec.replace("{}", folder.to_str().unwrap())) else {
            return Outcome::Read(Err("refused the second time".to_owned()));
        };
        let found = account(source.as_ref());
        // Quotes join lines, and a lone carriage return is a character of its cell.
        let simple = !bytes.contains(&b'"') && !bytes.contains(&b'\r');
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count().saturating_sub(1);
        // Rows with the same image are one sample, and are counted together where there is none.
        let rows = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).skip(1);
        let images: std::collections::HashSet<_> = rows.map(|row| row.split(|b| b",\t|;".contains(b)).next()).collect();
        let sum = found.captions + found.counted + lines.saturating_sub(images.len());
        Outcome::Read(match simple && sum < lines {
            true => Err(format!(
                "{} captions and {} counted of {lines} rows: {:?}",
                found.captions,
                found.counted,
                String::from_utf8_lossy(bytes)
            )),
            false => Ok(()),
        })
    })
}

/// Writes a folder for a format.
fn folder(place: &Path, name: &'static str, files: &[(&'static str, Vec<u8>)]) -> std::path::PathBuf {
    let folder = place.join(name);
    for (file, bytes) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn images(place: &Path, name: &'static str) {
    for i in 0..SAMPLES {
        fs::create_dir_all(place.join(name)).unwrap();
        fs::write(place.join(name).join(format!("{i:05}.png")), png(i)).unwrap();
    }
}

fn coco(place: &Path) -> Vec<Format> {
    let list = |item: fn(usize) -> String| (0..SAMPLES).map(item).collect::<Vec<_>>().join(",");
    let pictures = list(|i| format!(r#"{{"id":{i},"file_name":"{i:05}.png","width":9,"height":7}}"#));
    let captions = list(|i| format!(r#"{{"id":{},"image_id":{i},"caption":"picture {i}"}}"#, i + 100));
    let boxes = list(|i| format!(r#"{{"id":{i},"image_id":{i},"category_id":1,"iscrowd":0,"bbox":[1.5,1,4,3]}}"#));
    let coco = format!(r#"{{"images":[{pictures}],"annotations":[{captions}]}}"#).into_bytes();
    let instances =
        format!(r#"{{"images":[{pictures}],"annotations":[{boxes}],"categories":[{{"id":1,"name":"bus"}}]}}"#).into_bytes();
    let sentences = list(|i| {
        format!(r#"{{"filename":"{i:05}.png","imgid":{i},"split":"test","sentences":[{{"raw":"picture {i}","tokens":["a"]}}]}}"#)
    });
    let karpathy = format!(r#"{{"images":[{sentences}],"dataset":"coco"}}"#).into_bytes();
    let make = |name, file: &'static str, files: &[(&'static str, Vec<u8>)], spec, samples| {
        let folder = folder(place, name, files);
        images(&folder, "images");
        Format { name, folder, file, inputs: 1.0, read: opened_with(spec, samples) }
    };
    let both = [("captions.json", coco.clone()), ("instances.json", instances)];
    vec![
        make("coco", "captions.json", &[("captions.json", coco)], "coco:{}/captions.json,{}/images", SAMPLES),
        make("coco-instances", "instances.json", &both, "coco:{}/captions.json,{}/images,instances={}/instances.json", SAMPLES),
        make("karpathy", "k.json", &[("k.json", karpathy)], "karpathy:{}/k.json,{}/images,split=test", 0),
    ]
}

fn tables(place: &Path) -> Vec<Format> {
    let rows = |delimiter: char| {
        let rows = (0..SAMPLES).map(|i| format!("images/{i:05}.png{delimiter}a picture of {i}\n"));
        format!("filepath{delimiter}caption\n{}", rows.collect::<String>()).into_bytes()
    };
    let quoted = (0..SAMPLES).map(|i| format!("images/{i:05}.png,\"a picture, of \"\"{i}\"\"\"\n")).collect::<String>();
    let make = |name, file: &'static str, bytes: Vec<u8>, read| {
        let folder = folder(place, name, &[(file, bytes)]);
        images(&folder, "images");
        Format { name, folder, file, inputs: 1.0, read }
    };
    vec![
        make("csv", "t.csv", rows(','), table("csv:{}/t.csv")),
        make("csv-quoted", "q.csv", format!("filepath,caption\n{quoted}").into_bytes(), opened("csv:{}/q.csv")),
        make("tsv", "t.tsv", rows('\t'), table("tsv:{}/t.tsv")),
    ]
}

fn flowers(place: &Path) -> Format {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/mat");
    let mat = |name: &str| fs::read(goldens.join(name)).unwrap();
    let files = [("imagelabels.mat", mat("imagelabels.mat")), ("setid.mat", mat("setid.mat"))];
    let folder = folder(place, "flowers", &files);
    fs::create_dir(folder.join("jpg")).unwrap();
    (1..=5).for_each(|i| fs::write(folder.join(format!("jpg/image_{i:05}.jpg")), png(i)).unwrap());
    let read = |folder: &Path, _: &[u8]| Outcome::of(source::open(&format!("flowers102:{}", folder.display())));
    Format { name: "mat", folder, file: "imagelabels.mat", inputs: 1.0, read: Box::new(read) }
}

pub fn formats(place: &Path) -> Vec<Format> {
    let one = |name, file: &'static str, bytes, inputs, read| Format {
        name,
        folder: folder(place, name, &[(file, bytes)]),
        file,
        inputs,
        read,
    };
    let mut all = vec![
        one("tar", "s.tar", tar(), 2.0, opened_with("{}/s.tar", SAMPLES)),
        one("tar.gz", "s.tar.gz", gzip(&tar()), 0.5, opened_with("{}/s.tar.gz", SAMPLES)),
        one("list", "list.txt", b"a.tar\nb.tar\n".to_vec(), 0.5, opened("{}/list.txt")),
    ];
    let list = &all[2].folder;
    ["a.tar", "b.tar"].iter().for_each(|name| fs::write(list.join(name), tar()).unwrap());
    // The list has relative paths, which are relative to the working folder: make them absolute.
    let absolute = format!("{0}/a.tar\n", list.display());
    fs::write(list.join("list.txt"), absolute).unwrap();
    all.extend(coco(place));
    all.extend(tables(place));
    all.push(flowers(place));
    all
}
