//! Tests that span crates; the goldens that all crates read lie beside this file.
