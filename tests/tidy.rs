//! Cheap invariants of the architecture: who may use whom, and what must never be there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules in the order of the flow; each may use only those before it.
const ORDER: &[&str] = &[
    "feed",
    "config",
    "files",
    "http_client",
    "quota",
    "metrics",
    "readiness",
    "schema",
    "event",
    "transcode",
    "restore",
    "record",
    "registry",
    "kafka",
    "tls",
    "http",
    "server",
    "bridge",
    "ingress",
    "admin",
    "serve",
    "cli",
];

/// Stages that compute and know nothing of the world around them.
const PURE: &[&str] = &["event", "schema", "transcode", "restore", "record"];

/// Every source file of the crate with its text, tests at its end cut off.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("mod tests {").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    assert!(found.len() > 30, "{} files", found.len());
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The module that a file belongs to: the first part of its path below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    Path::new(below.iter().next().unwrap()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Every `name` that stands in `code` behind `path`, such as `crate::name`, also inside `use crate::{..}`.
fn uses(code: &str, path: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices(path) {
        let rest = &code[at + path.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            used.push(name);
        } else {
            used.push(rest.to_owned());
        }
    }
    let first_word =
        |text: &String| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    used.iter().map(first_word).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_module_uses_only_those_above_it() {
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    for (path, code) in sources() {
        let module = module(&path);
        if module == "lib" || module == "main" {
            continue;
        }
        let own = place(&module).unwrap_or_else(|| panic!("{} is in no place of the order", path.display()));
        for used in uses(&code, "crate::") {
            let Some(other) = place(&used) else { continue };
            assert!(other <= own, "{} uses {used}, which comes after {module}", path.display());
        }
    }
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, ORDER, "lib.rs declares the modules in the order of the flow");
}

/// The list in `src/kafka.rs` is an order as that of the whole crate is. What is exported there is a module's too.
#[test]
fn a_file_of_kafka_uses_only_those_above_it() {
    let folder = root().join("src/kafka");
    let list = fs::read_to_string(root().join("src/kafka.rs")).unwrap();
    let declared =
        |line: &str| Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    let order: Vec<String> = list.lines().filter_map(declared).collect();
    let place = |name: &str| order.iter().position(|known| *known == name);
    let exported: Vec<(String, usize)> = list
        .lines()
        .filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';')?.split_once("::"))
        .filter_map(|(module, names)| Some((place(module)?, names)))
        .flat_map(|(at, names)| names.trim_matches(['{', '}']).split(',').map(move |name| (name.trim().to_owned(), at)))
        .collect();
    let mut seen = 0;
    for (path, code) in sources().iter().filter(|(path, _)| path.starts_with(&folder)) {
        let below = path.strip_prefix(&folder).unwrap();
        let module = Path::new(below.iter().next().unwrap()).file_stem().unwrap().to_str().unwrap();
        let own = place(module).unwrap_or_else(|| panic!("{} is not in the list", path.display()));
        // A comment may tell of those below.
        let code: String = code.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect();
        let beside = if below.iter().count() == 1 { uses(&code, "super::") } else { Vec::new() };
        for used in beside.into_iter().chain(uses(&code, "crate::kafka::")) {
            // Each stage calls it, behind its feature alone (below).
            if used == "sabotage" {
                continue;
            }
            let by_export = || exported.iter().find(|(name, _)| *name == used).map(|(_, at)| *at);
            let Some(other) = place(&used).or_else(by_export) else { continue };
            seen += 1;
            assert!(other <= own, "{} uses {used}, which comes after {module}", path.display());
        }
    }
    assert!(seen > 60, "{seen} uses");
}

#[test]
fn only_kafka_knows_rdkafka() {
    for (path, code) in sources() {
        assert!(module(&path) == "kafka" || !code.contains("rdkafka::"), "{} uses rdkafka", path.display());
    }
}

#[test]
fn the_pure_stages_know_no_runtime_network_clock_or_environment() {
    for (path, code) in sources().iter().filter(|(path, _)| PURE.contains(&module(path).as_str())) {
        for forbidden in ["tokio", "hyper", "rdkafka", "SystemTime", "Instant::now", "now_utc", "std::env", "std::fs"] {
            assert!(!code.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn a_receipt_is_made_in_few_places() {
    let made = |text: &str| {
        let own = |path: &Path| !["admin", "cli"].contains(&module(path).as_str());
        let mut places: Vec<(String, usize)> = sources()
            .iter()
            .filter(|(path, code)| own(path) && code.contains(text))
            .map(|(path, code)| (path.strip_prefix(root()).unwrap().display().to_string(), code.matches(text).count()))
            .collect();
        places.sort();
        places
    };
    let receipts = [
        ("src/kafka.rs", 2),
        ("src/kafka/reports.rs", 1),
        ("src/kafka/sabotage.rs", 2),
        ("src/kafka/warm.rs", 1),
        ("src/kafka/window.rs", 2),
    ];
    let receipts = receipts.map(|(path, count)| (path.to_owned(), count));
    assert_eq!(
        made(" Receipt {"),
        receipts,
        "its definition and methods; a delivery report; the sabotage's forgery; a committed record read back; one that is remembered"
    );
}

/// Nothing of it ships: the feature is on in tests alone (`crates/sabotaged`).
#[test]
fn sabotage_is_one_file_behind_its_feature() {
    const GATE: &str = "#[cfg(feature = \"sabotage\")]";
    let mut seen = 0;
    for (path, code) in sources() {
        let lines: Vec<_> = code.lines().map(str::trim_start).collect();
        let named = |line: &str| line.to_lowercase().contains("sabotage") && line != GATE && !line.starts_with("//");
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| named(line)) {
            if path.ends_with("kafka/sabotage.rs") {
                continue;
            }
            seen += 1;
            let before = &lines[at.saturating_sub(2)..at];
            assert!(before.contains(&GATE), "{}: {line}", path.display());
        }
    }
    assert!(seen >= 7, "{seen} places");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(
        manifest.contains("\nsabotage = []\n") && !manifest.contains("\ndefault = "),
        "no build for use may have it"
    );
}

#[test]
fn one_file_has_unsafe_code() {
    let found: Vec<_> =
        sources().into_iter().filter(|(_, code)| code.contains("allow(unsafe_code")).map(|(path, _)| path).collect();
    assert_eq!(found, [root().join("src/kafka/native.rs")]);
}

/// A Mac builds the crate too: what it does not have stands behind a `cfg`.
#[test]
fn what_only_linux_has_stands_behind_a_cfg() {
    const LINUX_ONLY: [&str; 9] = [
        "thread_priority::",
        "process_collector",
        "\"/proc",
        "\"/sys/",
        "os::linux",
        "procfs",
        "epoll",
        "inotify",
        "memfd",
    ];
    let mut seen = 0;
    for (path, code) in sources() {
        let lines: Vec<_> = code.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with("//")) {
            if !LINUX_ONLY.iter().any(|name| line.contains(name)) {
                continue;
            }
            seen += 1;
            let before = &lines[at.saturating_sub(2)..at];
            assert!(before.contains(&"#[cfg(target_os = \"linux\")]"), "{}: {line}", path.display());
        }
    }
    assert!(seen >= 2, "{seen} places");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, linux) = manifest.split_once("[target.'cfg(target_os = \"linux\")'.dependencies]").unwrap();
    assert!(linux.split("\n[").next().unwrap().contains("thread-priority"), "it does not build elsewhere");
}

#[test]
fn what_is_printed_goes_by_the_one_way_that_lets_a_reader_go() {
    for (path, code) in sources() {
        let lines = code.lines().filter(|line| line.trim_start().starts_with("print") && line.contains("!("));
        assert_eq!(lines.count(), 0, "{}: println! panics where nobody reads; use cli::findings::say", path.display());
    }
}

#[test]
fn no_file_is_longer_than_a_stage() {
    for (path, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 420, "{} has {lines} lines: which two stages is it?", path.display());
    }
}

/// One release: the crate, its chart, the image that the chart asks for, and the example that includes the chart.
#[test]
fn the_chart_the_image_and_the_changelog_have_the_crates_version() {
    let version = env!("CARGO_PKG_VERSION");
    let read = |path: &str| fs::read_to_string(root().join("deploy/chart").join(path)).unwrap();
    let chart = read("causeway/Chart.yaml");
    for key in ["version", "appVersion"] {
        assert!(chart.lines().any(|line| line == format!("{key}: {version}")), "Chart.yaml: {key} is not {version}");
    }
    let example = read("examples/sidecar/Chart.yaml");
    let (_, dependency) = example.split_once("- name: causeway\n").unwrap();
    assert!(dependency.contains(&format!("version: {version}\n")), "the example asks for another chart");
    let values = read("causeway/values.yaml");
    let image = values.split_once("\nimage:\n").unwrap().1.split("\n\n").next().unwrap();
    assert!(image.lines().any(|line| line.trim() == "tag: \"\""), "an image's tag that is not the chart's appVersion");
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains(&format!("\n## {version}\n")), "CHANGELOG.md says nothing of {version}");
}

#[test]
fn every_schema_field_has_a_doc() {
    fn check(schema: &serde_json::Value, path: &str) {
        match schema {
            serde_json::Value::Object(object) => {
                for field in object.get("fields").and_then(serde_json::Value::as_array).into_iter().flatten() {
                    let path = format!("{path}.{}", field["name"].as_str().unwrap());
                    assert!(field["doc"].as_str().is_some_and(|doc| doc.len() > 5), "{path} has no doc");
                }
                object.iter().for_each(|(key, value)| check(value, &format!("{path}/{key}")));
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| check(value, path)),
            _ => {}
        }
    }
    for feed in ["activity", "journey", "queue", "other"] {
        let text = fs::read_to_string(root().join(format!("schemas/{feed}.avsc"))).unwrap();
        check(&serde_json::from_str(&text).unwrap(), feed);
    }
}

/// What stands in the documentation for users, with its path.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let pages = docs.chain(top).filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_pages_link_to_what_is_there() {
    let mut seen = 0;
    for (page, text) in pages() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found = text.lines().filter_map(|line| line.strip_prefix('#')).any(|title| slug(title) == anchor);
                assert!(found, "{}: {link} has no such heading", page.display());
            }
        }
    }
    assert!(seen > 10, "{seen} links");
}

/// The anchor that a heading gets.
fn slug(title: &str) -> String {
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_pages_name_metrics_and_headers_that_there_are() {
    let code: String = sources().into_iter().map(|(_, code)| code).collect();
    for (page, text) in pages() {
        for (at, _) in text.match_indices("causeway_") {
            let is_name = |c: &char| c.is_ascii_lowercase() || *c == '_';
            let name: String = text[at..].chars().take_while(is_name).collect();
            assert!(code.contains(&name), "{}: {name} is nowhere in src", page.display());
        }
    }
}
