//! Reading little-endian fields from bytes that came from outside: every read is checked, none panics.

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

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes `len` bytes that must all be zero.
    pub fn zeros(&mut self, len: usize) -> Option<()> {
        self.take(len)?.iter().all(|b| *b == 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn fields_come_off_in_order_and_a_short_read_takes_nothing() {
        let mut r = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!((r.u8(), r.u16(), r.u32()), (Some(1), Some(2), Some(3)));
        assert_eq!(r.u64(), None);
        assert_eq!((r.remaining(), r.u8(), r.u8()), (1, Some(9), None));
    }
}
