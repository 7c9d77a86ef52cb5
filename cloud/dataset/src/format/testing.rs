//! For parsers' tests: reads content as an index would, in whatever pieces, and checks what every parser promises.

use proptest::prelude::{Strategy, any};

use super::{Input, Limits, Parsed, Parser};
use crate::layout::Layout;

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the value lies in the content.
    pub at: u64,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub value_name: Option<Vec<u8>>,
    pub members: Vec<(Vec<u8>, Vec<u8>)>,
}

/// All that was found in an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub records: Vec<Found>,
    pub damage: Vec<(u64, String)>,
}

/// Stretches that were consumed without anything skipped between them.
struct Extent {
    start: usize,
    end: usize,
    records: Vec<Found>,
}

pub fn limits(record_bytes: usize) -> Limits {
    Limits { record_bytes, records: 1000, has_chunks: false }
}

fn found(layout: &Layout, bytes: &[u8], start: usize) -> Vec<Found> {
    let found = |record| {
        let record: &crate::layout::RecordLayout = record;
        let members = layout.members(record).iter();
        assert_eq!(members.len(), record.members.len(), "members that are not there");
        for span in members.clone().map(|member| member.data).chain([record.value]) {
            assert!(span.start as usize + span.bytes as usize <= bytes.len(), "{span:?}");
        }
        Found {
            at: start as u64 + u64::from(record.value.start),
            key: record.key.as_ref().map(|key| key.of(bytes).to_vec()),
            value: record.value.of(bytes).to_vec(),
            value_name: record.value_name.as_ref().map(|name| name.of(bytes).to_vec()),
            members: members
                .map(|member| (member.name.of(bytes).to_vec(), member.data.of(bytes).to_vec()))
                .collect(),
        }
    };
    layout.records.iter().map(found).collect()
}

fn check_promises(parsed: &Parsed, input: Input<'_>, limits: Limits) {
    let there = input.bytes.len();
    assert!(parsed.consumed <= there);
    assert!(parsed.layout.records.len() <= limits.records);
    assert!(!input.is_last || parsed.skip <= (there - parsed.consumed) as u64, "{parsed:?}");
    for damage in &parsed.damage {
        assert!(damage.at <= there as u64, "{parsed:?}");
    }
    if parsed.consumed == 0 && parsed.skip == 0 && !parsed.is_end {
        let is_over = parsed.carry.is_empty();
        assert!(
            is_over || parsed.carry == input.carry,
            "nothing was done, but something is carried"
        );
        assert!(parsed.damage.is_empty(), "damage that will be found again: {parsed:?}");
        assert!(there == 0 || !input.is_last, "nothing is done, and nothing more comes");
    }
}

/// Reads all of it: at once, or with so many bytes more in sight each time that more are needed.
pub fn read(parser: &dyn Parser, content: &[u8], steps: &[usize], limits: Limits) -> Seen {
    read_waiting(parser, content, steps, limits).0
}

/// The same, and the most bytes that were in sight without being enough: what memory it takes.
pub fn read_waiting(
    parser: &dyn Parser,
    content: &[u8],
    steps: &[usize],
    limits: Limits,
) -> (Seen, usize) {
    let mut most_waited_on = 0;
    let mut seen = Seen::default();
    let mut extents: Vec<Extent> = Vec::new();
    let mut prelude = Vec::new();
    let mut carry = Vec::new();
    let mut more = steps.iter().cycle();
    let mut end = if steps.is_empty() { content.len() } else { 0 };
    let mut is_end_known = steps.is_empty();
    let mut at = 0;
    loop {
        let input = Input {
            bytes: &content[at..end.max(at)],
            is_first: at == 0,
            is_last: is_end_known,
            prelude: &prelude,
            carry: &carry,
            object: "part/object",
        };
        let parsed = parser.parse(input, limits);
        check_promises(&parsed, input, limits);
        let records = found(&parsed.layout, &input.bytes[..parsed.consumed], at);
        seen.records.extend(records.iter().cloned());
        let damage = parsed.damage.iter();
        seen.damage.extend(damage.map(|damage| (at as u64 + damage.at, damage.reason.clone())));
        match extents.last_mut() {
            Some(extent) if extent.end == at => {
                extent.end += parsed.consumed;
                extent.records.extend(records);
            }
            _ => extents.push(Extent { start: at, end: at + parsed.consumed, records }),
        }
        if let Some(given) = parsed.prelude {
            prelude = given;
        }
        carry = parsed.carry;
        let moved = parsed.consumed + usize::try_from(parsed.skip.min(1 << 40)).unwrap();
        at = content.len().min(at + moved);
        end = end.max(at);
        if parsed.is_end || at == content.len() && (is_end_known || at > 0) {
            break;
        }
        if moved > 0 {
            continue;
        }
        assert!(!is_end_known, "nothing is left to wait for");
        most_waited_on = most_waited_on.max(end - at);
        match more.next() {
            Some(step) if end < content.len() => end = content.len().min(end + step),
            _ => is_end_known = true,
        }
    }
    // Where nothing was consumed there is no extent, but for an object without bytes that is a record.
    for extent in extents.into_iter().filter(|it| it.start < it.end || !it.records.is_empty()) {
        let input = Input {
            bytes: &content[extent.start..extent.end],
            is_first: extent.start == 0,
            is_last: true,
            prelude: &prelude,
            carry: &[],
            object: "part/object",
        };
        let again = parser.parse(input, Limits { records: usize::MAX, ..limits });
        assert_eq!(found(&again.layout, input.bytes, extent.start), extent.records, "read again");
    }
    (seen, most_waited_on)
}

/// Reads content at once, and in pieces, and a record at a time, with the same outcome; which is returned.
pub fn check_splits(parser: &dyn Parser, content: &[u8], steps: &[usize], limits: Limits) -> Seen {
    let seen = read(parser, content, &[], limits);
    assert_eq!(read(parser, content, steps, limits), seen, "in pieces of {steps:?}");
    let single = Limits { records: 1, ..limits };
    assert_eq!(read(parser, content, &[], single), seen, "one by one");
    assert_eq!(read(parser, content, steps, single), seen, "one by one, in pieces of {steps:?}");
    seen
}

/// Bytes to change (where, as a part of all, and to what), and where to cut.
pub type Tampering = (Vec<(u16, u8)>, Option<u16>);

pub fn tampering() -> impl Strategy<Value = Tampering> {
    (proptest::collection::vec(any::<(u16, u8)>(), 0..6), any::<Option<u16>>())
}

pub fn mutated(content: &[u8], (changes, cut): &Tampering) -> Vec<u8> {
    let mut content = content.to_vec();
    let place = |part: u16, bytes: usize| usize::from(part) * bytes / (usize::from(u16::MAX) + 1);
    for (part, byte) in changes {
        let at = place(*part, content.len());
        if let Some(changed) = content.get_mut(at) {
            *changed = *byte;
        }
    }
    if let Some(part) = cut {
        content.truncate(place(*part, content.len()));
    }
    content
}

/// How a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    V7,
    Ustar,
    /// With a prefix, if there is a slash.
    Prefix,
    Gnu,
    /// Path and size in a pax header.
    Pax,
}

/// A tar in the making.
#[derive(Default)]
pub struct TarFile(pub Vec<u8>);

impl TarFile {
    pub fn header(&mut self, name: &[u8], prefix: &[u8], size: &[u8; 12], kind: u8, magic: &[u8]) {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(b"0000644");
        header[124..136].copy_from_slice(size);
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..257 + magic.len()].copy_from_slice(magic);
        header[345..345 + prefix.len()].copy_from_slice(prefix);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
    }

    pub fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn pax(&mut self, kind: u8, lines: &[(&str, &[u8])]) {
        let mut body = Vec::new();
        for (key, value) in lines {
            let others = key.len() + value.len() + 3;
            let bytes = (1..9).find(|digits| (others + digits).to_string().len() == *digits);
            body.extend(format!("{} {key}=", others + bytes.unwrap()).bytes());
            body.extend([value, b"\n".as_slice()].concat());
        }
        self.header(b"PaxHeaders/x", b"", &octal(body.len()), kind, b"ustar\x0000");
        self.data(&body);
    }

    pub fn member(&mut self, name: &[u8], kind: u8, data: &[u8], style: Style) {
        let short = &name[..name.len().min(100)];
        let size = octal(data.len());
        match style {
            Style::V7 => self.header(short, b"", &size, if kind == b'0' { 0 } else { kind }, b""),
            Style::Ustar => self.header(short, b"", &size, kind, b"ustar\x0000"),
            Style::Prefix => {
                let slash = name.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0);
                let (prefix, rest) = slash
                    .map_or((b"".as_slice(), name), |slash| (&name[..slash], &name[slash + 1..]));
                self.header(rest, prefix, &size, kind, b"ustar\x0000");
            }
            Style::Gnu => {
                let long = [name, b"\0"].concat();
                self.header(b"././@LongLink", b"", &octal(long.len()), b'L', b"ustar  \0");
                self.data(&long);
                let mut binary = [0; 12];
                binary[0] = 0x80;
                binary[4..].copy_from_slice(&(data.len() as u64).to_be_bytes());
                self.header(short, b"", &binary, kind, b"ustar  \0");
            }
            Style::Pax => {
                let size = data.len().to_string();
                self.pax(b'x', &[("mtime", b"1.5"), ("path", name), ("size", size.as_bytes())]);
                self.header(b"short", b"", &octal(0), kind, b"ustar\x0000");
            }
        }
        self.data(data);
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub fn octal(number: usize) -> [u8; 12] {
    format!("{number:011o}\0").into_bytes().try_into().unwrap()
}
