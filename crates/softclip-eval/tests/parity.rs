//! Metrics against independent ones, and their edges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use softclip_eval::{
    ClassScore, Confusion, Rankings, Relevant, Tally, class_embeddings, classify, pairing, pairing_as_source, retrieval, top_k,
};
use softclip_tensor::Embeddings;
use softclip_tensor::file::read_safetensors;
use tch::{Device, Kind, Tensor};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/metrics.safetensors");

const INSTANCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/instance.safetensors");

fn parity(row: &str, error: f64, tolerance: f64) {
    println!("PARITY | eval | {row} | max_rel_err {error:.2e} | tol {tolerance:.0e}");
    assert!(error <= tolerance, "{row}: {error}");
}

fn embeddings(rows: &[&[f32]]) -> Embeddings {
    let flat: Vec<f32> = rows.concat();
    Embeddings::normalize(&Tensor::from_slice(&flat).view([rows.len() as i64, rows[0].len() as i64])).unwrap()
}

#[test]
fn every_metric_is_that_of_the_golden() {
    let golden = read_safetensors(GOLDEN).unwrap();
    let ints = |name: &str| Vec::<i64>::try_from(&golden[name]).unwrap();
    let unit = |name: &str| Embeddings::normalize(&golden[name]).unwrap();
    let found = retrieval(&unit("image"), &unit("text"), &ints("text_owner")).unwrap();
    let classes = classify(&golden["logits"], &ints("labels")).unwrap();
    let values = [
        &found.text_to_image.recall[..],
        &found.image_to_text.recall[..],
        &[found.text_to_image.median_rank, found.text_to_image.mean_rank],
        &[classes.acc1, classes.acc5.unwrap(), classes.mean_per_class_recall],
    ]
    .concat();
    let names = [
        "text_to_image R@1",
        "text_to_image R@5",
        "text_to_image R@10",
        "image_to_text R@1",
        "image_to_text R@5",
        "image_to_text R@10",
        "median rank",
        "mean rank",
        "top-1",
        "top-5",
        "mean per class",
    ];
    let expected = Vec::<f64>::try_from(&golden["values"]).unwrap();
    assert_eq!(expected.len(), values.len());
    for ((name, found), expected) in names.iter().zip(values).zip(expected) {
        let scale = if expected > 1.0 && found <= 1.0 { 100.0 } else { 1.0 };
        parity(name, (found * scale - expected).abs() / expected.abs().max(1.0), 1e-9);
    }
}

#[test]
fn instance_retrieval_is_that_of_the_golden() {
    let golden = read_safetensors(INSTANCE).unwrap();
    // Whole numbers over 8, not of unit length: ties are exact.
    let rows = |name: &str| Embeddings::trusted(golden[name].shallow_clone()).unwrap();
    let kinds = Vec::<Vec<i64>>::try_from(&golden["kinds"]).unwrap();
    let level = |right: &[i64], junk: &[i64]| -> Vec<Relevant> {
        let of = |row: &Vec<i64>, kinds: &[i64]| (0..row.len()).filter(|&i| kinds.contains(&row[i])).collect();
        kinds.iter().map(|row| Relevant { positives: of(row, right), junk: of(row, junk) }).collect()
    };
    let levels = vec![level(&[1], &[3, 2]), level(&[1, 2], &[3]), level(&[2], &[3, 1])];
    let mut rankings = Rankings::new(&rows("queries"), &rows("database"), levels).unwrap();
    for (golden, with) in [(&golden["values"], ""), (&golden["values_with_distractors"], " with distractors")] {
        let expected = Vec::<Vec<f64>>::try_from(golden).unwrap();
        if !with.is_empty() {
            // In two parts: that they come in parts changes nothing.
            let distractors = rows("distractors");
            for (from, n) in [(0, 25), (25, distractors.rows() - 25)] {
                let part = Embeddings::trusted(distractors.tensor().narrow(0, from, n)).unwrap();
                rankings.add_distractors(&part).unwrap();
            }
        }
        for ((level, found), expected) in ["Easy", "Medium", "Hard"].iter().zip(rankings.precision()).zip(expected) {
            let found = found.unwrap();
            let names = ["mAP", "mP@1", "mP@5", "mP@10"];
            for ((name, found), expected) in names.iter().zip([&[found.map][..], &found.precision_at].concat()).zip(expected) {
                parity(&format!("{name} {level}{with}"), (found - expected).abs() / expected, 1e-12);
            }
        }
    }
}

#[test]
fn equal_similarities_rank_in_the_order_of_the_data() {
    // Images 0 and 1 are the same: of their captions, those of 0 rank first.
    let image = embeddings(&[&[1.0, 0.0], &[1.0, 0.0], &[0.0, 1.0]]);
    let text = embeddings(&[&[1.0, 0.0], &[1.0, 0.0], &[0.0, 1.0]]);
    let found = retrieval(&image, &text, &[0, 1, 2]).unwrap();
    for direction in [&found.text_to_image, &found.image_to_text] {
        assert_eq!(direction.recall, [2.0 / 3.0, 1.0, 1.0]);
        assert_eq!((direction.median_rank, direction.mean_rank), (1.0, 4.0 / 3.0));
    }
    let found = pairing(&image, &text).unwrap();
    assert_eq!((found.text_to_image, found.image_to_text, found.block), (2.0 / 3.0, 2.0 / 3.0, 3));
    // All equal: only the first can be right.
    let scores = Tensor::zeros([4, 8], (Kind::Float, Device::Cpu));
    let classes = classify(&scores, &[0, 1, 4, 5]).unwrap();
    assert_eq!((classes.acc1, classes.acc5), (0.25, Some(0.75)));
}

#[test]
fn any_of_an_images_captions_is_a_hit_and_chunks_do_not_matter() {
    // 600 images (three chunks) with one to three captions, of which the last is right and the others point elsewhere.
    let n = 600i64;
    let angle = |x: f64| [x.cos() as f32, x.sin() as f32];
    let place = |i: i64| i as f64 * 0.01;
    let images: Vec<[f32; 2]> = (0..n).map(|i| angle(place(i))).collect();
    let (mut texts, mut owner) = (Vec::new(), Vec::new());
    for i in 0..n {
        for wrong in 0..i % 3 {
            texts.push(angle(place((i + 200 + 100 * wrong) % n) + 0.002));
            owner.push(i);
        }
        texts.push(angle(place(i)));
        owner.push(i);
    }
    let rows = |rows: &[[f32; 2]]| embeddings(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
    let found = retrieval(&rows(&images), &rows(&texts), &owner).unwrap();
    assert_eq!(found.image_to_text.recall, [1.0; 3]);
    assert_eq!(found.text_to_image.queries, texts.len());
    let right = n as f64 / texts.len() as f64;
    assert!((found.text_to_image.recall[0] - right).abs() < 1e-12, "{} {right}", found.text_to_image.recall[0]);
    let top = top_k(&rows(&images), &rows(&images), 2).unwrap();
    assert!(top.iter().enumerate().all(|(i, hits)| hits[0].0 == i && (hits[0].1 - 1.0).abs() < 1e-6 && hits[1].1 < hits[0].1));
}

#[test]
fn a_class_is_the_mean_of_its_prompts() {
    let prompts = embeddings(&[&[1.0, 0.0], &[0.0, 1.0], &[-1.0, 0.0], &[-1.0, 0.0]]);
    let classes = class_embeddings(&prompts, 2).unwrap();
    let expected = embeddings(&[&[1.0, 1.0], &[-1.0, 0.0]]);
    assert!((classes.tensor() - expected.tensor()).abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn chunks_do_not_change_what_classifying_comes_to() {
    let golden = read_safetensors(GOLDEN).unwrap();
    let (scores, labels) = (&golden["logits"], Vec::<i64>::try_from(&golden["labels"]).unwrap());
    let mut tally = Tally::new(scores.size()[1] as usize);
    for (i, label) in labels.iter().enumerate() {
        tally.add(&scores.narrow(0, i as i64, 1), &[*label]).unwrap();
    }
    assert_eq!(tally.zero_shot().unwrap(), classify(scores, &labels).unwrap());
    // 2,500 images (three chunks) in the plane, each on a class or, every fifth, between its own and the next, nearer to the next.
    let at = |degrees: f64| [degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32];
    let classes: Vec<[f32; 2]> = (0..8).map(|class| at(45.0 * class as f64)).collect();
    let labels: Vec<i64> = (0..2500).map(|i| i % 8).collect();
    let images: Vec<[f32; 2]> =
        labels.iter().enumerate().map(|(i, class)| at(45.0 * *class as f64 + if i % 5 == 0 { 30.0 } else { 0.0 })).collect();
    let rows = |rows: &[[f32; 2]]| embeddings(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
    let tally = Tally::of(&rows(&images), &rows(&classes), &labels).unwrap();
    let found = tally.zero_shot().unwrap();
    assert!((found.acc1 - 0.8).abs() < 1e-12 && found.acc5 == Some(1.0), "{found:?}");
    let names: Vec<String> = (0..8).map(|class| format!("c{class}")).collect();
    let of_classes = tally.classes(&names);
    assert_eq!(of_classes.iter().map(|class| class.images).sum::<usize>(), 2500);
    assert!(of_classes.iter().enumerate().all(|(i, class)| class.most_wrong == Some(format!("c{}", (i + 1) % 8))));
    let worst = tally.confusions(&names, 3);
    assert!(worst.len() == 3 && worst.iter().all(|pair| (62..=63).contains(&pair.count)), "{worst:?}");
}

#[test]
fn classes_say_what_they_were_taken_for() {
    let labels = [0, 0, 0, 1, 1, 3, 3];
    let predicted = [0, 2, 2, 0, 2, 3, 3];
    let mut scores = vec![0f32; 7 * 4];
    predicted.iter().enumerate().for_each(|(i, class)| scores[i * 4 + class] = 1.0);
    let mut tally = Tally::new(4);
    tally.add(&Tensor::from_slice(&scores).view([7, 4]), &labels).unwrap();
    let names = ["cat", "dog", "fox", "owl"].map(str::to_owned);
    let class = |i: usize, images, right, recall, most_wrong: Option<&str>| ClassScore {
        class: names[i].clone(),
        images,
        right,
        recall,
        most_wrong: most_wrong.map(str::to_owned),
    };
    let expected = [
        class(0, 3, 1, Some(1.0 / 3.0), Some("fox")),
        // Equally often for two: the first of them.
        class(1, 2, 0, Some(0.0), Some("cat")),
        class(2, 0, 0, None, None),
        class(3, 2, 2, Some(1.0), None),
    ];
    assert_eq!(tally.classes(&names), expected);
    let pair =
        |truth: &str, predicted: &str, count| Confusion { truth: truth.to_owned(), predicted: predicted.to_owned(), count };
    assert_eq!(tally.confusions(&names, 2), [pair("cat", "fox", 2), pair("dog", "cat", 1)]);
    let found = tally.zero_shot().unwrap();
    assert_eq!((found.acc1, found.acc5), (3.0 / 7.0, None));
    assert!((found.mean_per_class_recall - 4.0 / 9.0).abs() < 1e-12, "three classes have images");
    assert!(Tally::new(4).zero_shot().unwrap_err().to_string().contains("no image"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (image, text) = (embeddings(&[&[1.0, 0.0], &[0.0, 1.0]]), embeddings(&[&[1.0, 0.0], &[0.0, 1.0]]));
    let wide = embeddings(&[&[1.0, 0.0, 0.0]]);
    for (found, words) in [
        (retrieval(&image, &text, &[0, 2]).map(drop), "text 1 belongs to image 2"),
        (retrieval(&image, &text, &[0, -1]).map(drop), "text 1 belongs to image -1"),
        (retrieval(&image, &text, &[0, 0]).map(drop), "image 1 has no text"),
        (retrieval(&image, &text, &[0]).map(drop), "1 owners"),
        (retrieval(&image, &wide, &[0]).map(drop), "[1, 3]"),
        (pairing(&image, &wide).map(drop), "two or more pairs"),
        (class_embeddings(&image, 3).map(drop), "3 classes"),
        (classify(image.tensor(), &[0]).map(drop), "1 labels"),
        (classify(image.tensor(), &[0, 2]).map(drop), "label 2"),
    ] {
        let message = found.unwrap_err().to_string();
        assert!(message.contains(words), "{message} / {words}");
    }
}

#[test]
fn the_sources_pairing_is_that_of_the_sources_code() {
    // In the plane, by angle in degrees. Blocks of two: {0, 1}, {2, 3}, and 4 alone, which counts as 0 however right it is.
    let at = |degrees: &[f64]| {
        let rows: Vec<[f32; 2]> = degrees.iter().map(|d| [d.to_radians().cos() as f32, d.to_radians().sin() as f32]).collect();
        embeddings(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>())
    };
    // M of the first block is [[cos 0, cos 90], [cos 90, cos 0]]: both columns are right.
    // M of the second is [[cos 60, cos 0], [cos 80, cos 20]] with 0.5, 1, 0.174, 0.940: by itself column 0 is right (0.5 > 0.174) and
    // column 1 wrong (1 > 0.940); symmetrised, 0.587 stands off the diagonal: column 0 is wrong and column 1 right.
    let (image, text) = (at(&[0.0, 90.0, 0.0, -20.0, 45.0]), at(&[0.0, 90.0, 60.0, 0.0, 45.0]));
    assert!((pairing_as_source(&image, &text, 2).unwrap() - (1.0 + 0.5) / 3.0).abs() < 1e-12);
    let first = |n| [&image, &text].map(|x| Embeddings::checked(x.tensor().narrow(0, 0, n)).unwrap());
    let [whole_image, whole_text] = first(4);
    assert!((pairing_as_source(&whole_image, &whole_text, 2).unwrap() - 0.75).abs() < 1e-12, "no short block");
    assert_eq!(pairing_as_source(&image, &text, 128).unwrap(), 0.0, "nothing but a short block");
    // Equal entries: the first is taken, as by torch.argmax.
    let same = at(&[10.0; 4]);
    assert_eq!(pairing_as_source(&same, &same, 4).unwrap(), 0.25);
    assert!(pairing_as_source(&image, &whole_text, 2).is_err());
}
