#!/usr/bin/env python3
"""Writes the golden batches next to this file, from code that shares nothing with the crate.

plain.hex is packed by hand, with a bit-by-bit CRC32C (reflected polynomial 0x82F63B78, RFC 3720 B.4). The compressed ones
come from kafka-python's encoder:

    pip install kafka-python==3.0.12 crc32c lz4 zstandard python-snappy
"""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent
FIRST_TIMESTAMP_MS = 1_700_000_000_000


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283  # the check value in every catalogue of CRCs


def varint(value):
    zigzag = value * 2 if value >= 0 else -value * 2 - 1
    out = b""
    while zigzag > 0x7F:
        out += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return out + bytes([zigzag])


def sized(field):
    return varint(-1) if field is None else varint(len(field)) + field


def record(offset_delta, timestamp_delta, key, value, headers):
    body = b"\0" + varint(timestamp_delta) + varint(offset_delta) + sized(key) + sized(value)
    body += varint(len(headers)) + b"".join(sized(name) + sized(text) for name, text in headers)
    return varint(len(body)) + body


def plain():
    records = record(0, 0, b"key", b"value", [(b"mqtt.topic", b"plant/line"), (b"null", None)])
    records += record(1, 1500, None, b"", [])
    records += record(2, -7, b"", None, [])
    checked = struct.pack(
        ">hiqqqhii", 0, 2, FIRST_TIMESTAMP_MS, FIRST_TIMESTAMP_MS + 1500, 4711, 3, 42, 3
    )
    checked += records
    behind_length = struct.pack(">ib", 5, 2) + struct.pack(">I", crc32c(checked)) + checked
    return struct.pack(">qi", 1_000_000, len(behind_length)) + behind_length


def from_kafka_python(codec):
    from kafka.record.default_records import DefaultRecordBatchBuilder

    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False,
        producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 20,
    )
    for index in range(10):
        headers = [("index", str(index).encode())]
        value = b"0123456789" * 1000
        builder.append(index, FIRST_TIMESTAMP_MS + index, b"key-%d" % index, value, headers)
    return bytes(builder.build())


def write(name, batch):
    text = batch.hex()
    lines = [text[at : at + 100] for at in range(0, len(text), 100)]
    (HERE / f"{name}.hex").write_text("\n".join(lines) + "\n")


write("plain", plain())
for codec, name in enumerate(["gzip", "snappy", "lz4", "zstd"], start=1):
    write(name, from_kafka_python(codec))
