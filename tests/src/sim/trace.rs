//! A hash over what a run did and saw: two runs of one seed must agree in it.

/// Grows with every step.
#[derive(Clone, Debug)]
pub struct Trace(u64);

impl Trace {
    /// Nothing happened yet.
    pub fn new() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }

    /// Something happened.
    pub fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(b'\n');
    }

    /// A number was seen.
    pub fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.0
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}
