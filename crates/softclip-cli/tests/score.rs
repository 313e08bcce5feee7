//! `softclip score` as a shell sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 1, heads: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
loss: {name: clip}
train: {steps: 1, batch_size: 8, lr: 1.0e-3}
";

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_softclip")).args(args).current_dir(folder).env("OMP_NUM_THREADS", "1").output().unwrap()
}

/// Standard output and standard error of a command that ends with `status`.
fn ends(folder: &Path, args: &[&str], status: i32) -> (String, String) {
    let out = run(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, stdout, stderr) = (out.status.code(), text(out.stdout), text(out.stderr));
    assert_eq!(code, Some(status), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    (stdout, stderr)
}

/// A folder with a model, `run`, and an image, `data/x.jpg`.
fn world() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let at = |name: &str| folder.join(name);
    ends(folder, &["data", "synth", "data", "--train", "8", "--val", "8", "--zeroshot", "1", "--size", "32"], 0);
    fs::write(at("tiny.yaml"), CONFIG).unwrap();
    let data = "data.train=data/shards/train-*.tar";
    ends(folder, &["train", "tiny.yaml", "--run-dir", "run", "--set", data], 0);
    let images: Vec<_> =
        fs::read_dir(at("data/zeroshot")).unwrap().map(|class| class.unwrap().path()).filter(|p| p.is_dir()).collect();
    let image = fs::read_dir(&images[0]).unwrap().next().unwrap().unwrap().path();
    fs::copy(&image, at("data/x.jpg")).unwrap();
    temp
}

/// Serves `/x.jpg` from a file, a page as `/page.jpg`, and 404 for all else; its address.
fn serve(image: &Path) -> String {
    let image = fs::read(image).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, content_type, body) = match request.split(' ').nth(1) {
                Some("/x.jpg") => ("200 OK", "image/jpeg", &image[..]),
                Some("/page.jpg") => ("200 OK", "image/jpeg", &b"<html>not here any more"[..]),
                _ => ("404 Not Found", "text/html", &b"gone"[..]),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
            // A client that has seen enough hangs up.
            let _ = stream.write_all(&[format!("{head}Connection: close\r\n\r\n").as_bytes(), body].concat());
        }
    });
    address
}

#[test]
fn addresses_are_fetched_and_failures_told() {
    let world = world();
    let folder = world.path();
    let site = serve(&folder.join("data/x.jpg"));
    let rows = ["x.jpg", "gone.jpg", "page.jpg"].map(|name| format!("{site}/{name},a red circle\n")).concat();
    fs::write(folder.join("pairs.csv"), format!("url,text\ndata/x.jpg,a red circle\n{rows}")).unwrap();
    let score = ["score", "pairs.csv", "--model", "run", "--allow-private", "--fetch-threads", "2", "--fetch-retries", "0"];
    let (stdout, stderr) = ends(folder, &score, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    // The same image from a file and from an address.
    let scores = |line: &str| line.split_once("circle,").unwrap().1.to_owned();
    assert!(scores(lines[1]).ends_with(',') && scores(lines[1]).len() > 8, "{stdout}");
    assert_eq!(scores(lines[1]), scores(lines[2]));
    assert!(lines[3].ends_with(&format!(",,{site}/gone.jpg: the server answered with status 404")), "{stdout}");
    assert!(lines[4].contains(&format!(",,\"{site}/page.jpg: not an image")), "{stdout}");
    assert!(stderr.contains("addresses that gave no image file: http 404 1\n"), "{stderr}");
    let (stdout, stderr) = ends(folder, &["score", "pairs.csv", "--model", "run"], 0);
    let refused = format!("{site}/x.jpg: 127.0.0.1 is at 127.0.0.1, which is no public address");
    assert!(stdout.lines().nth(2).unwrap().contains(&refused), "{stdout}");
    assert!(stderr.contains("private address 3") && stderr.contains("--allow-private"), "{stderr}");
}

#[test]
fn a_table_or_an_older_scripts_file_becomes_scores() {
    let world = world();
    let folder = world.path();
    let at = |name: &str| folder.join(name);
    fs::write(at("pairs.csv"), "image,caption\nx.jpg,a red circle\nx.jpg,\"blue, or green\"\n").unwrap();

    let score = ["score", "pairs.csv", "--model", "run", "--image-root", "data"];
    let (stdout, table) = ends(folder, &score, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], "image,caption,cosine,logit,error");
    assert!(
        lines[2].starts_with("x.jpg,\"blue, or green\",0.") || lines[2].starts_with("x.jpg,\"blue, or green\",-0."),
        "{stdout}"
    );
    for stage in ["load the model", "decode and resize", "image tower", "text tower", "2 pairs, 2 with a score"] {
        assert!(table.contains(stage), "{table}");
    }

    let job = "csv_path: pairs.csv\nimage_path: data\nuse_cuda: false\npretrained_model: run\nimg_resize: 64\n";
    fs::write(at("job.yaml"), job).unwrap();
    let (none, warning) = ends(folder, &["score", "job.yaml", "--out", "scores.csv", "--report", "report.json"], 0);
    assert!(none.is_empty() && warning.contains("img_resize is ignored"), "{warning}");
    assert_eq!(fs::read_to_string(at("scores.csv")).unwrap(), stdout);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(at("report.json")).unwrap()).unwrap();
    assert_eq!((report["rows"].as_u64(), report["stages"].as_array().map(Vec::len)), (Some(2), Some(8)));

    // A row that fails: told, status 0; 1 with --strict; 1 where no row has a score.
    fs::write(at("pairs.csv"), "image,caption\nx.jpg,a cat\ny.jpg,a dog\n").unwrap();
    assert!(
        ends(folder, &score, 0).1.contains("1 of 2 rows have no score (column `error`):\n  line 3: data/y.jpg: no such file")
    );
    ends(folder, &[&score[..], &["--strict"]].concat(), 1);
    ends(folder, &["score", "pairs.csv", "--model", "run", "--image-root", "run"], 1);
    let (_, message) = ends(folder, &[&score[..], &["--out", "pairs.csv"]].concat(), 1);
    assert!(message.contains("pairs.csv: it is the table that is read"), "{message}");
    assert!(ends(folder, &["score", "pairs.csv"], 1).1.contains("--model"));
    assert!(ends(folder, &[&score[..], &["--caption-column", "words"]].concat(), 1).1.contains("(columns: image, caption)"));
}
