//! The merged values of all sources, each with its origin, and their deserializer.
//!
//! A serde deserializer of its own, rather than `toml`'s, since only here the origin and the path of a value are known
//! when a type refuses it, and only here a variable's text can become whatever type its key has.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use toml::Value;

use super::error::{ConfigError, Origin};
use super::words;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Table(BTreeMap<String, Node>),
    Leaf(Value, Origin),
}

impl Node {
    pub(super) fn table() -> Self {
        Self::Table(BTreeMap::new())
    }

    /// A value from one source; a table becomes a table of nodes, so that sources merge key by key.
    pub(super) fn leaf(value: Value, origin: &Origin) -> Self {
        match value {
            Value::Table(table) => Self::Table(
                table.into_iter().map(|(key, value)| (key, Self::leaf(value, origin))).collect(),
            ),
            value => Self::Leaf(value, origin.clone()),
        }
    }

    /// Lays `over` on top.
    pub(super) fn merge(&mut self, over: Self) {
        match (self, over) {
            (Self::Table(below), Self::Table(over)) => {
                for (key, node) in over {
                    below.entry(key).or_insert_with(Self::table).merge(node);
                }
            }
            (below, over) => *below = over,
        }
    }

    /// Lays one value on top, at a path. A plain variable never replaces a section.
    pub(super) fn set(&mut self, keys: &[String], value: Self) {
        if let (Self::Table(table), [key], true) = (&*self, keys, value.is_plain_variable())
            && let Some(Self::Table(_)) = table.get(key)
        {
            return;
        }
        let wrap = |inner, key: &String| Self::Table(BTreeMap::from([(key.clone(), inner)]));
        self.merge(keys.iter().rev().fold(value, wrap));
    }

    /// Where the value at a dotted key came from; `None` for a default.
    pub(super) fn origin_of(&self, key: &str) -> Option<&Origin> {
        let mut node = self;
        for key in key.split('.') {
            let Self::Table(table) = node else { break };
            node = table.get(key)?;
        }
        node.origin()
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Table(table) => table.values().find_map(Self::origin),
            Self::Leaf(_, origin) => Some(origin),
        }
    }

    /// Whether it comes from a variable without `__`, which may be somebody else's.
    fn is_plain_variable(&self) -> bool {
        match self {
            Self::Leaf(_, Origin::Variable(name)) => !name.contains("__"),
            Self::Table(_) | Self::Leaf(..) => false,
        }
    }

    /// The text of a variable or flag, which may stand for any type; `None` for a typed value.
    fn untyped(&self) -> Option<&str> {
        match self {
            Self::Leaf(Value::String(text), Origin::Variable(_) | Origin::CommandLine) => {
                Some(text)
            }
            Self::Table(_) | Self::Leaf(..) => None,
        }
    }
}

/// Numbers and booleans: parses a variable's text, and leaves typed values to the visitor.
macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match self.untyped() {
                Some(text) => visitor.$visit(parse::<$type>(text, $expected)?),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::String(text) => Unexpected::Str(text),
        Value::Integer(number) => Unexpected::Signed(*number),
        Value::Float(number) => Unexpected::Float(*number),
        Value::Boolean(flag) => Unexpected::Bool(*flag),
        Value::Datetime(_) => Unexpected::Other("a date"),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
    }
}

fn parse<T: FromStr>(text: &str, expected: &'static str) -> Result<T, ConfigError> {
    let refused = |_| ConfigError::invalid_value(Unexpected::Str(text), &expected);
    text.trim().parse().map_err(refused)
}

impl<'de> Deserializer<'de> for Node {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let (value, origin) = match self {
            Self::Table(table) => {
                return visitor.visit_map(Entries { rest: table.into_iter(), value: None });
            }
            Self::Leaf(value, origin) => (value, origin),
        };
        match value {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(flag) => visitor.visit_bool(flag),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(items) => {
                let nodes = items.into_iter().map(|item| Self::leaf(item, &origin)).collect();
                visitor.visit_seq(Items::new(nodes))
            }
            table @ Value::Table(_) => Self::leaf(table, &origin).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let table = match self {
            Self::Table(table) => table,
            leaf if leaf.is_plain_variable() => BTreeMap::new(),
            Self::Leaf(value, _) => {
                let found = words::shown(&unexpected(&value));
                let problem = format!("must be a section with keys of its own, not {found}");
                return Err(ConfigError::other(&problem));
            }
        };
        let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
            table.into_iter().partition(|(key, _)| fields.contains(&key.as_str()));
        match unknown.iter().find(|(_, node)| !node.is_plain_variable()) {
            Some((key, node)) => Err(ConfigError::unknown_key(key, fields, node.origin())),
            None => visitor.visit_map(Entries { rest: known.into_iter(), value: None }),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let found = match &self {
            Self::Leaf(Value::String(text), _) => {
                return visitor.visit_enum(text.as_str().into_deserializer());
            }
            Self::Leaf(value, _) => unexpected(value),
            Self::Table(_) => Unexpected::Map,
        };
        Err(ConfigError::other(&words::must_be_one_of(&found, variants)))
    }

    /// A variable's text is a list with commas between its items.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        if let Self::Table(_) = self {
            return Err(ConfigError::one_section());
        }
        let Some(text) = self.untyped() else { return self.deserialize_any(visitor) };
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        // An error in an item gets its origin from the list; as items they have to be untyped, no more.
        let untyped = |item: &str| Self::Leaf(Value::String(item.to_owned()), Origin::CommandLine);
        visitor.visit_seq(Items::new(items.map(untyped).collect()))
    }

    parsed! {
        deserialize_bool visit_bool bool, "bool";
        deserialize_i8 visit_i64 i64, "i8";
        deserialize_i16 visit_i64 i64, "i16";
        deserialize_i32 visit_i64 i64, "i32";
        deserialize_i64 visit_i64 i64, "i64";
        deserialize_u8 visit_u64 u64, "u8";
        deserialize_u16 visit_u64 u64, "u16";
        deserialize_u32 visit_u64 u64, "u32";
        deserialize_u64 visit_u64 u64, "u64";
        deserialize_f32 visit_f64 f64, "f32";
        deserialize_f64 visit_f64 f64, "f64";
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ConfigError> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A list's items; errors in one learn its number here.
struct Items {
    rest: std::vec::IntoIter<Node>,
    index: usize,
}

impl Items {
    fn new(items: Vec<Node>) -> Self {
        Self { rest: items.into_iter(), index: 0 }
    }
}

impl<'de> SeqAccess<'de> for Items {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        let (index, is_section) = (self.index, matches!(node, Node::Table(_)));
        self.index += 1;
        seed.deserialize(node).map(Some).map_err(|error| error.at_entry(index, is_section))
    }
}

/// A table's entries; errors in a value learn its key and origin here.
struct Entries {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let name: StrDeserializer<'_, ConfigError> = key.as_str().into_deserializer();
        let value = seed.deserialize(name).map_err(|error| error.within(&key, node.origin()))?;
        self.value = Some((key, node));
        Ok(Some(value))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ConfigError> {
        let Some((key, node)) = self.value.take() else {
            return Err(ConfigError::other(&"a value was asked for before its key"));
        };
        let origin = node.origin().cloned();
        seed.deserialize(node).map_err(|error| error.within(&key, origin.as_ref()))
    }
}
