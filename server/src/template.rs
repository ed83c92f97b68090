//! Key templates: how `load` makes a key from a line.
//!
//! ```text
//! template = { literal | '{' name [ ':' form ] '}' }
//! name     = a field of the object | '#'            '#' is the line's number, the first line is 1
//! form     = be1 | be2 | be4 | be8                  the integer, big-endian, in 1, 2, 4 or 8 bytes
//!          | hex                                    the bytes a text field spells in hexadecimal
//! literal  = any text; escapes: \xNN one byte, \\ \{ \}
//! ```
//!
//! Without a form a text field stands for its UTF-8 bytes, an integer for its decimal digits. With a `be`
//! form the field must be an integer from 0 to what the form holds: big-endian keeps numeric order.
//! `{user}\x00{ts:be8}{#:be4}` sorts by user, then time, and no two lines share a key. A variable-length
//! field that something follows wants a separator that cannot occur in it, such as `\x00`: otherwise
//! two different lines may make one key.

use std::fmt;

use serde_json::value::RawValue;
use strongroom::KEY_BYTES_MAX;

/// A parsed template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(Vec<u8>),
    Field { name: String, width: Option<usize> },
    Hex { name: String },
    Line { width: Option<usize> },
}

/// A text that is no template, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadTemplate(String);

impl fmt::Display for BadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a line makes no key.
#[derive(PartialEq, Eq, Debug)]
pub enum NoKey {
    /// The object lacks the field.
    Missing(String),
    /// The field is not text or an integer as the template needs.
    Kind {
        /// Which.
        field: String,
        /// What it must be.
        want: &'static str,
    },
    /// The integer does not fit its form.
    TooLarge {
        /// Which.
        field: String,
        /// What the form holds.
        bytes: usize,
    },
    /// The key has no byte, or too many.
    Length(usize),
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoKey::Missing(field) => write!(f, "field {field:?} of the key template is missing"),
            NoKey::Kind { field, want } => write!(f, "field {field:?} must be {want} for the key template"),
            NoKey::TooLarge { field, bytes } => write!(f, "field {field:?} does not fit {bytes} bytes"),
            NoKey::Length(length) => {
                write!(f, "the key has {length} bytes; 1 to {KEY_BYTES_MAX} are allowed")
            }
        }
    }
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Template, BadTemplate> {
        let bad = |what: String| BadTemplate(format!("key template {text:?}: {what}"));
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let tail = rest.get(c.len_utf8()..).unwrap_or("");
            match c {
                '\\' => {
                    let (byte, after) = escape(tail).map_err(&bad)?;
                    literal.push(byte);
                    rest = after;
                }
                '{' => {
                    let (inside, after) = tail
                        .split_once('}')
                        .ok_or_else(|| bad("a { has no }".to_owned()))?;
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(placeholder(inside).map_err(&bad)?);
                    rest = after;
                }
                '}' => return Err(bad("a } has no {; write \\} for the character".to_owned())),
                c => {
                    literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = tail;
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if !parts.iter().any(|part| !matches!(part, Part::Literal(_))) {
            return Err(bad(
                "names no field and no {#}: every line would make the same key".to_owned(),
            ));
        }
        Ok(Template { parts })
    }

    /// Whether the template uses this field.
    pub fn uses(&self, field: &str) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Field { name, .. } | Part::Hex { name } if name == field))
    }

    /// The key of line `number` with these fields: 1 to [`KEY_BYTES_MAX`] bytes.
    pub fn key(&self, fields: &[(String, Box<RawValue>)], number: u64) -> Result<Vec<u8>, NoKey> {
        let mut key = Vec::with_capacity(48);
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => key.extend_from_slice(bytes),
                Part::Line { width } => match width {
                    Some(width) => integer(&mut key, number, *width, "#")?,
                    None => key.extend_from_slice(number.to_string().as_bytes()),
                },
                Part::Hex { name } => {
                    let digits: Option<String> = serde_json::from_str(find(fields, name)?.get()).ok();
                    let bytes = digits.and_then(|digits| hex::decode(digits).ok());
                    let want = "hexadecimal text";
                    key.extend(bytes.ok_or_else(|| NoKey::Kind {
                        field: name.clone(),
                        want,
                    })?);
                }
                Part::Field { name, width } => {
                    let raw = find(fields, name)?;
                    match width {
                        Some(width) => {
                            let value: u64 = serde_json::from_str(raw.get()).map_err(|_| NoKey::Kind {
                                field: name.clone(),
                                want: "an integer of 0 or more",
                            })?;
                            integer(&mut key, value, *width, name)?;
                        }
                        None => plain(&mut key, raw, name)?,
                    }
                }
            }
        }
        if (1..=KEY_BYTES_MAX).contains(&key.len()) {
            Ok(key)
        } else {
            Err(NoKey::Length(key.len()))
        }
    }
}

fn find<'a>(fields: &'a [(String, Box<RawValue>)], name: &str) -> Result<&'a RawValue, NoKey> {
    let found = fields.iter().find(|(field, _)| field == name);
    found
        .map(|(_, raw)| &**raw)
        .ok_or_else(|| NoKey::Missing(name.to_owned()))
}

fn escape(tail: &str) -> Result<(u8, &str), String> {
    if let Some(after) = tail.strip_prefix('x') {
        let byte = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        return match (byte, after.get(2..)) {
            (Some(byte), Some(rest)) => Ok((byte, rest)),
            _ => Err("\\x wants two hexadecimal digits".to_owned()),
        };
    }
    ['\\', '{', '}']
        .into_iter()
        .find_map(|c| tail.strip_prefix(c).map(|rest| (c as u8, rest)))
        .ok_or_else(|| "\\ is followed by xNN, \\, { or }".to_owned())
}

fn placeholder(inside: &str) -> Result<Part, String> {
    let (name, form) = match inside.rsplit_once(':') {
        Some((name, form)) => (name, Some(form)),
        None => (inside, None),
    };
    let width = match form {
        None => None,
        Some("be1") => Some(1),
        Some("be2") => Some(2),
        Some("be4") => Some(4),
        Some("be8") => Some(8),
        Some("hex") if name != "#" && !name.is_empty() => {
            return Ok(Part::Hex {
                name: name.to_owned(),
            });
        }
        Some(other) => {
            return Err(format!(
                "form {other:?} is not be1, be2, be4, be8 or (of a field) hex"
            ));
        }
    };
    match name {
        "" => Err("a placeholder names no field".to_owned()),
        "#" => Ok(Part::Line { width }),
        name => Ok(Part::Field {
            name: name.to_owned(),
            width,
        }),
    }
}

fn integer(key: &mut Vec<u8>, value: u64, width: usize, field: &str) -> Result<(), NoKey> {
    let bytes = value.to_be_bytes();
    let (high, low) = bytes.split_at(8 - width.min(8));
    if high.iter().any(|byte| *byte != 0) {
        return Err(NoKey::TooLarge {
            field: field.to_owned(),
            bytes: width,
        });
    }
    key.extend_from_slice(low);
    Ok(())
}

fn plain(key: &mut Vec<u8>, raw: &RawValue, field: &str) -> Result<(), NoKey> {
    if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
        key.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    let digits = raw.get();
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoKey::Kind {
            field: field.to_owned(),
            want: "text or an integer",
        });
    }
    key.extend_from_slice(digits.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Vec<(String, Box<RawValue>)> {
        let map: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
        map.into_iter().collect()
    }

    #[test]
    fn fields_integers_literals_and_the_line_make_a_key() {
        let template = Template::parse(r"{user}\x00{ts:be8}/{#:be4}\{é").unwrap();
        let key = template
            .key(&fields(r#"{"user":"u\u00e9","ts":1300487820}"#), 7)
            .unwrap();
        let mut want = b"u\xc3\xa9\0".to_vec();
        want.extend(1_300_487_820u64.to_be_bytes());
        want.push(b'/');
        want.extend(7u32.to_be_bytes());
        want.extend("{é".as_bytes());
        assert_eq!(key, want);
        assert!(template.uses("user") && template.uses("ts") && !template.uses("path"));
    }

    #[test]
    fn integers_without_a_form_are_decimal() {
        let template = Template::parse("{n}:{#}").unwrap();
        assert_eq!(template.key(&fields(r#"{"n":-12}"#), 3).unwrap(), b"-12:3");
    }

    #[test]
    fn a_line_that_makes_no_key_says_why() {
        let template = Template::parse("{n:be2}").unwrap();
        let key = |json| template.key(&fields(json), 1);
        assert_eq!(key("{}"), Err(NoKey::Missing("n".into())));
        assert_eq!(key(r#"{"n":65535}"#), Ok(vec![255, 255]));
        assert_eq!(
            key(r#"{"n":65536}"#),
            Err(NoKey::TooLarge {
                field: "n".into(),
                bytes: 2
            })
        );
        assert!(matches!(key(r#"{"n":-1}"#), Err(NoKey::Kind { .. })));
        assert!(matches!(key(r#"{"n":"1"}"#), Err(NoKey::Kind { .. })));
        let template = Template::parse("{n:hex}").unwrap();
        assert_eq!(template.key(&fields(r#"{"n":"00fF"}"#), 1), Ok(vec![0, 255]));
        for json in [r#"{"n":"0"}"#, r#"{"n":"zz"}"#, r#"{"n":12}"#] {
            assert!(
                matches!(template.key(&fields(json), 1), Err(NoKey::Kind { .. })),
                "{json}"
            );
        }
        let template = Template::parse("{n}").unwrap();
        for json in [
            r#"{"n":null}"#,
            r#"{"n":1.5}"#,
            r#"{"n":[1]}"#,
            r#"{"n":true}"#,
            r#"{"n":1e3}"#,
        ] {
            assert!(
                matches!(template.key(&fields(json), 1), Err(NoKey::Kind { .. })),
                "{json}"
            );
        }
        assert_eq!(template.key(&fields(r#"{"n":""}"#), 1), Err(NoKey::Length(0)));
        let long = format!(r#"{{"n":"{}"}}"#, "k".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(
            template.key(&fields(&long), 1),
            Err(NoKey::Length(KEY_BYTES_MAX + 1))
        );
        let edge = format!(r#"{{"n":"{}"}}"#, "k".repeat(KEY_BYTES_MAX));
        assert_eq!(
            template.key(&fields(&edge), 1).map(|key| key.len()),
            Ok(KEY_BYTES_MAX)
        );
    }

    #[test]
    fn broken_templates_are_refused() {
        for text in [
            "", "constant", "{", "}", "{}", "{a", "{a:be3}", "{:be4}", "{#:hex}", r"\q{a}", r"\x1", r"{a}\",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
