//! TensorFlow's records: length, its checksum, data, its checksum (`tensorflow/core/lib/io/record_writer.h`).

use super::{Shape, Writing};

pub(super) fn records(writing: &mut Writing, shape: &Shape) -> Vec<u8> {
    let mut file = Vec::with_capacity(shape.samples * (shape.sample_bytes + 16));
    for _ in 0..shape.samples {
        let data = writing.noise(shape.sample_bytes);
        let length = (data.len() as u64).to_le_bytes();
        file.extend_from_slice(&length);
        file.extend_from_slice(&masked_crc(&length).to_le_bytes());
        file.extend_from_slice(&data);
        file.extend_from_slice(&masked_crc(&data).to_le_bytes());
        writing.sample(None, &data, Vec::new());
    }
    file
}

/// CRC32C, turned and moved, so that a checksum of bytes that hold checksums is still one.
pub(super) fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
