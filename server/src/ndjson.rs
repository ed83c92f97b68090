//! NDJSON: one JSON object a line, from a file, a zstd-compressed file or standard input.
//!
//! A line is broken if it is not UTF-8, not one JSON object, names a field twice, or is longer than
//! [`LINE_BYTES_MAX`]. Blank lines are skipped but counted: numbers are those an editor shows.
//! Fields keep their order and their exact text, so nothing is rounded or reordered on the way.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest line: a value of the largest size, a key, and their JSON.
pub const LINE_BYTES_MAX: usize = 72 << 20;

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The fields of one object, in their order.
pub struct Object(pub Vec<(String, Box<RawValue>)>);

impl Object {
    /// Reads an object.
    pub fn parse(line: &[u8]) -> Result<Object, String> {
        let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => "not one JSON object with distinct fields".to_owned(),
            _ => format!("not JSON (column {})", error.column()),
        })
    }

    /// The text of a field, if it is a text field.
    pub fn text(&self, field: &str) -> Option<String> {
        let (_, raw) = self.0.iter().find(|(name, _)| name == field)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// The JSON text of a field.
    pub fn raw(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == field)
            .map(|(_, raw)| raw.get())
    }

    /// The object without some fields, as JSON: order and text of the others unchanged.
    pub fn without(&self, left_out: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut json = vec![b'{'];
        for (name, raw) in self.0.iter().filter(|(name, _)| !left_out(name)) {
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
            json.push(b':');
            json.extend_from_slice(raw.get().as_bytes());
        }
        json.push(b'}');
        json
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(serde::de::Error::custom("a field is named twice"));
                    }
                    fields.push((name, raw));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A line and its number, from 1.
pub struct Line {
    /// Number in the input; the first line is 1.
    pub number: u64,
    /// Without its line end.
    pub bytes: Vec<u8>,
}

/// A broken line, or an input that stopped being readable there.
#[derive(Debug)]
pub struct Broken {
    /// Which line.
    pub number: u64,
    /// What is wrong; never the line's content.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.why)
    }
}

/// Reads lines.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    number: u64,
}

impl Lines {
    /// From a file; compressed if it begins like zstd, whatever its name.
    pub fn file(path: &Path) -> std::io::Result<Lines> {
        Lines::read(File::open(path)?)
    }

    /// From standard input, which may be compressed too.
    pub fn stdin() -> std::io::Result<Lines> {
        Lines::read(std::io::stdin())
    }

    /// From bytes in memory.
    pub fn bytes(bytes: &'static [u8]) -> std::io::Result<Lines> {
        Lines::read(bytes)
    }

    /// From whatever can be read.
    pub fn read(input: impl Read + Send + 'static) -> std::io::Result<Lines> {
        let mut input = BufReader::with_capacity(256 << 10, input);
        // A pipe may hand over fewer bytes than the magic at first; text never begins with its first byte.
        let zstd = match input.fill_buf()? {
            [] => false,
            head => head.iter().zip(&ZSTD_MAGIC).all(|(a, b)| a == b),
        };
        let input: Box<dyn BufRead + Send> = if zstd {
            Box::new(BufReader::with_capacity(
                256 << 10,
                Frames {
                    input: Some(input),
                    frame: None,
                },
            ))
        } else {
            Box::new(input)
        };
        Ok(Lines { input, number: 0 })
    }
}

impl Iterator for Lines {
    type Item = Result<Line, Broken>;

    fn next(&mut self) -> Option<Result<Line, Broken>> {
        loop {
            self.number += 1;
            let number = self.number;
            let mut bytes = Vec::with_capacity(256);
            let mut limited = (&mut self.input).take(LINE_BYTES_MAX as u64 + 1);
            match limited.read_until(b'\n', &mut bytes) {
                Err(error) => {
                    return Some(Err(Broken {
                        number,
                        why: format!("cannot be read: {error}"),
                    }));
                }
                Ok(0) => return None,
                Ok(_) => {}
            }
            if bytes.len() > LINE_BYTES_MAX {
                return Some(Err(Broken {
                    number,
                    why: format!("longer than {LINE_BYTES_MAX} bytes"),
                }));
            }
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Some(Ok(Line { number, bytes }));
            }
        }
    }
}

/// zstd frames, one after the other: `cat a.zst b.zst` is a valid file.
struct Frames<R: BufRead> {
    input: Option<R>,
    frame: Option<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let n = frame.read(buffer)?;
                if n > 0 || buffer.is_empty() {
                    return Ok(n);
                }
                self.input = self.frame.take().map(StreamingDecoder::into_inner);
            }
            let Some(mut input) = self.input.take() else {
                return Ok(0);
            };
            if input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(StreamingDecoder::new(input).map_err(std::io::Error::other)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<Result<(u64, String), u64>> {
        Lines::bytes(bytes)
            .unwrap()
            .map(|line| match line {
                Ok(line) => Ok((line.number, String::from_utf8(line.bytes).unwrap())),
                Err(broken) => Err(broken.number),
            })
            .collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does() {
        let got = lines(b"{}\n\n  \n{\"a\":1}\r\nlast");
        assert_eq!(
            got,
            [
                Ok((1, "{}".into())),
                Ok((4, "{\"a\":1}\r".into())),
                Ok((5, "last".into()))
            ]
        );
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn the_sample_unpacks() {
        let sample: &'static [u8] = include_bytes!("../data/sample.ndjson.zst");
        let all: Vec<_> = Lines::bytes(sample).unwrap().map(Result::unwrap).collect();
        assert_eq!(all.len(), 5000);
        let object = Object::parse(&all[0].bytes).unwrap();
        assert!(object.text("tenant").is_some() && object.text("ts").is_none());
    }

    #[test]
    fn a_truncated_zstd_file_is_a_broken_line_not_an_end() {
        let sample: &'static [u8] = include_bytes!("../data/sample.ndjson.zst");
        let results: Vec<_> = Lines::bytes(&sample[..sample.len() / 2])
            .unwrap()
            .take(5001)
            .collect();
        assert!(
            results.iter().any(Result::is_err),
            "half a file read as if it were whole"
        );
    }

    #[test]
    fn frames_one_after_the_other_are_one_input() {
        let sample: &'static [u8] = include_bytes!("../data/sample.ndjson.zst");
        let twice: &'static [u8] = Vec::leak([sample, sample].concat());
        assert_eq!(Lines::bytes(twice).unwrap().map(Result::unwrap).count(), 10_000);
    }

    #[test]
    fn objects_keep_order_and_text() {
        let object =
            Object::parse(br#" {"b":1.50,"a":{"x":[1, 2]},"k":"v","n":123456789012345678901} "#).unwrap();
        assert_eq!(
            object.without(|name| name == "k"),
            br#"{"b":1.50,"a":{"x":[1, 2]},"n":123456789012345678901}"#
        );
        assert_eq!(object.without(|_| true), b"{}");
    }

    #[test]
    fn what_is_not_one_object_is_broken() {
        let bad: [&[u8]; 8] = [
            b"[1]",
            b"1",
            b"\"a\"",
            b"{",
            b"{} {}",
            b"{\"a\":1,\"a\":2}",
            b"\xff",
            b"null",
        ];
        for line in bad {
            assert!(Object::parse(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
        let why = Object::parse(b"{\"secret\":tru").err().unwrap();
        assert!(!why.contains("secret"), "{why}");
    }
}
