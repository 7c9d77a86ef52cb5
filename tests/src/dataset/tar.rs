//! Tars, written as POSIX has them (ustar) and read back.

use super::{Shape, Writing, hash};

const BLOCK: usize = 512;
/// What `tar` and Python's `tarfile` fill the last of, with zeros.
const RECORD: usize = 20 * BLOCK;

/// A shard. The parts of a sample are in the order of their names, as `webdataset.TarWriter` writes them.
pub(super) fn web_dataset(writing: &mut Writing, shape: &Shape) -> Vec<u8> {
    let each = shape.sample_bytes.next_multiple_of(BLOCK) + 3 * BLOCK;
    let mut tar = Vec::with_capacity(shape.samples * each + 2 * RECORD);
    for number in 0..shape.samples {
        let key = format!("{:06}-{number:06}", writing.file);
        let class = (number % 1000).to_string();
        let image = writing.noise(shape.sample_bytes);
        append(&mut tar, &format!("{key}.cls"), class.as_bytes());
        append(&mut tar, &format!("{key}.jpg"), &image);
        let members = vec![("cls".to_owned(), hash(class.as_bytes()))];
        writing.sample(Some(key), &image, members);
    }
    end(&mut tar);
    tar
}

/// Appends a regular file. Its name has at most 100 bytes.
pub fn append(tar: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        let room = header[at..].iter_mut();
        room.zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", data.len()));
    put(136, "00000000000\0");
    // The checksum is taken with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// Writes the end: two empty blocks, and up to a whole record.
pub fn end(tar: &mut Vec<u8>) {
    tar.resize((tar.len() + 2 * BLOCK).next_multiple_of(RECORD), 0);
}

/// Names and contents of the members of a tar that [`append`] has written.
///
/// It ends where the tar does, or where it is damaged.
pub fn members(tar: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut rest = tar;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_at_checked(BLOCK)?;
        let text = |at: usize, bytes: usize| {
            let field = header.get(at..at + bytes)?.split(|byte| *byte == 0).next()?;
            std::str::from_utf8(field).ok()
        };
        let name = text(0, 100).filter(|name| !name.is_empty())?;
        let size = usize::from_str_radix(text(124, 12)?, 8).ok()?;
        let data = after.get(..size)?;
        rest = after.get(size.next_multiple_of(BLOCK)..)?;
        Some((name, data))
    })
}

/// The index file of a tar of WebDataset, as DALI's `wds2idx` writes it.
#[must_use]
pub fn index_file(tar: &[u8]) -> String {
    let (mut at, mut last, mut samples) = (0, String::new(), Vec::<String>::new());
    for (name, data) in members(tar) {
        let (key, extension) = name.split_once('.').unwrap_or((name, ""));
        let component = format!("{extension} {} {} {name}", at + 512, data.len());
        at += 512 + data.len().next_multiple_of(512);
        match samples.last_mut() {
            Some(sample) if last == key => *sample += &format!(" {component}"),
            _ => samples.push(component),
        }
        key.clone_into(&mut last);
    }
    format!("v1.2 {}\n{}\n", samples.len(), samples.join("\n"))
}
