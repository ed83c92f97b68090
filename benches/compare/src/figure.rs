//! What a measuring process says: one JSON object a line on its standard output.

use serde::{Deserialize, Serialize};

use crate::measure::Measured;

/// What a figure counts, and so which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Operations (entries, for scans) a second: more is better.
    PerSecond,
    /// Bytes: less is better.
    Bytes,
    /// Bytes for each byte of the user's: less is better.
    Times,
    /// Milliseconds: less is better.
    Millis,
}

/// How long single calls took, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

/// One figure of one line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub line: String,
    pub unit: Unit,
    pub value: f64,
    pub latency: Option<Latency>,
}

/// What a measuring process writes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    Figure(Figure),
    /// Points of a curve, for a plot.
    Curve {
        name: String,
        points: Vec<(f64, f64)>,
    },
    /// Everything is as it should be: kill me.
    Ready,
}

impl Unit {
    pub fn more_is_better(self) -> bool {
        self == Unit::PerSecond
    }

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "per_second",
            Unit::Bytes => "bytes",
            Unit::Times => "times",
            Unit::Millis => "ms",
        }
    }

    pub fn heading(self) -> &'static str {
        match self {
            Unit::PerSecond => "operations a second (more is better)",
            Unit::Bytes => "MiB (less is better)",
            Unit::Times => "times the user's bytes (less is better)",
            Unit::Millis => "milliseconds (less is better)",
        }
    }

    /// For people.
    pub fn show(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => "-".to_owned(),
            Unit::PerSecond => thousands(value),
            Unit::Bytes => format!("{:.1}", value / f64::from(1 << 20)),
            Unit::Times => format!("{value:.2}"),
            Unit::Millis => format!("{value:.2}"),
        }
    }
}

impl Figure {
    pub fn new(line: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure {
            line: line.into(),
            unit,
            value,
            latency: None,
        }
    }

    pub fn rate(line: impl Into<String>, measured: &Measured) -> Figure {
        Figure {
            latency: Some(Latency::of(measured)),
            ..Figure::new(line, Unit::PerSecond, measured.per_second)
        }
    }
}

impl Latency {
    pub fn of(measured: &Measured) -> Latency {
        let us = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            p9999: us(0.9999),
            max: us(1.0),
        }
    }

    pub fn all(&self) -> [f64; 5] {
        [self.p50, self.p99, self.p999, self.p9999, self.max]
    }
}

/// Middle of some values; not a number if there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn thousands(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_way_between_processes() {
        let figure = Figure::rate(
            "a line",
            &crate::measure::took(10, std::time::Duration::from_millis(2)),
        );
        let item = Item::Figure(figure);
        let text = serde_json::to_string(&item).unwrap();
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item);
    }

    #[test]
    fn large_numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(1234567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
    }
}
