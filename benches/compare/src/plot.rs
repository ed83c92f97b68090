//! Curves as SVG, by hand: a few polylines, axes with a few marks.

use std::fmt::Write as _;

use crate::figure::thousands;

/// A named polyline.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How the horizontal axis runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Even,
    /// By the logarithm: for points that grow by factors.
    Factors,
}

const COLOURS: [&str; 6] = ["#264", "#c60", "#06c", "#909", "#888", "#a90"];
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;

/// A plot from zero up; the first curve is ours.
pub fn svg(title: &str, across: &str, axis: Axis, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let place = |x: f64| match axis {
        Axis::Even => x,
        Axis::Factors => x.max(f64::MIN_POSITIVE).log10(),
    };
    let low = all().map(|(x, _)| place(x)).fold(f64::INFINITY, f64::min);
    let high = all().map(|(x, _)| place(x)).fold(f64::NEG_INFINITY, f64::max);
    let most = all().map(|(_, y)| y).fold(0.0, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return String::new();
    }
    let (wide, tall) = ((high - low).max(1e-9), most.max(1e-9));
    let at = |(x, y): (f64, f64)| {
        (
            LEFT + (place(x) - low) / wide * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / tall * (HEIGHT - TOP - BOTTOM),
        )
    };
    let mut out = format!(
        "<svg width={WIDTH} height={HEIGHT} font-size=11 font-family=sans-serif>\
         <text x=4 y=16 font-weight=bold>{title}</text>\
         <text x={:.0} y={:.0} text-anchor=middle>{across}</text>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0
    );
    for quarter in 0..=4 {
        let value = tall * f64::from(quarter) / 4.0;
        let (_, y) = at((1.0, value));
        let _ = writeln!(
            out,
            "<line x1={LEFT} x2={:.0} y1={y:.1} y2={y:.1} stroke=#ddd />\
             <text x={:.0} y={:.1} text-anchor=end>{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            short(value)
        );
    }
    let mut marks: Vec<f64> = all().map(|(x, _)| x).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks.iter().step_by(marks.len().div_ceil(6)) {
        let (x, _) = at((*mark, 0.0));
        let _ = writeln!(
            out,
            "<text x={x:.1} y={:.0} text-anchor=middle>{}</text>",
            HEIGHT - BOTTOM + 14.0,
            short(*mark)
        );
    }
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS.get(i % COLOURS.len()).unwrap_or(&"#000");
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|point| {
                let (x, y) = at(*point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=none stroke={colour} stroke-width={} />\
             <text x={:.0} y={:.0} fill={colour}>{}</text>",
            points.join(" "),
            if i == 0 { 2.5 } else { 1.2 },
            WIDTH - RIGHT + 8.0,
            TOP + 10.0 + 16.0 * i as f64,
            curve.name
        );
        if curve.points.len() <= 20 {
            for point in &curve.points {
                let (x, y) = at(*point);
                let _ = writeln!(out, "<circle cx={x:.1} cy={y:.1} r=2.5 fill={colour} />");
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", (v / 1e5).round() / 10.0),
        v if v >= 1e4 => format!("{} k", thousands(v / 1e3)),
        v if v >= 100.0 || v == v.round() => thousands(v),
        v => format!("{v:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_each_curve_and_one_without_points_is_nothing() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve {
            name: name.to_owned(),
            points: points.to_vec(),
        };
        let curves = [
            curve("ours", &[(1.0, 5.0), (10.0, 7.0)]),
            curve("theirs", &[(1.0, 1.0), (10.0, 2.0)]),
        ];
        let plot = svg("t", "keys", Axis::Factors, &curves);
        assert_eq!(plot.matches("<polyline").count(), 2);
        assert!(plot.contains("90.0,") && plot.contains("450.0,") && !plot.contains("NaN"));
        assert_eq!(svg("t", "x", Axis::Even, &[curve("none", &[])]), "");
    }
}
