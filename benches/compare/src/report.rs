//! The report: medians over rounds, ratios to the best of the others; text, CSV and a page with bars.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::figure::{Figure, Unit, median};

/// All rounds of one line on one engine; none if the engine has no such thing.
pub struct Cell {
    pub engine: &'static str,
    pub rounds: Vec<Figure>,
}

/// One line of the report; ours is the first cell.
pub struct Row {
    pub line: String,
    pub unit: Unit,
    pub cells: Vec<Cell>,
}

/// Rows in the order in which figures come.
pub struct Table {
    engines: Vec<&'static str>,
    pub rows: Vec<Row>,
}

impl Cell {
    pub fn median(&self) -> f64 {
        median(self.rounds.iter().map(|figure| figure.value).collect())
    }

    /// Medians over rounds of the latencies, in microseconds: p50, p99, p99.9, p99.99, longest.
    fn latency(&self) -> Option<[f64; 5]> {
        let rounds: Option<Vec<[f64; 5]>> = self
            .rounds
            .iter()
            .map(|figure| Some(figure.latency?.all()))
            .collect();
        let rounds = rounds.filter(|rounds| !rounds.is_empty())?;
        Some(std::array::from_fn(|i| {
            median(rounds.iter().map(|all| all[i]).collect())
        }))
    }
}

impl Row {
    /// How far ahead ours is of the best of the others: above 1 is ahead, whichever way is better.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, others) = self.cells.split_first()?;
        // Nothing at all is no achievement: it could not be seen (LMDB's writes through its map).
        let others = others.iter().map(Cell::median).filter(|m| *m > 0.0);
        let (ours, more) = (ours.median(), self.unit.more_is_better());
        let best = others.reduce(if more { f64::max } else { f64::min })?;
        let ratio = if more { ours / best } else { best / ours };
        ratio.is_finite().then_some(ratio)
    }
}

impl Table {
    pub fn new(engines: Vec<&'static str>) -> Table {
        Table {
            engines,
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, engine: &'static str, figure: Figure) {
        let (line, unit) = (figure.line.clone(), figure.unit);
        let at = self.rows.iter().position(|row| row.line == line);
        let at = at.unwrap_or_else(|| {
            let cells = self.engines.iter().map(|engine| Cell {
                engine,
                rounds: Vec::new(),
            });
            self.rows.push(Row {
                line,
                unit,
                cells: cells.collect(),
            });
            self.rows.len() - 1
        });
        let cell = self
            .rows
            .get_mut(at)
            .and_then(|row| row.cells.iter_mut().find(|cell| cell.engine == engine));
        if let Some(cell) = cell {
            cell.rounds.push(figure);
        }
    }

    /// A table for people, for each unit one.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let wide = self
            .rows
            .iter()
            .map(|row| row.line.len())
            .max()
            .unwrap_or(0)
            .max(40);
        for unit in [Unit::PerSecond, Unit::Times, Unit::Bytes, Unit::Millis] {
            let mut rows = self.rows.iter().filter(|row| row.unit == unit).peekable();
            if rows.peek().is_none() {
                continue;
            }
            let _ = write!(out, "\n{:<wide$}", unit.heading());
            for engine in &self.engines {
                let _ = write!(out, "{engine:>13}");
            }
            out.push_str(if self.engines.len() > 1 {
                "   ours to the best of the others\n"
            } else {
                "\n"
            });
            for row in rows {
                let _ = write!(out, "{:<wide$}", row.line);
                for cell in &row.cells {
                    let _ = write!(out, "{:>13}", unit.show(cell.median()));
                }
                let ratio = row
                    .ratio()
                    .map(|r| format!("   {r:5.2}{}", if r < 1.0 { "  behind" } else { "" }));
                let _ = writeln!(out, "{}", ratio.unwrap_or_default());
            }
        }
        out
    }

    /// Latencies of the lines that have them, for people.
    pub fn latencies(&self) -> String {
        let mut out = format!(
            "\n{:<46}{:>11}{:>11}{:>11}{:>11}{:>13}\n",
            "microseconds", "p50", "p99", "p99.9", "p99.99", "longest"
        );
        for row in &self.rows {
            for cell in &row.cells {
                if let Some(all) = cell.latency() {
                    let _ = write!(out, "{:<34}{:<12}", row.line, cell.engine);
                    for (value, wide) in all.into_iter().zip([11, 11, 11, 11, 13]) {
                        let _ = write!(out, "{value:>wide$.1}");
                    }
                    out.push('\n');
                }
            }
        }
        out
    }

    /// Every round, for programs.
    pub fn csv(&self) -> String {
        let mut out =
            String::from("line,engine,round,unit,value,p50_us,p99_us,p999_us,p9999_us,longest_us\n");
        for row in &self.rows {
            for cell in &row.cells {
                for (round, figure) in cell.rounds.iter().enumerate() {
                    let _ = write!(
                        out,
                        "\"{}\",{},{round},{},{:.3}",
                        row.line,
                        cell.engine,
                        row.unit.name(),
                        figure.value
                    );
                    match figure.latency {
                        Some(latency) => {
                            for us in latency.all() {
                                let _ = write!(out, ",{us:.2}");
                            }
                        }
                        None => out.push_str(",,,,,"),
                    }
                    out.push('\n');
                }
            }
        }
        out
    }

    /// For a page: bars, latencies beside them.
    pub fn html(&self) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let ratio = row.ratio();
            let class = match ratio {
                Some(ratio) if ratio < 1.0 => " class=behind",
                _ => "",
            };
            let ratio = ratio
                .map(|r| format!(" ours to the best of the others: {r:.2}"))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "<h3{class}>{}</h3><p>{}{ratio}</p><table>",
                row.line,
                row.unit.heading()
            );
            let medians = row.cells.iter().map(Cell::median).filter(|m| !m.is_nan());
            let most = medians.fold(f64::MIN_POSITIVE, f64::max);
            for (i, cell) in row.cells.iter().enumerate() {
                let value = cell.median();
                let (class, bar) = (if i == 0 { " class=ours" } else { "" }, 300.0 * value / most);
                let _ = write!(
                    out,
                    "<tr{class}><td>{}<td class=num>{}<td><div class=bar style=width:{:.0}px></div>",
                    cell.engine,
                    row.unit.show(value),
                    if bar.is_nan() { 0.0 } else { bar },
                );
                if let Some([p50, p99, p999, p9999, max]) = cell.latency() {
                    let _ = write!(
                        out,
                        "<td class=num>p50 {p50:.1} µs<td class=num>p99 {p99:.1}<td class=num>p99.9 {p999:.1}\
                         <td class=num>p99.99 {p9999:.1}<td class=num>longest {max:.0}"
                    );
                }
                out.push('\n');
            }
            out.push_str("</table>\n");
        }
        out
    }
}

/// What every reader of figures must know.
pub const FOOT: &str = "\
Ours is sealed (AES-256-GCM); the others are in clear. Buffered writes survive a kill of the process with ours,
RocksDB, fjall and LMDB. A power cut then leaves a prefix of the writes with ours, RocksDB and fjall; it may corrupt LMDB,
which runs with NO_SYNC and WRITE_MAP. redb's (Durability::None) are lost with the process, back to the last
durable commit. LMDB's cache is the page cache, of any size; its resident memory counts mapped pages. LMDB writes
through its map, so its write calls say nothing: compare bytes to the device. Synced puts go to a second LMDB environment.";

/// A whole page.
pub fn page(title: &str, about: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>\
         body{{font:14px sans-serif;margin:2em;max-width:70em}}td{{padding:2px 8px;white-space:nowrap}}\
         h3{{margin-bottom:0}}p{{margin:2px 0;color:#555}}.behind{{color:#a30}}\
         .bar{{background:#9ab;height:12px}}.ours .bar{{background:#264}}.num{{text-align:right}}\
         svg{{margin:8px 16px 8px 0}}</style>\n<h1>{title}</h1><pre>{about}</pre>\n{body}<pre>{FOOT}</pre></html>\n"
    )
}

/// Writes `NAME.txt`, `NAME.csv` and `NAME.html`. `NAME` may have dots of its own.
pub fn write(name: &Path, text: &str, csv: &str, html: &str) -> Result<()> {
    for (kind, content) in [("txt", text), ("csv", csv), ("html", html)] {
        let mut path = name.as_os_str().to_owned();
        path.push(".");
        path.push(kind);
        std::fs::write(path, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(unit: Unit, ours: &[f64], theirs: &[f64]) -> Table {
        let mut table = Table::new(vec!["strongroom", "other"]);
        for (engine, values) in [("strongroom", ours), ("other", theirs)] {
            for value in values {
                table.add(engine, Figure::new("a line", unit, *value));
            }
        }
        table
    }

    #[test]
    fn a_ratio_above_one_is_ahead_whichever_way_is_better() {
        let ratio = |unit| table(unit, &[9.0, 2.0, 1.0], &[4.0, 1.0, 5.0]).rows[0].ratio();
        assert_eq!(ratio(Unit::PerSecond), Some(0.5));
        assert_eq!(ratio(Unit::Bytes), Some(2.0));
    }

    #[test]
    fn a_line_that_an_engine_lacks_has_no_ratio_and_a_dash() {
        let table = table(Unit::PerSecond, &[1.0], &[]);
        assert_eq!(table.rows[0].ratio(), None);
        assert!(table.text().contains("-\n"));
    }
}
