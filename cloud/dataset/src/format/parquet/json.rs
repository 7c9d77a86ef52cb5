//! Rows as JSON, as `arrow-json` writes them, but for what JSON has no form of: bytes are base64, and the keys of maps are text.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, MapArray, RecordBatch, StringArray};
use arrow_array::{BinaryViewArray, StructArray};
use arrow_json::writer::{LineDelimited, NullableEncoder, WriterBuilder, make_encoder};
use arrow_json::{Encoder, EncoderFactory, EncoderOptions};
use arrow_schema::{ArrowError, DataType, FieldRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends a line for each row.
pub(super) fn write(batch: &RecordBatch, lines: &mut Vec<u8>) -> Result<(), ArrowError> {
    let builder =
        WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Encoders));
    let mut writer = builder.build::<_, LineDelimited>(lines);
    writer.write(batch)?;
    writer.finish()
}

#[derive(Debug)]
struct Encoders;

impl EncoderFactory for Encoders {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::BinaryView => Box::new(Base64(array.as_binary_view())),
            DataType::FixedSizeBinary(_) => Box::new(Base64(array.as_fixed_size_binary())),
            DataType::Map(_, _) => Box::new(Map::new(array.as_map(), options)?),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

trait BytesAt {
    fn bytes_at(&self, row: usize) -> &[u8];
}

impl BytesAt for &BinaryViewArray {
    fn bytes_at(&self, row: usize) -> &[u8] {
        self.value(row)
    }
}

impl BytesAt for &FixedSizeBinaryArray {
    fn bytes_at(&self, row: usize) -> &[u8] {
        self.value(row)
    }
}

struct Base64<B>(B);

impl<B: BytesAt> Encoder for Base64<B> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let bytes = self.0.bytes_at(row);
        out.push(b'"');
        let start = out.len();
        out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
        let room = out.get_mut(start..).unwrap_or_default();
        STANDARD.encode_slice(bytes, room).expect("there is room for all of it");
        out.push(b'"');
    }
}

/// A map as an object. Keys that are no text are written as Arrow shows them.
struct Map<'a> {
    map: &'a MapArray,
    keys: ArrayRef,
    values: NullableEncoder<'a>,
}

impl<'a> Map<'a> {
    fn new(map: &'a MapArray, options: &'a EncoderOptions) -> Result<Self, ArrowError> {
        let entries: &'a StructArray = map.entries();
        let field = entries.fields().get(1);
        let field = field.ok_or_else(|| ArrowError::JsonError("a map has no values".into()))?;
        let keys = match map.keys().data_type() {
            DataType::BinaryView | DataType::FixedSizeBinary(_) => base64_keys(map.keys()),
            _ => arrow_cast::cast(map.keys(), &DataType::Utf8)?,
        };
        let values = make_encoder(field, map.values(), options)?;
        Ok(Self { map, keys, values })
    }
}

fn base64_keys(keys: &ArrayRef) -> ArrayRef {
    let text = |row: usize| match keys.data_type() {
        DataType::BinaryView => STANDARD.encode(keys.as_binary_view().value(row)),
        _ => STANDARD.encode(keys.as_fixed_size_binary().value(row)),
    };
    Arc::new(StringArray::from_iter_values((0..keys.len()).map(text)))
}

impl Encoder for Map<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let offset = |at: usize| {
            let offset = self.map.value_offsets().get(at).copied().unwrap_or_default();
            usize::try_from(offset).unwrap_or_default()
        };
        let keys = self.keys.as_string::<i32>();
        let range = offset(row)..offset(row + 1);
        out.push(b'{');
        for entry in range.clone() {
            if entry > range.start {
                out.push(b',');
            }
            let key = keys.value(entry);
            serde_json::to_writer(&mut *out, key).expect("text into memory");
            out.push(b':');
            match self.values.is_null(entry) {
                true => out.extend_from_slice(b"null"),
                false => self.values.encode(entry, out),
            }
        }
        out.push(b'}');
    }
}
