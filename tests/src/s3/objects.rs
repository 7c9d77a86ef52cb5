//! Buckets, objects and uploads in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::Parameters;

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub bytes: Bytes,
    pub etag: String,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: BTreeMap<(String, String), Object>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    /// Of puts and uploads so far: what tags and upload ids are made of.
    number: u64,
}

/// A page of a listing.
pub(super) struct Listing {
    /// Key, size, tag.
    pub objects: Vec<(String, usize, String)>,
    pub prefixes: Vec<String>,
    pub next: Option<String>,
}

const PAGE: usize = 1000;

impl Objects {
    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<Object> {
        self.objects.get(&(bucket.to_owned(), key.to_owned())).cloned()
    }

    pub(super) fn put(&mut self, bucket: &str, key: &str, bytes: Bytes) -> String {
        self.number += 1;
        let etag = format!("\"{:032x}\"", self.number);
        let object = Object { bytes, etag: etag.clone() };
        self.objects.insert((bucket.to_owned(), key.to_owned()), object);
        etag
    }

    pub(super) fn delete(&mut self, bucket: &str, key: &str) {
        self.objects.remove(&(bucket.to_owned(), key.to_owned()));
    }

    pub(super) fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let of = |(name, key): &&(String, String)| name == bucket && key.starts_with(prefix);
        self.objects.keys().filter(of).map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn list(&self, bucket: &str, query: &Parameters) -> Listing {
        let parameter = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
        let after = parameter("start-after").max(parameter("continuation-token"));
        let mut page = Listing { objects: Vec::new(), prefixes: Vec::new(), next: None };
        for key in self.keys(bucket, prefix) {
            if key.as_str() <= after {
                continue;
            }
            let folder = key.get(prefix.len()..).and_then(|rest| rest.split_once(delimiter));
            if let Some((folder, _)) = folder.filter(|_| !delimiter.is_empty()) {
                let folder = format!("{prefix}{folder}{delimiter}");
                if page.prefixes.last() != Some(&folder) && folder.as_str() > after {
                    page.prefixes.push(folder);
                }
                continue;
            }
            if page.objects.len() == PAGE {
                page.next = page.objects.last().map(|(key, ..)| key.clone());
                break;
            }
            if let Some(object) = self.get(bucket, &key) {
                page.objects.push((key, object.bytes.len(), object.etag));
            }
        }
        page
    }

    pub(super) fn begin_upload(&mut self) -> String {
        self.number += 1;
        let id = format!("upload-{}", self.number);
        self.uploads.insert(id.clone(), BTreeMap::new());
        id
    }

    pub(super) fn put_part(&mut self, upload: &str, number: u32, bytes: Bytes) -> Option<String> {
        self.number += 1;
        let etag = format!("\"{:032x}\"", self.number);
        self.uploads.get_mut(upload)?.insert(number, bytes);
        Some(etag)
    }

    pub(super) fn complete(&mut self, upload: &str, bucket: &str, key: &str) -> Option<String> {
        let parts = self.uploads.remove(upload)?;
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        Some(self.put(bucket, key, bytes.into()))
    }

    pub(super) fn abort(&mut self, upload: &str) {
        self.uploads.remove(upload);
    }
}

/// The bytes that a Range header asks for, and what Content-Range says of them; `None` if there are none.
pub(super) fn part(bytes: &Bytes, range: Option<&str>) -> Option<(Bytes, Option<String>)> {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Some((bytes.clone(), None));
    };
    let (first, last) = range.split_once('-')?;
    let length = bytes.len();
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(start), Ok(last)) => (start, length.min(last.saturating_add(1))),
        (Ok(start), Err(_)) => (start, length),
        (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length),
        (Err(_), Err(_)) => return None,
    };
    let is_some = start < end;
    is_some.then(|| (bytes.slice(start..end), Some(format!("bytes {start}-{}/{length}", end - 1))))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Objects, part};

    #[test]
    fn ranges_are_cut_as_http_has_them() {
        let bytes = Bytes::from_static(b"0123456789");
        let check = |range: Option<&str>, expected: Option<(&'static [u8], Option<&str>)>| {
            let expected = expected
                .map(|(bytes, range)| (Bytes::from_static(bytes), range.map(str::to_owned)));
            assert_eq!(part(&bytes, range), expected, "{range:?}");
        };
        check(None, Some((b"0123456789", None)));
        check(Some("bytes=2-4"), Some((b"234", Some("bytes 2-4/10"))));
        check(Some("bytes=8-100"), Some((b"89", Some("bytes 8-9/10"))));
        check(Some("bytes=7-"), Some((b"789", Some("bytes 7-9/10"))));
        check(Some("bytes=-3"), Some((b"789", Some("bytes 7-9/10"))));
        check(Some("bytes=10-11"), None);
        check(Some("bytes=x-y"), None);
    }

    #[test]
    fn listings_have_folders_and_pages() {
        let mut objects = Objects::default();
        for key in ["a/1", "a/2", "a/b/3", "a/b/4", "c"] {
            objects.put("bucket", key, Bytes::new());
        }
        let query = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let page = objects.list("bucket", &query(&[("prefix", "a/"), ("delimiter", "/")]));
        let keys: Vec<_> = page.objects.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!((keys, page.prefixes), (vec!["a/1", "a/2"], vec!["a/b/".to_owned()]));
        for number in 0..1500 {
            objects.put("bucket", &format!("many/{number:04}"), Bytes::new());
        }
        let page = objects.list("bucket", &query(&[("prefix", "many/")]));
        assert_eq!((page.objects.len(), page.next.as_deref()), (1000, Some("many/0999")));
        let after = [("prefix", "many/"), ("continuation-token", "many/0999")];
        let page = objects.list("bucket", &query(&after));
        assert_eq!((page.objects.len(), page.next), (500, None));
    }
}
