//! Thrift's compact protocol (thrift-compact-protocol.md), as far as footers and page headers need it: to look at numbers before anything
//! is allocated by them.

/// What a field or an element is.
pub(super) const STRUCT: u8 = 12;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const BINARY: u8 = 8;
/// Structs within structs that are skipped.
const DEPTH: usize = 32;

/// Why something cannot be read.
pub(super) type Fault = String;

fn cut_off() -> Fault {
    "it is cut off".into()
}

/// Bytes that are read on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The most elements of a list.
    list: usize,
}

/// Reads the fields of one struct.
#[derive(Debug, Default)]
pub(super) struct Fields {
    last: i16,
}

impl<'a> Reader<'a> {
    /// From the beginning of `bytes` on. Lists of more than `list` elements are refused.
    pub fn new(bytes: &'a [u8], list: usize) -> Self {
        Self { bytes, at: 0, list }
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    fn rest(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(cut_off)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number has too many bytes".into())
    }

    fn zigzag(&mut self) -> Result<i64, Fault> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number of 32 bits.
    pub fn int(&mut self, kind: u8) -> Result<i32, Fault> {
        if !matches!(kind, 4 | 5) {
            return Err("a field is no number".into());
        }
        i32::try_from(self.zigzag()?).map_err(|_| "a number has more than 32 bits".into())
    }

    /// A number of 32 bits that is no less than 0.
    pub fn size(&mut self, kind: u8) -> Result<usize, Fault> {
        let number = self.int(kind)?;
        usize::try_from(number).map_err(|_| format!("a size is {number}"))
    }

    fn skip_bytes(&mut self, bytes: u64) -> Result<(), Fault> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.rest());
        self.at += bytes.ok_or_else(cut_off)?;
        Ok(())
    }

    /// The elements of a list, by number and kind.
    pub fn list(&mut self, kind: u8) -> Result<(usize, u8), Fault> {
        if !matches!(kind, LIST | SET) {
            return Err("a field is no list".into());
        }
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        // Each element takes a byte at least.
        let count = usize::try_from(count).ok().filter(|count| *count <= self.rest());
        let count = count.ok_or("a list has more elements than there are bytes")?;
        if count > self.list {
            return Err(format!("a list has {count} elements, more than {}", self.list));
        }
        Ok((count, head & 0x0f))
    }

    /// Goes over a value.
    pub fn skip(&mut self, kind: u8) -> Result<(), Fault> {
        self.skip_to(kind, DEPTH)
    }

    fn skip_to(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deep")?;
        match kind {
            // Of a field they are said by its kind alone.
            1 | 2 => Ok(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            BINARY => {
                let bytes = self.varint()?;
                self.skip_bytes(bytes)
            }
            LIST | SET => {
                let (count, element) = self.list(kind)?;
                (0..count).try_for_each(|_| self.skip_element(element, depth))
            }
            MAP => self.skip_map(depth),
            STRUCT => {
                let mut fields = Fields::default();
                while let Some((_, kind)) = fields.next(self)? {
                    self.skip_to(kind, depth)?;
                }
                Ok(())
            }
            _ => Err("there is a field of no kind that Thrift has".into()),
        }
    }

    fn skip_element(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        match kind {
            1 | 2 => self.skip_bytes(1),
            kind => self.skip_to(kind, depth),
        }
    }

    fn skip_map(&mut self, depth: usize) -> Result<(), Fault> {
        let count = self.varint()?;
        if count == 0 {
            return Ok(());
        }
        if count > self.rest() as u64 {
            return Err("a map has more entries than there are bytes".into());
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.skip_element(kinds >> 4, depth)?;
            self.skip_element(kinds & 0x0f, depth)
        })
    }
}

impl Fields {
    /// The next field's number and kind; `None` at the struct's end.
    pub fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<(i16, u8)>, Fault> {
        let head = reader.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let number = match head >> 4 {
            0 => i16::try_from(reader.zigzag()?).ok(),
            step => self.last.checked_add(i16::from(step)),
        };
        self.last = number.ok_or("the number of a field is too large")?;
        Ok(Some((self.last, head & 0x0f)))
    }
}
