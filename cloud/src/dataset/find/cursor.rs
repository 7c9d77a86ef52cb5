//! Where a search goes on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

/// How far a search has come: written as `OBJECT.EXTENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor {
    /// The ordinal of an object.
    pub(super) object: u64,
    /// The number of an extent in it.
    pub(super) extent: usize,
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.object, self.extent)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('.').and_then(|(object, extent)| {
            Some(Self { object: object.parse().ok()?, extent: extent.parse().ok()? })
        });
        parts.ok_or("it is OBJECT.EXTENT, as where an earlier search ended: \"3.17\"")
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
