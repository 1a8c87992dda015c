//! Medians, ranges, and ratios of contenders that ran in the same rounds.
//!
//! A machine that is slow for a minute is slow for all contenders of that round, so a ratio is made within each round, and of
//! these ratios the median is taken; least and most of them are its spread.

use super::sample::{Sample, Unit};

/// Some values of the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// `None` if there are no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = if sorted.len().is_multiple_of(2) { *sorted.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { median: f64::midpoint(lower, upper), least, most, count: sorted.len() })
    }
}

/// The values of one contender in one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// The case.
    pub case: &'a str,
    /// What was measured.
    pub figure: &'a str,
    /// Who.
    pub contender: &'a str,
    /// What the values count.
    pub unit: Unit,
    /// Rounds and values.
    pub values: Vec<(u32, f64)>,
}

impl Series<'_> {
    /// Median and range.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values.iter().map(|(_, value)| *value).collect::<Vec<f64>>())
    }

    /// This contender's values over another's of the same rounds; `None` if they have no round in common, or if they count
    /// memory: that is a difference, which may be nothing or less.
    #[must_use]
    pub fn over(&self, base: &Self) -> Option<Spread> {
        if self.unit == Unit::Kibibytes {
            return None;
        }
        let other = |round: u32| base.values.iter().find(|(other, _)| *other == round).map(|(_, value)| *value);
        let pairs = self.values.iter().filter_map(|(round, value)| Some((*value, other(*round)?)));
        Spread::of(&pairs.filter(|(_, base)| *base != 0.0).map(|(own, base)| own / base).collect::<Vec<f64>>())
    }
}

/// The series of some samples. Cases, figures and contenders keep the order in which they first came.
#[must_use]
pub fn series(samples: &[Sample]) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    let mut order: Vec<(&str, &str)> = Vec::new();
    for sample in samples {
        let key = (sample.case.as_str(), sample.figure.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
        let same =
            |series: &&mut Series<'_>| (series.case, series.figure) == key && series.contender == sample.contender;
        match all.iter_mut().find(same) {
            Some(series) => series.values.push((sample.round, sample.value)),
            None => all.push(Series {
                case: key.0,
                figure: key.1,
                contender: &sample.contender,
                unit: sample.unit,
                values: vec![(sample.round, sample.value)],
            }),
        }
    }
    all.sort_by_key(|series| order.iter().position(|key| *key == (series.case, series.figure)));
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(case: &str, contender: &str, figure: &str, round: u32, value: f64) -> Sample {
        let [measure, case, contender, figure] = ["stage-one", case, contender, figure].map(str::to_owned);
        Sample { measure, case, contender, figure, unit: Unit::Seconds, round, value }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, least: 7.0, most: 7.0, count: 1 }));
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 9.0, count: 3 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0, count: 4 }));
    }

    #[test]
    fn a_ratio_is_made_within_each_round() {
        // The machine is three times as slow in round 2, and the other is twice as slow as SINO in all of them.
        let mut samples = Vec::new();
        for (round, slow) in [(1, 1.0), (2, 3.0), (3, 1.1)] {
            samples.push(sample("usb", "SINO", "t", round, 2.0 * slow));
            samples.push(sample("usb", "other", "t", round, 4.0 * slow));
        }
        samples.push(sample("usb", "other", "t", 4, 1000.0));
        let all = series(&samples);
        let ratio = all[1].over(&all[0]).unwrap();
        assert!((ratio.median - 2.0).abs() < 1e-9 && (ratio.least - 2.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.most - 2.0).abs() < 1e-9 && ratio.count == 3, "{ratio:?}");
        assert_eq!(all[0].over(&Series { values: vec![(9, 1.0)], ..all[0].clone() }), None);
        assert_eq!(all[0].over(&Series { values: vec![(1, 0.0)], ..all[0].clone() }), None);
        assert_eq!(Series { unit: Unit::Kibibytes, ..all[0].clone() }.over(&all[1]), None);
    }

    #[test]
    fn the_order_is_that_of_the_samples() {
        let samples = [
            sample("usb", "b", "t", 1, 1.0),
            sample("usb", "b", "u", 1, 1.0),
            sample("usb", "a", "t", 1, 1.0),
            sample("cd", "a", "t", 1, 1.0),
            sample("usb", "a", "u", 1, 1.0),
            sample("usb", "b", "t", 2, 3.0),
        ];
        let all = series(&samples);
        let order: Vec<_> = all.iter().map(|series| (series.case, series.figure, series.contender)).collect();
        assert_eq!(
            order,
            [("usb", "t", "b"), ("usb", "t", "a"), ("usb", "u", "b"), ("usb", "u", "a"), ("cd", "t", "a")]
        );
        assert_eq!(all[0].spread(), Some(Spread { median: 2.0, least: 1.0, most: 3.0, count: 2 }));
    }
}
