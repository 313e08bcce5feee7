//! Tests that span crates, and the browser for tests of pages; the goldens that all crates read lie beside this file.

pub mod browser;
