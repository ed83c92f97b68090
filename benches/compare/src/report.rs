//! The report: medians over rounds, ratios to the best of the others; text, CSV and a page with bars.

use std::fmt::Write as _;

use crate::measure::Measured;

/// All rounds of one line on one engine.
pub struct Cell {
    pub engine: &'static str,
    pub rounds: Vec<Measured>,
}

/// One line of the report.
pub struct Row {
    pub line: &'static str,
    pub cells: Vec<Cell>,
}

impl Cell {
    /// Median of operations a second.
    pub fn median(&self) -> f64 {
        let mut rates: Vec<f64> = self.rounds.iter().map(|m| m.per_second).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Median over rounds of a latency quantile, in microseconds.
    fn latency(&self, quantile: f64) -> f64 {
        let mut values: Vec<u64> = self
            .rounds
            .iter()
            .map(|m| m.latency.value_at_quantile(quantile))
            .collect();
        values.sort_unstable();
        values
            .get(values.len() / 2)
            .map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
    }
}

impl Row {
    /// Ours over the best of the others.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, others) = self.cells.split_first()?;
        let best = others.iter().map(Cell::median).reduce(f64::max)?;
        Some(ours.median() / best)
    }
}

/// A table for people.
pub fn text(rows: &[Row]) -> String {
    let mut out = format!("{:<32}", "operations a second");
    let Some(first) = rows.first() else { return out };
    for cell in &first.cells {
        let _ = write!(out, "{:>13}", cell.engine);
    }
    out.push_str("   ours / best of the others\n");
    for row in rows {
        let _ = write!(out, "{:<32}", row.line);
        for cell in &row.cells {
            let _ = write!(out, "{:>13}", thousands(cell.median()));
        }
        let ratio = row
            .ratio()
            .map(|r| format!("   {r:5.2}{}", if r < 1.0 { "  behind" } else { "" }));
        let _ = writeln!(out, "{}", ratio.unwrap_or_default());
    }
    out
}

/// Every round, for programs.
pub fn csv(rows: &[Row]) -> String {
    let mut out = String::from("line,engine,round,per_second,p50_us,p99_us,p999_us,max_us\n");
    for row in rows {
        for cell in &row.cells {
            for (round, m) in cell.rounds.iter().enumerate() {
                let us = |q| m.latency.value_at_quantile(q) as f64 / 1000.0;
                let _ = writeln!(
                    out,
                    "\"{}\",{},{round},{:.0},{:.2},{:.2},{:.2},{:.2}",
                    row.line,
                    cell.engine,
                    m.per_second,
                    us(0.5),
                    us(0.99),
                    us(0.999),
                    us(1.0)
                );
            }
        }
    }
    out
}

/// A page: bars for rates, percentiles beside them.
pub fn html(rows: &[Row], about: &str) -> String {
    let mut out = String::from(
        "<!doctype html><meta charset=utf-8><title>Strongroom beside others</title><style>\
         body{font:14px sans-serif;margin:2em;max-width:60em}td{padding:2px 8px;white-space:nowrap}\
         .bar{background:#9ab;height:12px}.ours .bar{background:#264}.num{text-align:right}</style>\n",
    );
    let _ = writeln!(out, "<h1>Strongroom beside others</h1><pre>{about}</pre>");
    for row in rows {
        let ratio = row
            .ratio()
            .map(|r| format!(" (ours / best of the others: {r:.2})"))
            .unwrap_or_default();
        let _ = writeln!(out, "<h3>{}{ratio}</h3><table>", row.line);
        let most = row.cells.iter().map(Cell::median).fold(1.0, f64::max);
        for (i, cell) in row.cells.iter().enumerate() {
            let class = if i == 0 { " class=ours" } else { "" };
            let _ = writeln!(
                out,
                "<tr{class}><td>{}<td class=num>{}<td><div class=bar style=width:{:.0}px></div>\
                 <td class=num>p50 {:.1} µs<td class=num>p99 {:.1}<td class=num>p99.9 {:.1}<td class=num>max {:.0}",
                cell.engine,
                thousands(cell.median()),
                300.0 * cell.median() / most,
                cell.latency(0.5),
                cell.latency(0.99),
                cell.latency(0.999),
                cell.latency(1.0),
            );
        }
        out.push_str("</table>\n");
    }
    out
}

fn thousands(n: f64) -> String {
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
