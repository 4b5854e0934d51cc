//! The counts, and the tables that are printed of them.

use compose::Model;
use serde_json::{Map, Value, json};

use crate::desktop::{Phrases, Pipeline};
use crate::read::{Arguments, Data};

/// The rank of the sent response among those shown, from 0; nothing where it was not shown.
#[derive(Clone, Copy)]
pub struct Rank {
    pub group: Option<usize>,
    pub exact: Option<usize>,
    pub score: f32,
    /// Whether the message came from the list at all.
    pub covered: bool,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<(String, Vec<Rank>)>,
    pub phrases: Vec<(f32, Phrases)>,
    pub pipeline: Pipeline,
    pub writing: Value,
}

impl Table {
    pub fn new(confidences: &[f32]) -> Table {
        let phrases = confidences.iter().map(|confidence| (*confidence, Phrases::default())).collect();
        Table { phrases, ..Table::default() }
    }

    fn phrases(&self) -> Value {
        self.phrases
            .iter()
            .map(|(confidence, counts)| (format!("{confidence:.2}"), counts.json()))
            .collect::<Map<_, _>>()
            .into()
    }

    pub fn add(&mut self, name: &str, rank: Rank) {
        let at = self.rows.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.push(rank);
    }

    pub fn print(&self) {
        println!(
            "{:<30} {:>6} {:>6} {:>6} {:>6} {:>9}",
            "covered turns", "turns", "hit@1", "hit@3", "mrr@3", "exact@3"
        );
        for (name, ranks) in &self.rows {
            let report = report(ranks);
            let value = |member: &str| report[member].as_f64().unwrap();
            println!(
                "{name:<30} {:>6} {:>6.1} {:>6.1} {:>6.3} {:>9.1}",
                report["turns"],
                value("hit@1"),
                value("hit@3"),
                value("mrr@3"),
                value("exact@3")
            );
        }
        for (share, threshold, precision) in self.surest() {
            println!("surest {share} %: score at least {threshold:.3}, precision@1 {precision:.1}");
        }
        for (confidence, counts) in &self.phrases {
            println!("completions of confidence {confidence:.2}: {}", counts.json());
        }
        println!("{}\n{}", self.pipeline.json(), self.writing);
    }

    /// The surest parts of the covered turns with nothing typed: for each, its percentage, the least score of a first
    /// suggestion, and how often the first suggestion was right.
    fn surest(&self) -> Vec<(usize, f32, f64)> {
        let Some((_, ranks)) = self.rows.iter().find(|(name, _)| name == "nothing typed") else { return Vec::new() };
        let mut covered: Vec<Rank> = ranks.iter().copied().filter(|rank| rank.covered).collect();
        covered.sort_by(|a, b| b.score.total_cmp(&a.score));
        [30, 40, 50, 70]
            .into_iter()
            .filter_map(|share| {
                let part = &covered[..covered.len() * share / 100];
                Some((share, part.last()?.score, percent(part, |rank| rank.group == Some(0))))
            })
            .collect()
    }

    pub fn json(
        &self,
        arguments: &Arguments,
        data: &Data,
        model: &Model,
        trained: f64,
        bytes: usize,
        replayed: f64,
    ) -> Value {
        let rows: Map<String, Value> = self.rows.iter().map(|(name, ranks)| (name.clone(), report(ranks))).collect();
        let surest = self
            .surest()
            .into_iter()
            .map(|(share, threshold, precision)| json!({"share": share, "score": threshold, "precision@1": precision}));
        json!({
            "seed": arguments.seed,
            "learnt": data.train.len(),
            "replayed": data.replay.len(),
            "classes": model.classes(),
            "model_bytes": bytes,
            "training_seconds": trained,
            "replay_seconds": replayed,
            "rows": rows,
            "phrases": self.phrases(),
            "pipeline": self.pipeline.json(),
            "writing": self.writing,
            "surest": surest.collect::<Vec<_>>(),
        })
    }
}

fn report(ranks: &[Rank]) -> Value {
    let covered: Vec<Rank> = ranks.iter().copied().filter(|rank| rank.covered).collect();
    let reciprocal: f64 = covered.iter().filter_map(|rank| rank.group).map(|at| 1.0 / (at as f64 + 1.0)).sum();
    json!({
        "turns": covered.len(),
        "all_turns": ranks.len(),
        "hit@1": percent(&covered, |rank| rank.group == Some(0)),
        "hit@3": percent(&covered, |rank| rank.group.is_some()),
        "mrr@3": reciprocal / covered.len().max(1) as f64,
        "exact@1": percent(&covered, |rank| rank.exact == Some(0)),
        "exact@3": percent(&covered, |rank| rank.exact.is_some()),
    })
}

fn percent(ranks: &[Rank], right: impl Fn(&Rank) -> bool) -> f64 {
    100.0 * ranks.iter().filter(|rank| right(rank)).count() as f64 / ranks.len().max(1) as f64
}
