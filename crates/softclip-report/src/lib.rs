//! Pages that people look at: tables, curves, histograms, matrices and retrieval galleries, as one HTML file.
//!
//! A [`Page`] is a title and sections of text, tables, charts, matrices and galleries. [`Page::render`] gives one self-contained HTML
//! document: styles, a few lines of script, charts as SVG and pictures as data URIs are inside, and its content security
//! policy forbids any request. It opens from `file://`, follows the reader's light or dark setting, and works by keyboard.
//! The crate reads results and knows nothing of training.
//!
//! ```
//! use softclip_report::{Chart, Curve, Page, Section, Table};
//!
//! let curve = Curve::new("SoftCLIP", vec![(0.0, 4.2), (100.0, 2.9), (200.0, 2.4)]);
//! let page = Page::new("CLIP and SoftCLIP").section(
//!     Section::new("Training")
//!         .table(Table::new(["model", "R@1"]).row(["SoftCLIP".into(), 41.2.into()]))
//!         .chart(Chart::new("Loss", "step", "loss").curve(curve)),
//! );
//! let html = page.render();
//! assert!(html.starts_with("<!doctype html>") && html.contains("<svg"));
//! ```

mod axis;
pub mod boxes;
mod chart;
mod curve;
mod estimates;
mod export;
mod gallery;
pub mod heat;
mod html;
mod matrix;
mod metrics;
mod page;
mod paint;
mod panels;
mod picture;
mod table;

pub use chart::{COMMON, Chart};
pub use curve::Curve;
pub use estimates::{Estimates, Group, Mark};
pub use gallery::{Gallery, GalleryRow, Hit, Item, Strip};
pub use matrix::Matrix;
pub use metrics::{Metrics, read_metrics_jsonl};
pub use page::{Page, STYLE, Section};
pub use panels::Panels;
pub use picture::{Picture, encode};
pub use table::{Best, Cell, Table};

/// What can go wrong before a page is rendered; rendering itself cannot fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A picture that cannot be drawn.
    #[error("a picture: {0}")]
    Drawing(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a metrics file is not what it should be.
    #[error("{}:{line}: {why}", path.display())]
    Metrics {
        /// The file.
        path: std::path::PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that a browser would not show.
    #[error("the picture `{alt}` is not JPEG, PNG or WebP: {found}")]
    Picture {
        /// The picture's alternative text.
        alt: String,
        /// What the bytes look like.
        found: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
