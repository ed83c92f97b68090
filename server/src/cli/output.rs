//! What a verb prints: tables for people, one JSON object for programs, on standard output. Logs,
//! questions and progress go to standard error.
//!
//! Every JSON object carries `"schema": 1`. Fields are only ever added.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

use super::exit::{Exit, Failure, Outcome};

/// Version of every JSON object printed.
pub const SCHEMA: u64 = 1;

/// `-o`: who reads the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one object with `"schema": 1`.
    Json,
}

/// Writes a line to standard output. A closed pipe ends the process quietly, as `head` expects.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(Exit::Ok as u8));
    }
}

/// Prints a JSON object with its schema.
pub fn json(fields: Value) {
    let mut object = Map::new();
    object.insert("schema".into(), SCHEMA.into());
    match fields {
        Value::Object(fields) => object.extend(fields),
        other => {
            object.insert("result".into(), other);
        }
    }
    line(&Value::Object(object).to_string());
}

/// Prints rows under a heading: bordered on a terminal, plain columns elsewhere.
pub fn table<R: IntoIterator<Item = Vec<String>>>(heading: &[&str], rows: R) {
    let mut table = Table::new();
    table.load_style(if std::io::stdout().is_terminal() {
        presets::UTF8_BORDERS_ONLY
    } else {
        presets::NOTHING
    });
    table.set_header(heading.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for text in table.to_string().lines() {
        line(text.trim_end());
    }
}

/// Asks on the terminal; anything but `yes` (or `y`) is a no. Without a terminal it fails and names
/// the flag that answers.
pub fn confirm(question: &str, flag: &str) -> Outcome<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "{question}\nNo terminal to ask on: add {flag} to go ahead."
        )));
    }
    eprint!("{question} [yes/no] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

/// A progress bar on standard error; draws nothing unless that is a terminal. `total` 0: unknown.
pub fn progress(total: u64, unit: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
    let template = if total > 0 {
        format!("{{bar:32}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}")
    } else {
        format!("{{spinner}} {{human_pos}} {unit}  {{per_sec}}  {{msg}}")
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit: `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = n as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("B");
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{amount:.1} {name}")
    }
}

/// A duration as a person says it: `340 µs`, `12.4 ms`, `3.20 s`.
pub fn span(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        m if m < 1e3 => format!("{m:.0} µs"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(350_139), "350,139");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(span(Duration::from_micros(340)), "340 µs");
        assert_eq!(span(Duration::from_micros(12_400)), "12.4 ms");
        assert_eq!(span(Duration::from_millis(3200)), "3.20 s");
    }
}
