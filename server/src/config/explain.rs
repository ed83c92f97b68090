//! What is wrong with a configuration, in words: where it stands, and what was probably meant.

/// Replication names its own fields; put the table they have here in front.
pub(super) fn section(message: &str) -> String {
    let field = message.split([':', '.']).next().unwrap_or_default();
    match field {
        "node" => format!("node.name{}", message.strip_prefix("node").unwrap_or_default()),
        "data_dir" | "side_dir" => format!("node.{message}"),
        "peer" | "tls" | "window_bytes" => format!("replication.{message}"),
        _ => format!("engine: {message}"),
    }
}

/// Figment's error with its place, and the nearest known key for an unknown one.
pub(super) fn explain(error: figment::Error, source: &str) -> String {
    let mut lines = Vec::new();
    for e in error {
        let path = e.path.join(".");
        let origin = match &e.metadata {
            Some(m) if m.name.contains("environment") => "environment".to_string(),
            Some(m) if m.name.contains("TOML") => source.to_string(),
            Some(_) => "flags".to_string(),
            None => source.to_string(),
        };
        let text = match &e.kind {
            figment::error::Kind::UnknownField(name, known) => {
                let full = if path.is_empty() || path.ends_with(name.as_str()) {
                    if path.is_empty() {
                        name.clone()
                    } else {
                        path.clone()
                    }
                } else {
                    format!("{path}.{name}")
                };
                let hint = match nearest(name, known) {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => format!("; known here: {}", known.join(", ")),
                };
                format!("unknown key `{full}`{hint}")
            }
            figment::error::Kind::MissingField(name) => {
                let full = if path.is_empty() {
                    name.to_string()
                } else {
                    format!("{path}.{name}")
                };
                format!("missing key `{full}`")
            }
            kind if path.is_empty() => kind.to_string(),
            kind => format!("{path}: {kind}"),
        };
        lines.push(format!("{origin}: {text}"));
    }
    lines.join("\n")
}

/// The known key within two edits, if any.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (distance(name, k), *k))
        .min()
        .filter(|(d, _)| *d <= 2)
        .map(|(_, k)| k)
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut last = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let change = last + usize::from(x != y);
            last = *cell;
            left = change.min(left + 1).min(last + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
