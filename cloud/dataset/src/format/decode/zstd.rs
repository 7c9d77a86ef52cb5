//! RFC 8878: frames, and such that are to be skipped.

use std::{fmt, io};

use robustmq_common::limits::dataset::ZSTD_WINDOW_LOG;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::{Begin, Fault, Moved, zeros};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first frame.
    Begin,
    Frame,
    /// After a frame.
    Between,
    /// After all of them.
    Zeros,
}

pub(super) struct Zstd {
    decoder: Decoder<'static>,
    state: State,
    /// The last piece filled the room that it had: there may be more without any input.
    was_full: bool,
    begin: Begin,
    /// Of the last frame.
    window_bytes: u64,
    taken: u64,
    given: u64,
    sound: u64,
}

impl fmt::Debug for Zstd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Zstd").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Zstd {
    pub(super) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self {
            decoder,
            state: State::Begin,
            was_full: false,
            begin: Begin::default(),
            window_bytes: 0,
            taken: 0,
            given: 0,
            sound: 0,
        })
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Between | State::Zeros)
    }

    /// Bytes that were given by frames that ended, with the checksum that they have, if they have one.
    pub(super) fn sound(&self) -> u64 {
        self.sound
    }

    /// Where the last frame began.
    pub(super) fn begin(&self) -> Begin {
        self.begin
    }

    /// Memory that the library takes for the last frame, about.
    pub(super) fn memory_bytes(&self) -> usize {
        usize::try_from(self.window_bytes).unwrap_or(usize::MAX).saturating_add(DECODER_BYTES)
    }

    pub(super) fn piece(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let mut taken = 0;
        // Frames that give nothing may follow each other.
        loop {
            let moved = self.step(&raw[taken..], out)?;
            taken += moved.taken;
            self.taken += moved.taken as u64;
            if moved.given > 0 || moved.taken == 0 {
                return Ok(Moved { taken, given: moved.given });
            }
        }
    }

    fn step(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let Some(first) = raw.first() else {
            // Asked without input and without anything to give, the library fails in the end.
            let has_more = self.state == State::Frame && self.was_full;
            return if has_more { self.run(raw, out) } else { Ok(Moved::default()) };
        };
        match self.state {
            State::Frame => self.run(raw, out),
            State::Zeros => zeros(raw),
            State::Between if *first == 0 => {
                self.state = State::Zeros;
                zeros(raw)
            }
            // The magic number of a frame, and those of what is to be skipped.
            State::Between if !matches!(first, 0x28 | 0x50..=0x5f) => Err(Fault::Trailing),
            State::Begin | State::Between => {
                self.state = State::Frame;
                self.begin = Begin { raw: self.taken, content: self.given };
                self.window_bytes = window_bytes(raw).unwrap_or(self.window_bytes);
                self.run(raw, out)
            }
        }
    }

    fn run(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let room = out.len();
        let (mut input, mut output) = (InBuffer::around(raw), OutBuffer::around(out));
        let damaged = |error: io::Error| Fault::Damaged(error.to_string());
        let left = self.decoder.run(&mut input, &mut output).map_err(damaged)?;
        let moved = Moved { taken: input.pos(), given: output.pos() };
        self.was_full = moved.given == room;
        self.given += moved.given as u64;
        if left == 0 {
            self.sound = self.given;
            self.decoder.reinit().map_err(damaged)?;
            self.state = State::Between;
        }
        Ok(moved)
    }
}

/// What the library takes beside the window: its tables, and a block.
const DECODER_BYTES: usize = 320 * 1024;

/// The window of a frame that begins here (RFC 8878, 3.1.1.1); `None` where not enough of it is there.
fn window_bytes(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.get(4..)?.split_first()?;
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    if descriptor & 0x20 == 0 {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // All of its content is one window, and its size is said.
    let mut size = [0; 8];
    let (bytes, least) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    size[..bytes].copy_from_slice(rest.get(dictionary_bytes..)?.get(..bytes)?);
    Some(u64::from_le_bytes(size).saturating_add(least).min(1 << ZSTD_WINDOW_LOG))
}
