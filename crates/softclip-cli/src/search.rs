//! `softclip search`.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use softclip_data::image::DecodeOptions;
use softclip_report::{Gallery, GalleryRow, Hit, Item, Page, Picture, Section};
use softclip_score::embed::Encoder;
use softclip_score::search::{self, Answers, Collection, Found, Pictures, Query};
use softclip_score::serve::{self, ServeOptions, serve};
use softclip_tensor::file::write_atomic;
use softclip_train::stop_on_signals;

use crate::args::collection::{Search, Shown};

/// Side of the pictures on a page, in pixels.
const SIDE: u32 = 224;

pub fn search(args: &Search) -> Result<()> {
    if args.serve && args.k as usize > serve::MOST {
        usage!("-k {}: a page shows at most {} rows a query", args.k, serve::MOST);
    }
    let device = crate::device(&args.device)?;
    let queries = if args.serve { Vec::new() } else { queries(args)? };
    let collection = Collection::open(&args.dir)?;
    let meta = collection.meta();
    let Some(name) = args.model.as_deref().or(meta.map(|meta| meta.plan.model.name.as_str())) else {
        bail!("{}: no meta.json tells which model made it: name it with --model", args.dir.display());
    };
    let model = crate::model::open(name, device)?;
    collection.suits(&model.id()?)?;
    if meta.is_none() {
        tracing::warn!("{}: whether {name} made it is not recorded", args.dir.display());
    }
    let precision = meta.map(|meta| meta.plan.precision);
    let encoder = Encoder { decode: args.decoding.limit(model.decode()), ..model.encoder(device, precision) };
    if args.serve {
        return from_page(args, &encoder, collection);
    }
    let answers = search::search(&encoder, &collection, queries, args.k as usize)?;
    let text = match args.format {
        Shown::Text => answers.to_string(),
        Shown::Json => format!("{}\n", serde_json::to_string_pretty(&answers)?),
        Shown::Html => page(&answers, &Pictures::new(meta, SIDE, encoder.decode), encoder.decode)?.render(),
    };
    match &args.out {
        Some(path) => write_atomic(path, text.as_bytes())?,
        None => out!("{text}"),
    }
    Ok(())
}

/// Serves until a signal, which is how it ends and no failure.
fn from_page(args: &Search, encoder: &Encoder, collection: Collection) -> Result<()> {
    let host = args.host.trim_matches(['[', ']']);
    let listener =
        TcpListener::bind((host, args.port)).with_context(|| format!("cannot serve at {}, port {}", args.host, args.port))?;
    let address = listener.local_addr()?;
    let stop = stop_on_signals()?;
    if !address.ip().is_loopback() {
        tracing::warn!("whoever reaches {address} can search, and see the pictures; nothing asks for a password");
    }
    outln!("http://{address}/");
    let options = ServeOptions { k: args.k as usize, host: args.host.clone(), style: softclip_report::STYLE };
    serve(encoder, Arc::new(collection), listener, options, &stop)?;
    Ok(())
}

fn queries(args: &Search) -> Result<Vec<Query>> {
    let mut queries: Vec<Query> = args.text.iter().cloned().map(Query::Text).collect();
    queries.extend(args.image.iter().cloned().map(Query::Image));
    if let Some(path) = &args.queries {
        let text = softclip_io::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
        queries.extend(text.lines().filter(|line| !line.trim().is_empty()).map(|line| Query::Text(line.to_owned())));
    }
    if queries.is_empty() {
        usage!("nothing to search for: --text, --image or --queries");
    }
    Ok(queries)
}

fn page(answers: &Answers, pictures: &Pictures, decode: DecodeOptions) -> Result<Page> {
    let mut gallery = Gallery::default();
    // The first reason stands for all pictures that are not there.
    let (mut missing, mut first) = (0, None);
    for answer in &answers.answers {
        let query = match &answer.query {
            Query::Text(text) => Item::from(text.as_str()),
            Query::Image(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                Picture::new(search::thumbnail(&bytes, SIDE, decode)?, path.display().to_string())?.into()
            }
        };
        let mut hits = Vec::new();
        for Found { rank, score, entry, .. } in &answer.hits {
            let item = match (&entry.text, pictures.of(entry)) {
                (Some(text), _) => Item::from(text.as_str()),
                (None, Ok(jpeg)) => Picture::new(jpeg, entry.key.as_str())?.into(),
                (None, Err(e)) => {
                    missing += 1;
                    first.get_or_insert(e.to_string());
                    Item::from(entry.key.as_str())
                }
            };
            hits.push(Hit { item, rank: *rank, score: *score, correct: false });
        }
        gallery = gallery.query(GalleryRow::new(query).strip("", hits));
    }
    let mut section = Section::new("Found").gallery(gallery);
    if let Some(first) = first {
        section = section.text(format!("{missing} pictures cannot be shown, their keys are; the first: {first}"));
    }
    let model = answers.model.as_deref().map_or(String::new(), |model| format!(", embedded by {model}"));
    let lead = format!("The nearest of {} rows of {}{model}. Numbers are cosines.", answers.rows, answers.collection.display());
    Ok(Page::new("Search").lead(lead).section(section))
}
