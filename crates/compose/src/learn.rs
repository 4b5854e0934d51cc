//! The network while it learns, by Adagrad with dropout, one example at a time. The result is cut to the rows that
//! matter most, with a byte for each weight.

use std::collections::HashMap;

use crate::{
    network::{HIDDEN, Hidden, Network, dot, share, softmax},
    random::Random,
};

/// The share of features and inner values that each example leaves out, so that the network relies on no single one.
const DROPOUT: f32 = 0.2;
const KEPT: f32 = 1.0 / (1.0 - DROPOUT);
/// The error below which a class learns nothing from an example.
const ERROR_MIN: f32 = 1e-4;

/// All examples, with features as row numbers.
#[derive(Default)]
pub(crate) struct Examples {
    pub features: Vec<u64>,
    row_of: HashMap<u64, u32>,
    rows: Vec<u32>,
    examples: Vec<Example>,
}

#[derive(Clone, Copy)]
pub(crate) struct Example {
    pub context: Span,
    pub query: Span,
    pub class: usize,
    pub weight: f32,
}

/// A range of [`Examples`]' rows, and the size of the set of features that it came from.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span {
    start: usize,
    end: usize,
    features: usize,
}

impl Examples {
    /// Keeps the features of a set that count, as rows.
    pub fn add(&mut self, features: &[u64], counts: impl Fn(u64) -> bool) -> Span {
        let start = self.rows.len();
        for feature in features.iter().copied().filter(|feature| counts(*feature)) {
            let new = self.features.len() as u32;
            let row = *self.row_of.entry(feature).or_insert(new);
            if row == new {
                self.features.push(feature);
            }
            self.rows.push(row);
        }
        Span { start, end: self.rows.len(), features: features.len() }
    }

    pub fn push(&mut self, example: Example) {
        self.examples.push(example);
    }
}

/// A weight vector with the sums of its squared gradients.
#[derive(Clone)]
struct Row {
    weights: Hidden,
    squares: Hidden,
}

impl Row {
    fn new(deviation: f32, squares: f32, random: &mut Random) -> Row {
        Row { weights: [0.0; HIDDEN].map(|_: f32| random.normal() * deviation), squares: [squares; HIDDEN] }
    }

    fn learn(&mut self, gradient: &Hidden, factor: f32, rate: f32) {
        for ((weight, square), gradient) in self.weights.iter_mut().zip(&mut self.squares).zip(gradient) {
            let gradient = gradient * factor;
            *square += gradient * gradient;
            *weight -= rate * gradient / square.sqrt();
        }
    }
}

pub(crate) struct Learner {
    rows: Vec<Row>,
    inner: Row,
    classes: Vec<Row>,
    /// Each class's bias, with the sum of its squared gradients.
    biases: Vec<(f32, f32)>,
    active: Vec<(u32, f32)>,
}

impl Learner {
    pub fn new(rows: usize, classes: usize, random: &mut Random) -> Learner {
        let deviation = 0.5 * (2.0 / HIDDEN as f32).sqrt();
        Learner {
            rows: (0..rows).map(|_| Row::new(0.1, 1e-3, random)).collect(),
            inner: Row::new(0.0, 1e-2, random),
            classes: (0..classes).map(|_| Row::new(deviation, 1e-2, random)).collect(),
            biases: vec![(0.0, 1e-2); classes],
            active: Vec::new(),
        }
    }

    /// Learns from each example once, in random order, and returns the mean loss.
    pub fn epoch(&mut self, all: &mut Examples, rate: f32, random: &mut Random) -> f64 {
        random.shuffle(&mut all.examples);
        let loss: f64 = all.examples.iter().map(|example| f64::from(self.step(example, &all.rows, rate, random))).sum();
        loss / all.examples.len().max(1) as f64
    }

    fn step(&mut self, example: &Example, rows: &[u32], rate: f32, random: &mut Random) -> f32 {
        self.active.clear();
        for span in [example.context, example.query] {
            let factor = share(span.features) * KEPT;
            let rows = rows.get(span.start..span.end).unwrap_or_default();
            self.active.extend(rows.iter().filter(|_| random.unit() >= DROPOUT).map(|row| (*row, factor)));
        }
        let mut sum = self.inner.weights;
        for (row, factor) in &self.active {
            let Some(row) = self.rows.get(*row as usize) else { continue };
            for (value, weight) in sum.iter_mut().zip(&row.weights) {
                *value += factor * weight;
            }
        }
        // The slope of each inner value after rectifier and dropout.
        let mut slopes = sum.map(|value| if value > 0.0 { KEPT } else { 0.0 });
        slopes.iter_mut().for_each(|slope| *slope *= f32::from(u8::from(random.unit() >= DROPOUT)));
        let mut inner = sum;
        inner.iter_mut().zip(&slopes).for_each(|(value, slope)| *value *= slope);

        let (mut gradient, loss) = self.learn_classes(&inner, example, rate);
        gradient.iter_mut().zip(&slopes).for_each(|(value, slope)| *value *= slope);
        self.inner.learn(&gradient, 1.0, rate);
        for (row, factor) in &self.active {
            if let Some(row) = self.rows.get_mut(*row as usize) {
                row.learn(&gradient, *factor, rate);
            }
        }
        loss
    }

    /// Updates the classes and returns the gradient of the inner layer's values, and the loss.
    fn learn_classes(&mut self, inner: &Hidden, example: &Example, rate: f32) -> (Hidden, f32) {
        let mut chances: Vec<f32> =
            self.classes.iter().zip(&self.biases).map(|(class, (bias, _))| bias + dot(&class.weights, inner)).collect();
        softmax(&mut chances);
        let loss = -chances.get(example.class).copied().unwrap_or(1.0).max(1e-9).ln();
        let mut gradient = [0.0; HIDDEN];
        for (at, ((class, bias), chance)) in self.classes.iter_mut().zip(&mut self.biases).zip(&chances).enumerate() {
            let error = (chance - f32::from(u8::from(at == example.class))) * example.weight;
            if error.abs() < ERROR_MIN {
                continue;
            }
            for (value, weight) in gradient.iter_mut().zip(&class.weights) {
                *value += error * weight;
            }
            class.learn(inner, error, rate);
            bias.1 += error * error;
            bias.0 -= rate * error / bias.1.sqrt();
        }
        (gradient, loss)
    }

    /// The network to keep: the rows of the greatest norm, a byte a weight, in order of their features.
    pub fn network(&self, features: &[u64], rows_max: usize) -> Network {
        let norm = |row: &Row| dot(&row.weights, &row.weights);
        let mut kept: Vec<(f32, u64, &Row)> =
            features.iter().zip(&self.rows).map(|(feature, row)| (norm(row), *feature, row)).collect();
        kept.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        kept.truncate(rows_max);
        kept.sort_unstable_by_key(|(_, feature, _)| *feature);
        let mut network = Network { inner_bias: self.inner.weights.to_vec(), ..Network::default() };
        for (_, feature, row) in kept {
            let highest = row.weights.iter().fold(0.0f32, |highest, weight| highest.max(weight.abs()));
            let scale = highest / 127.0;
            network.features.push(feature);
            network.scales.push(scale);
            network
                .weights
                .extend(row.weights.iter().map(|weight| if scale > 0.0 { (weight / scale).round() as i8 } else { 0 }));
        }
        for (class, (bias, _)) in self.classes.iter().zip(&self.biases) {
            network.class_weights.extend(class.weights);
            network.class_bias.push(*bias);
        }
        network
    }
}
