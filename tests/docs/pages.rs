//! The instructions of a page of `docs/`: each section's files and commands, as they stand there.

use std::{fs, path::Path};

/// A `##` section with commands.
pub struct Section {
    /// The name, such as `consuming.md: Python`.
    pub name: String,
    pub page: &'static str,
    /// The files' names and contents.
    pub files: Vec<(String, String)>,
    /// The commands, in their order.
    pub script: String,
}

/// The languages of blocks that are files, and how the names of these end. A file's name stands in backticks in the
/// paragraph before its block.
const FILES: &[(&str, &str)] = &[
    ("python", ".py"),
    ("java", ".java"),
    ("xml", ".xml"),
    ("properties", ".properties"),
    ("sql", ".sql"),
    ("toml", ".toml"),
];

/// The languages of blocks that nobody is told to run; the page says beside each `console` block why.
const OTHERS: &[&str] = &["toml", "text", "console", "ini", "yaml", "json"];

/// The sections of `docs/<page>` that have commands (`sh`).
pub fn sections(page: &'static str) -> Vec<Section> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let sections = text.split("\n## ").skip(1).map(|section| {
        let title = section.lines().next().unwrap_or_default();
        read(page, title, section)
    });
    sections.filter(|section| !section.script.is_empty()).collect()
}

fn read(page: &'static str, title: &str, text: &str) -> Section {
    let mut section = Section { name: format!("{page}: {title}"), page, files: Vec::new(), script: String::new() };
    // Text and blocks take turns.
    let mut parts = text.split("\n```");
    let mut before = parts.next().unwrap_or_default();
    while let (Some(block), Some(after)) = (parts.next(), parts.next()) {
        let (language, content) = block.split_once('\n').unwrap();
        if language == "sh" {
            section.script.push_str(&format!("{content}\n"));
        } else if let Some((_, end)) = FILES.iter().find(|(known, _)| *known == language) {
            let paragraph = before.trim().rsplit("\n\n").next().unwrap();
            let file = paragraph.split('`').skip(1).step_by(2).filter(|word| word.ends_with(end)).last();
            let Some(file) = file else {
                // An example of a few lines has no name; the reference's unit test reads it.
                assert_eq!(language, "toml", "{}: no name before {content}", section.name);
                before = after;
                continue;
            };
            section.files.push((file.to_owned(), format!("{content}\n")));
        } else {
            assert!(OTHERS.contains(&language), "{}: what is {language:?}?", section.name);
        }
        before = after;
    }
    section
}
