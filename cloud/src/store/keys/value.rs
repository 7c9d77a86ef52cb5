//! Reads fixed layouts without a panic.

use bytes::Buf;

/// What is wrong with a key's or a value's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It ends too early.
    #[error("it ends too early")]
    Short,
    /// There is more than the layout has.
    #[error("it has {0} bytes too many")]
    Long(usize),
    /// Its version byte is one that this release does not know.
    #[error("its layout version {0} is unknown to this release")]
    Version(u8),
    /// A text in it is not text.
    #[error("it holds a text that is not valid")]
    Text,
    /// A field has a value that it cannot have.
    #[error("its field {0} has a value out of range")]
    Field(&'static str),
}

/// A cursor over a value.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

macro_rules! read {
    ($($name:ident: $type:ty = $get:ident),+ $(,)?) => {$(
        /// The next number, big-endian.
        ///
        /// # Errors
        /// [`ValueError::Short`].
        pub fn $name(&mut self) -> Result<$type, ValueError> {
            self.0.$get().map_err(|_| ValueError::Short)
        }
    )+};
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    read! {
        u8: u8 = try_get_u8,
        i16: i16 = try_get_i16,
        u32: u32 = try_get_u32,
        i32: i32 = try_get_i32,
        u64: u64 = try_get_u64,
        i64: i64 = try_get_i64,
    }

    /// Checks the version byte that starts the value.
    ///
    /// # Errors
    /// [`ValueError::Version`], [`ValueError::Short`].
    pub fn version(&mut self, known: u8) -> Result<(), ValueError> {
        match self.u8()? {
            version if version == known => Ok(()),
            version => Err(ValueError::Version(version)),
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`ValueError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(ValueError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// So many bytes.
    ///
    /// # Errors
    /// [`ValueError::Short`].
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], ValueError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ValueError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next text (see [`super::text`]).
    ///
    /// # Errors
    /// [`ValueError::Short`], [`ValueError::Text`].
    pub fn text(&mut self) -> Result<String, ValueError> {
        super::text::take(&mut self.0)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`ValueError::Long`].
    pub fn end(self) -> Result<(), ValueError> {
        if self.0.is_empty() { Ok(()) } else { Err(ValueError::Long(self.0.len())) }
    }
}
