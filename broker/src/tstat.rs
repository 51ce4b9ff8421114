//! Count, extremes, mean and deviation of a series, without keeping it (Welford).

use serde_json::{Value, json};

/// Of values seen so far; all zero before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tstat {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// Sum of squared differences from the mean.
    squares: f64,
}

impl Tstat {
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        if self.count == 1 {
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn min(&self) -> f64 {
        self.min
    }

    pub fn max(&self) -> f64 {
        self.max
    }

    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Of a sample.
    pub fn stddev(&self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.squares / (self.count - 1) as f64).sqrt() }
    }

    /// With all numbers but the count as reals.
    pub fn to_json(&self) -> Value {
        json!({
            "count": self.count,
            "min": self.min,
            "max": self.max,
            "mean": self.mean,
            "stddev": self.stddev(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_its_textbook_statistics() {
        let mut stat = Tstat::default();
        assert_eq!(stat.stddev(), 0.0);
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            stat.push(value);
        }
        assert_eq!((stat.count(), stat.min(), stat.max(), stat.mean()), (8, 2.0, 9.0, 5.0));
        assert!((stat.stddev() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    }
}
