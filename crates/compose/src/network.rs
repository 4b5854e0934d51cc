//! The network that ranks classes: a row of small numbers for each feature, their sum through a rectifier, a row for
//! each class.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use serde::{Deserialize, Serialize};

/// The width of the inner layer.
pub(crate) const HIDDEN: usize = 64;

/// The values of the inner layer before the rectifier.
pub(crate) type Hidden = [f32; HIDDEN];

/// The number of each feature's row.
pub(crate) type Rows = HashMap<u64, u32, BuildHasherDefault<AsItIs>>;

/// A hasher that keeps features as they are: they are hashes already.
#[derive(Clone, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// The weights as they are kept. Features' weights are one byte each, with a scale for each row.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Network {
    pub features: Vec<u64>,
    pub scales: Vec<f32>,
    pub weights: Vec<i8>,
    pub inner_bias: Vec<f32>,
    pub class_weights: Vec<f32>,
    pub class_bias: Vec<f32>,
}

impl Network {
    /// Whether the parts fit together.
    pub fn is_sound(&self) -> bool {
        let rows = self.features.len();
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        self.scales.len() == rows
            && self.weights.len() == rows * HIDDEN
            && self.inner_bias.len() == HIDDEN
            && self.class_weights.len() == self.class_bias.len() * HIDDEN
            && [&self.scales, &self.inner_bias, &self.class_weights, &self.class_bias]
                .into_iter()
                .all(|part| finite(part))
    }

    pub fn rows(&self) -> Rows {
        (0u32..).zip(&self.features).map(|(row, feature)| (*feature, row)).collect()
    }

    /// The inner layer for a set of context features.
    pub fn sum(&self, rows: &Rows, features: &[u64]) -> Hidden {
        let mut sum = [0.0; HIDDEN];
        for (value, bias) in sum.iter_mut().zip(&self.inner_bias) {
            *value = *bias;
        }
        self.add(rows, features, &mut sum);
        sum
    }

    /// Adds the rows of a set of features, each with its share of the set's weight.
    pub fn add(&self, rows: &Rows, features: &[u64], sum: &mut Hidden) {
        let share = share(features.len());
        let (weights, _) = self.weights.as_chunks::<HIDDEN>();
        for row in features.iter().filter_map(|feature| rows.get(feature)).map(|row| *row as usize) {
            let (Some(weights), Some(scale)) = (weights.get(row), self.scales.get(row)) else { continue };
            let scale = scale * share;
            for (value, weight) in sum.iter_mut().zip(weights) {
                *value += scale * f32::from(*weight);
            }
        }
    }

    /// The probability of each class.
    pub fn classes(&self, sum: &Hidden) -> Vec<f32> {
        let inner = sum.map(|value| value.max(0.0));
        let (weights, _) = self.class_weights.as_chunks::<HIDDEN>();
        let mut values: Vec<f32> =
            weights.iter().zip(&self.class_bias).map(|(row, bias)| bias + dot(row, &inner)).collect();
        softmax(&mut values);
        values
    }
}

/// The weight of each feature in a set of so many.
pub(crate) fn share(features: usize) -> f32 {
    if features == 0 { 0.0 } else { 1.0 / (features as f32).sqrt() }
}

/// The dot product, in eight sums side by side that the compiler turns into vector instructions.
pub(crate) fn dot(a: &Hidden, b: &Hidden) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

pub(crate) fn softmax(values: &mut [f32]) {
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for value in values.iter_mut() {
        *value = (*value - highest).exp();
        total += *value;
    }
    for value in values {
        *value /= total;
    }
}
