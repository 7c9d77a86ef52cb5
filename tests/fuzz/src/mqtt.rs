//! The MQTT codec: a connection's bytes, in pieces.

use bytes::BytesMut;
use robustmq_common::mqtt::codec::{decode, encode, encoded_len};
use robustmq_common::mqtt::packet::{Packet, ProtocolVersion};

use crate::memory::bounded;

const MAX_PACKET_BYTES: usize = 1 << 16;
/// What an input may take: this, and so many times its size. A packet of two bytes (PINGREQ) becomes an element of the
/// check's own lists; the check keeps every packet twice.
const BASE_BYTES: usize = 1 << 16;
const MEMORY_FACTOR: usize = 400;

/// The first byte says which version the connection speaks (or that its CONNECT has not come), the second how large the
/// pieces are in which the rest arrives.
pub fn check(data: &[u8]) {
    bounded(BASE_BYTES + MEMORY_FACTOR * data.len(), || check_connection(data));
}

fn check_connection(data: &[u8]) {
    let [mode, piece, rest @ ..] = data else { return };
    let version = match mode % 3 {
        0 => None,
        1 => Some(ProtocolVersion::V311),
        _ => Some(ProtocolVersion::V5),
    };
    let whole = read(version, rest, rest.len().max(1));
    let pieces = read(version, rest, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "how bytes arrive makes no difference");
    for (packet, version) in &whole.0 {
        let mut out = BytesMut::new();
        encode(packet, *version, &mut out).expect("what was decoded can be encoded");
        assert_eq!(encoded_len(packet, *version).ok(), Some(out.len()));
        let as_read = Some(*version).filter(|_| !matches!(packet, Packet::Connect(_)));
        let again = decode(&mut out, as_read, MAX_PACKET_BYTES * 2);
        assert_eq!(again.as_ref(), Ok(&Some(packet.clone())));
        assert!(out.is_empty());
    }
}

type Read = (Vec<(Packet, ProtocolVersion)>, bool);

/// The packets with the version that each is read in, and whether the bytes ended in an error.
fn read(mut version: Option<ProtocolVersion>, bytes: &[u8], piece: usize) -> Read {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer, version, MAX_PACKET_BYTES) {
                Ok(None) => break,
                Err(_) => return (packets, true),
                Ok(Some(packet)) => {
                    if let Packet::Connect(connect) = &packet {
                        version = Some(connect.version);
                    }
                    packets.push((packet, version.unwrap_or(ProtocolVersion::V5)));
                }
            }
        }
    }
    (packets, false)
}
