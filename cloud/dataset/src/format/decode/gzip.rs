//! RFC 1952: members, each a header, deflated data, and the data's CRC32 and length.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use robustmq_common::limits::dataset::GZIP_HEADER_BYTES;

use super::{Begin, Fault, Moved, zeros};

const TRAILER_BYTES: usize = 8;

#[derive(Debug)]
enum State {
    /// A member's header, as far as it is there.
    Header(Vec<u8>),
    Data(Decompress, Crc),
    /// What is there of the trailer, and what it has to be.
    Trailer(Vec<u8>, [u8; TRAILER_BYTES]),
    /// After a member.
    Between,
    /// After all of them.
    Zeros,
}

#[derive(Debug)]
pub(super) struct Gzip {
    state: State,
    begin: Begin,
    taken: u64,
    given: u64,
    sound: u64,
}

impl Default for Gzip {
    fn default() -> Self {
        let (state, begin) = (State::Header(Vec::new()), Begin::default());
        Self { state, begin, taken: 0, given: 0, sound: 0 }
    }
}

impl Gzip {
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Between | State::Zeros)
    }

    /// Bytes that were given whose checksum was right.
    pub(super) fn sound(&self) -> u64 {
        self.sound
    }

    /// Where the last member began.
    pub(super) fn begin(&self) -> Begin {
        self.begin
    }

    pub(super) fn piece(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let mut taken = 0;
        // Only data gives anything, and so many members without any may follow each other as there are bytes for.
        loop {
            let rest = &raw[taken..];
            let moved = self.step(rest, out)?;
            taken += moved.taken;
            self.taken += moved.taken as u64;
            if moved.given > 0 || moved.taken == 0 {
                return Ok(Moved { taken, given: moved.given });
            }
        }
    }

    fn step(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let (state, moved) = match &mut self.state {
            State::Header(header) => {
                let before = header.len();
                header.extend(&raw[..raw.len().min(GZIP_HEADER_BYTES - before)]);
                let Some(bytes) = header_bytes(header)? else {
                    if header.len() == GZIP_HEADER_BYTES {
                        return Err(Fault::Damaged("a member's header is too large".into()));
                    }
                    return Ok(Moved { taken: header.len() - before, given: 0 });
                };
                let data = State::Data(Decompress::new(false), Crc::new());
                (data, Moved { taken: bytes - before, given: 0 })
            }
            State::Data(inflate, crc) => {
                let (total_in, total_out) = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(raw, out, FlushDecompress::None)
                    .map_err(|error| Fault::Damaged(error.to_string()))?;
                let count = |now: u64, before: u64| {
                    usize::try_from(now - before).expect("a part of what was given")
                };
                let given = count(inflate.total_out(), total_out);
                let moved = Moved { taken: count(inflate.total_in(), total_in), given };
                crc.update(&out[..given]);
                self.given += given as u64;
                if status != Status::StreamEnd {
                    return Ok(moved);
                }
                let sums = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()];
                let mut expected = [0; TRAILER_BYTES];
                expected.copy_from_slice(sums.as_flattened());
                (State::Trailer(Vec::new(), expected), moved)
            }
            State::Trailer(trailer, expected) => {
                let taken = raw.len().min(TRAILER_BYTES - trailer.len());
                trailer.extend(&raw[..taken]);
                let moved = Moved { taken, given: 0 };
                if trailer.len() < TRAILER_BYTES {
                    return Ok(moved);
                }
                if trailer != expected {
                    let reason = "a member's checksum or length does not match";
                    return Err(Fault::Damaged(reason.into()));
                }
                self.sound = self.given;
                (State::Between, moved)
            }
            State::Between => match raw.first() {
                None => return Ok(Moved::default()),
                Some(0x1f) => {
                    self.state = State::Header(Vec::new());
                    self.begin = Begin { raw: self.taken, content: self.given };
                    return self.step(raw, out);
                }
                Some(_) => (State::Zeros, zeros(raw)?),
            },
            State::Zeros => return zeros(raw),
        };
        self.state = state;
        Ok(moved)
    }
}

/// How long a header is; `None` if it is not all there.
fn header_bytes(header: &[u8]) -> Result<Option<usize>, Fault> {
    let magic = [0x1f, 0x8b, 8];
    if header.iter().zip(magic).any(|(byte, expected)| *byte != expected) {
        return Err(Fault::Damaged("this is no gzip member of deflated data".into()));
    }
    let Some(flags) = header.get(3) else {
        return Ok(None);
    };
    if flags & 0xe0 != 0 {
        return Err(Fault::Damaged("a member's header has flags that are not known".into()));
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let Some(extra) = header.get(at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        at += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(text) = header.get(at..).and_then(|text| memchr::memchr(0, text)) else {
                return Ok(None);
            };
            at += text + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((header.len() >= at).then_some(at))
}
