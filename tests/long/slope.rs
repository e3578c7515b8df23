//! Whether something grows: a straight line through samples, by least squares.
//! # Not here: where the samples are from.

use std::fmt;

/// Samples of something, each where it was taken.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<(f64, f64)>);

impl Samples {
    pub(crate) fn add(&mut self, at: f64, value: f64) {
        self.0.push((at, value));
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The samples behind the first so many.
    pub(crate) fn behind(&self, count: usize) -> Samples {
        Samples(self.0.iter().skip(count).copied().collect())
    }

    /// From the first place to the last, 1 at least.
    pub(crate) fn span(&self) -> f64 {
        let ends = self.0.first().zip(self.0.last());
        ends.map_or(1.0, |((first, _), (last, _))| (last - first).max(1.0))
    }

    /// By how much the value grows for each step of the place. 0 for fewer than two places.
    pub(crate) fn slope(&self) -> f64 {
        let count = self.0.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.0.iter().map(of).sum::<f64>() / count;
        let (middle, level) = (mean(|sample| sample.0), mean(|sample| sample.1));
        let spread: f64 = self.0.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        let rise: f64 = self.0.iter().map(|(at, value)| (at - middle) * (value - level)).sum();
        if spread > 0.0 { rise / spread } else { 0.0 }
    }
}

/// The values, in KiB; of many only some.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.0.len().div_ceil(12).max(1);
        self.0.iter().step_by(step).try_for_each(|(_, value)| write!(f, "{:.0} ", value / 1024.0))
    }
}

#[test]
fn a_leak_of_100_bytes_for_each_connection_is_a_slope_of_100() {
    let noise = [40_960.0, -81_920.0, 0.0, 61_440.0, -20_480.0];
    for (leak, range) in [(0.0, -20.0..20.0), (100.0, 80.0..120.0)] {
        let mut samples = Samples::default();
        for (index, noise) in noise.iter().cycle().take(60).enumerate() {
            let connections = index as f64 * 1_000.0;
            samples.add(connections, 30e6 + leak * connections + noise);
        }
        let slope = samples.slope();
        assert!(range.contains(&slope), "{slope} for {leak}");
    }
    assert_eq!(Samples::default().span().to_bits(), 1.0_f64.to_bits());
    assert_eq!(Samples::default().slope().to_bits(), 0.0_f64.to_bits());
}
