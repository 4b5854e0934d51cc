//! The parts of `docs/PERFORMANCE.md` that a run writes, between marks.

use std::{fs, path::Path};

/// Puts `found` between the marks of this name.
pub fn put(page: &Path, mark: &str, found: &str) {
    let text = fs::read_to_string(page).expect("the page");
    let begin = format!("<!-- {mark}: written by the bench -->\n");
    let (before, rest) = text.split_once(&begin).expect("the mark");
    let (_, after) = rest.split_once("<!-- end -->").expect("its end");
    let found = found.trim_end();
    fs::write(page, format!("{before}{begin}\n{found}\n\n<!-- end -->{after}")).expect("the page");
}
