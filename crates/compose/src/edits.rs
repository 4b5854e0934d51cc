//! The distance between two words, in slips of a hand: swapped or doubled letters, and letters that lie beside each
//! other, cost less than others.

const VOWELS: &str = "aeiouy";
/// The rows of the keyboard, each shifted to the right of the one above.
const KEYS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

const SWAPPED: f32 = 0.75;
const DOUBLED: f32 = 0.65;
const VOWEL: f32 = 0.7;
const BESIDE: f32 = 0.85;
const APOSTROPHE: f32 = 0.4;
const OTHER: f32 = 1.0;
/// The extra cost of an edit of the first letter, which is seldom wrong.
const FIRST: f32 = 0.4;

/// The cost of the cheapest edits from `typed` to `meant`; nothing where there are more than `edits_max`.
pub(crate) fn cost(typed: &[char], meant: &[char], edits_max: usize) -> Option<f32> {
    if typed.len().abs_diff(meant.len()) > edits_max {
        return None;
    }
    // A row has, for one beginning of `typed`, the number of edits to each beginning of `meant`, and their cost. The
    // last two rows are kept.
    let start: Vec<(usize, f32)> = (0..=meant.len())
        .scan((0, 0.0), |sum, at| {
            if at > 0 {
                *sum = (sum.0 + 1, sum.1 + gap(meant, at - 1));
            }
            Some(*sum)
        })
        .collect();
    let mut before: Vec<(usize, f32)> = Vec::new();
    let mut last = start;
    for (i, a) in typed.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(plus(last.first(), gap(typed, i))?);
        for (j, b) in meant.iter().enumerate() {
            let replaced = if a == b { last.get(j).copied() } else { plus(last.get(j), letter(*a, *b) + first(i)) };
            let removed = plus(last.get(j + 1), gap(typed, i));
            let added = plus(row.get(j), gap(meant, j));
            let is_swapped = i > 0 && j > 0 && typed.get(i - 1) == Some(b) && meant.get(j - 1) == Some(a) && a != b;
            let swapped = if is_swapped { plus(before.get(j - 1), SWAPPED) } else { None };
            let cheapest =
                [replaced, removed, added, swapped].into_iter().flatten().min_by(|x, y| x.1.total_cmp(&y.1))?;
            row.push(cheapest);
        }
        if row.iter().all(|(edits, _)| *edits > edits_max) {
            return None;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().filter(|(edits, _)| *edits <= edits_max).map(|(_, cost)| *cost)
}

fn plus(sum: Option<&(usize, f32)>, cost: f32) -> Option<(usize, f32)> {
    sum.map(|(edits, sum)| (edits + 1, sum + cost))
}

/// The cost of a letter that is too many or missing.
fn gap(letters: &[char], at: usize) -> f32 {
    let Some(letter) = letters.get(at) else { return OTHER };
    let beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(|at| letters.get(at));
    if *letter == '\'' {
        APOSTROPHE
    } else if beside.into_iter().any(|other| other == letter) {
        DOUBLED
    } else {
        OTHER + first(at)
    }
}

fn first(at: usize) -> f32 {
    if at == 0 { FIRST } else { 0.0 }
}

/// The cost of one letter in place of another.
fn letter(a: char, b: char) -> f32 {
    if VOWELS.contains(a) && VOWELS.contains(b) {
        return VOWEL;
    }
    match (key(a), key(b)) {
        (Some((row, place)), Some((other_row, other)))
            if row.abs_diff(other_row) <= 1 && (place - other).abs() < 1.2 =>
        {
            BESIDE
        }
        _ => OTHER,
    }
}

fn key(letter: char) -> Option<(usize, f32)> {
    let mut rows = KEYS.iter().enumerate();
    rows.find_map(|(row, keys)| keys.find(letter).map(|place| (row, place as f32 + 0.4 * row as f32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(typed: &str, meant: &str) -> Option<f32> {
        let letters = |word: &str| word.chars().collect::<Vec<char>>();
        cost(&letters(typed), &letters(meant), 2)
    }

    #[test]
    fn slips_cost_less_than_other_edits() {
        assert_eq!(of("same", "same"), Some(0.0));
        assert_eq!(of("tihs", "this"), Some(SWAPPED));
        assert_eq!(of("acomodate", "accommodate"), Some(2.0 * DOUBLED));
        assert_eq!(of("dont", "don't"), Some(APOSTROPHE));
        assert_eq!(of("seperate", "separate"), Some(VOWEL));
        assert_eq!(of("gar", "far"), Some(BESIDE + FIRST));
        assert_eq!(of("abc", "xyz"), None);
        assert_eq!(of("", "ab"), Some(2.0 * OTHER + FIRST));
    }
}
