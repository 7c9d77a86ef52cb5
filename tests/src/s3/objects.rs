//! Buckets, objects and uploads in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Range};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::Parameters;

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub bytes: Bytes,
    pub etag: String,
    /// Seconds since 1970, which is as exact as S3 is.
    pub modified: u64,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    buckets: BTreeSet<String>,
    objects: BTreeMap<(String, String), Object>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    /// Uploads so far.
    number: u64,
}

/// A page of a listing.
#[derive(Default)]
pub(super) struct Listing {
    pub objects: Vec<Listed>,
    pub prefixes: Vec<String>,
    pub next: Option<String>,
}

pub(super) struct Listed {
    pub key: String,
    pub size: usize,
    pub etag: String,
    pub modified: u64,
}

const PAGE: usize = 1000;

impl Objects {
    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<Object> {
        self.objects.get(&(bucket.to_owned(), key.to_owned())).cloned()
    }

    pub(super) fn create_bucket(&mut self, bucket: &str) {
        self.buckets.insert(bucket.to_owned());
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets.contains(bucket)
    }

    /// Puts an object; the bucket is made if there is none.
    pub(super) fn put(&mut self, bucket: &str, key: &str, bytes: Bytes) -> String {
        let etag = tag(&bytes);
        self.put_tagged(bucket, key, bytes, &etag);
        etag
    }

    fn put_tagged(&mut self, bucket: &str, key: &str, bytes: Bytes, etag: &str) {
        self.create_bucket(bucket);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let object = Object { bytes, etag: etag.to_owned(), modified: since.as_secs() };
        self.objects.insert((bucket.to_owned(), key.to_owned()), object);
    }

    pub(super) fn delete(&mut self, bucket: &str, key: &str) {
        self.objects.remove(&(bucket.to_owned(), key.to_owned()));
    }

    pub(super) fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let from = Bound::Included((bucket.to_owned(), prefix.to_owned()));
        let all = self.objects.range((from, Bound::Unbounded));
        let of = |(name, key): &&(String, String)| name == bucket && key.starts_with(prefix);
        all.map(|(place, _)| place).take_while(of).map(|(_, key)| key.clone()).collect()
    }

    /// The first object of a bucket that comes after `after` and not before `prefix`, if it begins with `prefix`.
    fn next(&self, bucket: &str, prefix: &str, after: &str) -> Option<(&str, &Object)> {
        let place = |key: &str| (bucket.to_owned(), key.to_owned());
        let from = match after < prefix {
            true => Bound::Included(place(prefix)),
            false => Bound::Excluded(place(after)),
        };
        let ((name, key), object) = self.objects.range((from, Bound::Unbounded)).next()?;
        (name == bucket && key.starts_with(prefix)).then_some((key.as_str(), object))
    }

    pub(super) fn list(&self, bucket: &str, query: &Parameters) -> Listing {
        let parameter = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
        let after = parameter("start-after").max(parameter("continuation-token"));
        let most = parameter("max-keys").parse().map_or(PAGE, |most: usize| most.min(PAGE));
        let mut page = Listing::default();
        let mut at = after.to_owned();
        let mut last = None;
        // Each step is a search of the tree, and a folder is passed over in one: no page is dearer for what lies before it or in its folders.
        while let Some((key, object)) = self.next(bucket, prefix, &at) {
            let rest = key.get(prefix.len()..).filter(|_| !delimiter.is_empty());
            let folder = rest.and_then(|rest| rest.split_once(delimiter));
            let folder = folder.map(|(folder, _)| format!("{prefix}{folder}{delimiter}"));
            let is_listed = folder.as_deref().is_some_and(|folder| folder <= after);
            if !is_listed && page.objects.len() + page.prefixes.len() == most {
                page.next = last;
                break;
            }
            match folder {
                Some(folder) => {
                    at = format!("{folder}{}", char::MAX);
                    if !is_listed {
                        last = Some(folder.clone());
                        page.prefixes.push(folder);
                    }
                }
                None => {
                    at = key.to_owned();
                    last = Some(at.clone());
                    page.objects.push(Listed {
                        key: at.clone(),
                        size: object.bytes.len(),
                        etag: object.etag.clone(),
                        modified: object.modified,
                    });
                }
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
        let etag = tag(&bytes);
        self.uploads.get_mut(upload)?.insert(number, bytes);
        Some(etag)
    }

    pub(super) fn complete(&mut self, upload: &str, bucket: &str, key: &str) -> Option<String> {
        let parts = self.uploads.remove(upload)?;
        let (count, bytes) = (parts.len(), parts.values().flatten().copied().collect::<Vec<_>>());
        let tags: String = parts.values().map(|part| tag(part)).collect();
        let etag = format!("\"{:032x}-{count}\"", xxh3_128(tags.as_bytes()));
        self.put_tagged(bucket, key, bytes.into(), &etag);
        Some(etag)
    }

    pub(super) fn abort(&mut self, upload: &str) {
        self.uploads.remove(upload);
    }
}

/// As S3 makes them: the same content has the same tag, and nobody may rely on more.
fn tag(bytes: &[u8]) -> String {
    format!("\"{:032x}\"", xxh3_128(bytes))
}

/// The part of `length` bytes that a Range header asks for; outer `None` if there is no such part, inner `None` if none is asked for. What
/// is no range, or several, is taken for none (RFC 9110, 14.2).
pub(super) fn part(length: usize, range: Option<&str>) -> Option<Option<Range<usize>>> {
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Some(None) };
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(start), Ok(last)) if start > last => return Some(None),
        (Ok(start), Ok(last)) => (start, length.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, length),
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        _ => return Some(None),
    };
    (start < end).then_some(Some(start..end))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use bytes::Bytes;

    use super::{Objects, Parameters, part};

    #[test]
    fn ranges_are_cut_as_http_has_them() {
        let check = |range: Option<&str>, expected: Option<Option<Range<usize>>>| {
            assert_eq!(part(10, range), expected, "{range:?}");
        };
        check(None, Some(None));
        check(Some("bytes=2-4"), Some(Some(2..5)));
        check(Some("bytes=8-100"), Some(Some(8..10)));
        check(Some("bytes=7-"), Some(Some(7..10)));
        check(Some("bytes=-3"), Some(Some(7..10)));
        check(Some("bytes=10-11"), None);
        check(Some("bytes=-0"), None);
        for no_range in ["bytes=x-y", "bytes=4-2", "bytes=1-x", "bytes=1-2,4-5", "bytes=-", "bytes"]
        {
            check(Some(no_range), Some(None));
        }
    }

    fn query(pairs: &[(&str, &str)]) -> Parameters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Keys and folders of all pages, and how many pages there were.
    fn all(objects: &Objects, pairs: &[(&str, &str)]) -> (Vec<String>, Vec<String>, usize) {
        let (mut keys, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
        let mut query = query(pairs);
        loop {
            let page = objects.list("bucket", &query);
            keys.extend(page.objects.into_iter().map(|object| object.key));
            prefixes.extend(page.prefixes);
            pages += 1;
            let Some(next) = page.next else { return (keys, prefixes, pages) };
            query.insert("continuation-token".to_owned(), next);
        }
    }

    #[test]
    fn listings_have_folders_and_pages() {
        let mut objects = Objects::default();
        for key in ["a/1", "a/2", "a/b/3", "a/b/4", "a/b/c/5", "a/d", "c"] {
            objects.put("bucket", key, Bytes::new());
        }
        objects.put("another", "a/0", Bytes::new());
        objects.put("bucket2", "a/0", Bytes::new());
        let folder = [("prefix", "a/"), ("delimiter", "/")];
        let (keys, folders) = (["a/1", "a/2", "a/d"], ["a/b/"]);
        for (most, pages) in [("1000", 1), ("4", 1), ("3", 2), ("1", 4)] {
            let found = all(&objects, &[&folder[..], &[("max-keys", most)]].concat());
            assert_eq!(found, (keys.map(str::to_owned).into(), vec![folders[0].to_owned()], pages));
        }
        assert_eq!(all(&objects, &[("prefix", "a/b")]).0, ["a/b/3", "a/b/4", "a/b/c/5"]);
        assert_eq!(all(&objects, &[("start-after", "a/b/c")]).0, ["a/b/c/5", "a/d", "c"]);
        assert_eq!(objects.keys("bucket", "a/b/"), ["a/b/3", "a/b/4", "a/b/c/5"]);
        assert_eq!(all(&objects, &[("prefix", "b")]), (vec![], vec![], 1));
    }

    #[test]
    fn many_objects_are_listed_once_each() {
        let mut objects = Objects::default();
        let wanted: Vec<_> = (0..100_000).map(|number| format!("many/{number:06}")).collect();
        wanted.iter().for_each(|key| drop(objects.put("bucket", key, Bytes::new())));
        let (keys, _, pages) = all(&objects, &[("prefix", "many/")]);
        assert_eq!((keys.len(), pages), (100_000, 100));
        assert_eq!(keys, wanted);
        assert_eq!(all(&objects, &[("delimiter", "/")]), (vec![], vec!["many/".to_owned()], 1));
    }
}
