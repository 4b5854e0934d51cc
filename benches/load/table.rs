//! Figures as Markdown tables, for people and for `docs/PERFORMANCE.md`.

use std::fmt::Write as _;

use super::figures::{Figure, Series};

/// The function that gives a column's cell for a row.
type Cell<'a> = Box<dyn Fn(&Series) -> String + 'a>;

pub struct Table<'a> {
    first: &'a str,
    columns: Vec<(&'a str, Cell<'a>)>,
}

impl<'a> Table<'a> {
    /// A table with this title over the rows' names.
    pub fn of(first: &'a str) -> Self {
        Self { first, columns: Vec::new() }
    }

    pub fn column(mut self, name: &'a str, cell: impl Fn(&Series) -> String + 'a) -> Self {
        self.columns.push((name, Box::new(cell)));
        self
    }

    /// Adds a column of medians with `digits` digits after the point.
    pub fn median(self, name: &'a str, digits: usize, figure: Figure) -> Self {
        self.column(name, move |series| number(series.median(figure), digits))
    }

    pub fn print(&self, rows: &[Series]) -> String {
        let mut text = format!("| {} |", self.first);
        for (name, _) in &self.columns {
            write!(text, " {name} |").expect("memory");
        }
        text += &format!("\n|---|{}\n", "---:|".repeat(self.columns.len()));
        for row in rows {
            write!(text, "| {} |", row.label).expect("memory");
            for (_, cell) in &self.columns {
                write!(text, " {} |", cell(row)).expect("memory");
            }
            text.push('\n');
        }
        text
    }
}

/// A number with commas between thousands; empty where nothing was measured.
pub fn number(number: f64, digits: usize) -> String {
    if !number.is_finite() {
        return String::new();
    }
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && digit != '-' && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}
