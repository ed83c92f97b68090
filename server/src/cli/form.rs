//! How keys and values are written on a command line and in JSON: as UTF-8 text, or in hexadecimal.

use clap::ValueEnum;

use super::exit::{Failure, Outcome};

/// `--key-format`, `--value-format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Form {
    /// Text. What is not UTF-8 cannot be printed so.
    #[default]
    Utf8,
    /// Two hexadecimal digits a byte.
    Hex,
}

impl Form {
    /// Bytes from what the user typed.
    pub fn decode(self, what: &str, text: &str) -> Outcome<Vec<u8>> {
        match self {
            Form::Utf8 => Ok(text.as_bytes().to_vec()),
            Form::Hex => hex::decode(text).map_err(|error| Failure::usage(format!("{what}: {error}"))),
        }
    }

    /// Text from bytes, exactly: fails rather than change a byte.
    pub fn encode(self, what: &str, bytes: &[u8]) -> Outcome<String> {
        match self {
            Form::Utf8 => std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| Failure::failed(format!("a {what} is not UTF-8: use --{what}-format hex"))),
            Form::Hex => Ok(hex::encode(bytes)),
        }
    }

    /// Text for a person: what cannot be shown is escaped as in Rust.
    pub fn show(self, bytes: &[u8]) -> String {
        match self {
            Form::Utf8 => {
                let mut text = String::new();
                for chunk in bytes.utf8_chunks() {
                    for c in chunk.valid().chars() {
                        if c.is_control() {
                            text.extend(c.escape_default())
                        } else {
                            text.push(c)
                        }
                    }
                    for byte in chunk.invalid() {
                        text.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                text
            }
            Form::Hex => hex::encode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_exactly_or_refused() {
        assert_eq!(Form::Hex.decode("key", "00ff").unwrap(), [0, 255]);
        assert!(Form::Hex.decode("key", "0").is_err());
        assert_eq!(Form::Utf8.encode("key", "é".as_bytes()).unwrap(), "é");
        assert!(
            Form::Utf8
                .encode("key", &[0xff])
                .unwrap_err()
                .message
                .contains("--key-format hex")
        );
        assert_eq!(Form::Utf8.show(b"a\xff\n\0\xc3\xa9"), "a\\xff\\n\\u{0}é");
    }
}
