//! Reading little-endian fields and varints from bytes that came from outside: every read is checked, none panics.

/// A cursor over untrusted bytes. Each method takes bytes off the front, or returns None and takes none.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len)?;
        self.rest = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    #[cfg(any(test, feature = "sim"))]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A varint (docs/format.md, 1.1) in as few bytes as it can have: one number has one encoding.
    pub fn varint(&mut self) -> Option<u64> {
        let mut rest = *self;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = rest.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                *self = rest;
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// The same of one that fits in 32 bits.
    pub fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }
}

/// Appends a varint.
pub(crate) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::{Reader, push_varint};

    #[test]
    fn a_varint_reads_back_and_a_longer_or_larger_or_cut_encoding_is_none() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut bytes = Vec::new();
            push_varint(value, &mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.varint(), reader.remaining()), (Some(value), 0));
            assert_eq!(
                Reader::new(&bytes).varint_u32().map(u64::from),
                Some(value).filter(|value| *value <= u64::from(u32::MAX))
            );
            let mut cut = Reader::new(&bytes[..bytes.len() - 1]);
            assert_eq!((cut.varint(), cut.remaining()), (None, bytes.len() - 1));
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push(0);
            assert_eq!(Reader::new(&bytes).varint(), None, "{value} in a byte more");
        }
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(Reader::new(&too_large).varint(), None);
    }

    #[test]
    fn fields_come_off_in_order_and_a_short_read_takes_nothing() {
        let mut r = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!((r.u8(), r.u16(), r.u32()), (Some(1), Some(2), Some(3)));
        assert_eq!(r.u64(), None);
        assert_eq!((r.remaining(), r.u8(), r.u8()), (1, Some(9), None));
    }
}
