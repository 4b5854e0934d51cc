//! Every key and every refused property as Markdown: the larger part of docs/configuration.md.

use std::fmt::{self, Write};

use super::{
    client,
    keys::{KEYS, Key, Takes},
};

/// One table for each section, in the order of the file, then the properties that `[kafka.client]` refuses.
pub fn reference() -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut page);
    page
}

fn write(page: &mut String) -> fmt::Result {
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            let gap = if page.is_empty() { "" } else { "\n" };
            writeln!(page, "{gap}### `[{of}]`\n\n| key | takes | default | |\n|---|---|---|---|")?;
        }
        writeln!(page, "| `{name}` | {} | {} | {} |", key.takes, default(key), cell(key.doc))?;
    }
    writeln!(page, "\n### What `[kafka.client]` refuses\n\n| properties | why |\n|---|---|")?;
    for (names, why) in client::REFUSED {
        writeln!(page, "| {} | {} |", code(names), cell(why))?;
    }
    let aliases: Vec<String> = client::ALIASES.iter().map(|(one, other)| format!("`{one}` and `{other}`")).collect();
    writeln!(
        page,
        "\nEach of these pairs is one property, so only one of the two may be given: {}.",
        aliases.join("; ")
    )
}

fn default(key: &Key) -> String {
    if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) }
}

fn code(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Escapes bars, because a bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

impl fmt::Display for Takes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max: i64::MAX } => write!(out, "{min} or more"),
            Self::Whole { min, max } => write!(out, "{min} to {max}"),
            Self::Boolean => out.write_str("true, false"),
            Self::Text => out.write_str("text"),
            Self::List => out.write_str("list of texts"),
            Self::Address => out.write_str("IP:port"),
            Self::Path => out.write_str("path"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Fault, from_toml};

    /// The part of the page below the marker must be the output of the code.
    #[test]
    fn the_page_is_current() {
        let page = include_str!("../../docs/configuration.md");
        let marker = "<!-- causeway check --reference -->\n";
        let (_, below) = page.split_once(marker).unwrap();
        assert_eq!(
            below.trim(),
            reference().trim(),
            "replace what stands below the marker by the output of `causeway check --reference`"
        );
    }

    /// Every example in the documentation must load, except that the files it names do not exist here.
    #[test]
    fn examples_can_be_loaded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
        let pages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut seen = 0;
        for page in pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
            let text = fs::read_to_string(&page).unwrap();
            for block in text.split("\n```toml\n").skip(1) {
                let block = block.split("\n```").next().unwrap();
                seen += 1;
                let Err(faults) = from_toml(block) else { continue };
                let left_out = |fault: &&Fault| {
                    fault.what.contains("which cannot be read") || fault.what.starts_with("is required")
                };
                let wrong: Vec<String> = faults.iter().filter(|fault| !left_out(fault)).map(Fault::to_string).collect();
                assert!(wrong.is_empty(), "{}: {wrong:#?}\n{block}", page.display());
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn every_key_is_in_it() {
        let reference = reference();
        for key in KEYS {
            let (section, name) = key.name.rsplit_once('.').unwrap();
            let below = reference.split_once(&format!("### `[{section}]`\n")).unwrap().1;
            let table = below.split("\n### ").next().unwrap();
            assert!(table.contains(&format!("| `{name}` | ")) && table.contains(key.doc), "{}\n{table}", key.name);
        }
    }
}
