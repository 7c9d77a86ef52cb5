//! RFC 8878: frames, and such that are to be skipped.

use std::io;

use robustmq_common::limits::dataset::ZSTD_WINDOW_LOG;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::{Fault, Moved, zeros};

#[derive(Clone, Copy, PartialEq, Eq)]
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
    given: u64,
    sound: u64,
}

impl Zstd {
    pub(super) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { decoder, state: State::Begin, was_full: false, given: 0, sound: 0 })
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Between | State::Zeros)
    }

    /// Bytes that were given by frames that ended, with the checksum that they have, if they have one.
    pub(super) fn sound(&self) -> u64 {
        self.sound
    }

    pub(super) fn piece(&mut self, raw: &[u8], out: &mut [u8]) -> Result<Moved, Fault> {
        let mut taken = 0;
        // Frames that give nothing may follow each other.
        loop {
            let moved = self.step(&raw[taken..], out)?;
            taken += moved.taken;
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
