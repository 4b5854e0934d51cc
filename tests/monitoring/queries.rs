//! The queries that people see: those of the dashboard and of the runbooks.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{prometheus::Prometheus, results, root};

/// Runs each query, and leaves the answers to the dashboard's in `results.json`.
pub fn run(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    let mut shown = Vec::new();
    let dashboard: Json = serde_json::from_str(&read("deploy/chart/causeway/files/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let chosen =
                ["$namespace", "$job", "$instance"].iter().fold(query.to_owned(), |it, name| it.replace(name, ".*"));
            let answer = prometheus.range(&chosen.replace("$__rate_interval", "10s"));
            if !has_data(&answer) {
                empty.push(format!("dashboard, {}: {query}\n{answer}", panel["title"]));
            }
            shown.push(json!({"panel": panel["id"], "ref": target["refId"], "result": answer["data"]["result"]}));
        }
    }
    fs::write(results().join("results.json"), serde_json::to_string(&shown).unwrap()).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        for block in page.split("```promql\n").skip(1) {
            let query = block.split("```").next().unwrap();
            count += 1;
            let answer = prometheus.range(query);
            if !has_data(&answer) {
                empty.push(format!("{}: {query}{answer}", path.display()));
            }
        }
    }
    println!("{} queries of the dashboard, {count} of the runbooks", shown.len());
    assert!(empty.is_empty(), "without data: {}", empty.join("\n"));
    assert!(shown.len() > 40 && count > 40, "were they found?");
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Whether an answer has at least one number.
fn has_data(answer: &Json) -> bool {
    let series = answer["data"]["result"].as_array().into_iter().flatten();
    let mut values = series.flat_map(|series| series["values"].as_array().into_iter().flatten());
    answer["status"] == "success" && values.any(|value| value[1] != "NaN")
}
