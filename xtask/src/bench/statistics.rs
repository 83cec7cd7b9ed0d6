//! Medians, and medians of per-round ratios with their extremes.

use std::fmt;

use serde::Serialize;

/// A middle with the smallest and the largest beside it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` when there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle - 1)?, upper)
        } else {
            upper
        };
        Some(Self {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// The middle, and the extremes in brackets.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or_default();
        let Self { median, min, max } = self;
        write!(f, "{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// A ratio as it is shown: how many times, and the extremes in brackets.
pub struct Times(pub Spread);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, min, max } = self.0;
        write!(f, "{median:.2} × ({min:.2}–{max:.2})")
    }
}

/// An order of `count` things drawn from `state` (xorshift64*, Fisher–Yates).
pub fn shuffled(count: usize, state: &mut u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let drawn = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        order.swap(last, usize::try_from(drawn % bound).unwrap_or(0));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
        assert_eq!(format!("{even:.1}"), "2.5 (1.0–4.0)");
        assert_eq!(Times(even).to_string(), "2.50 × (1.00–4.00)");
    }

    #[test]
    fn a_shuffle_keeps_everything_and_repeats_with_its_seed() {
        let mut order = shuffled(9, &mut 7);
        assert_eq!(order, shuffled(9, &mut 7));
        order.sort_unstable();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
    }
}
