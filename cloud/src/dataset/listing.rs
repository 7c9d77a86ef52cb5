//! Lists a source: what of it is taken, what is refused and why.

use std::collections::HashSet;
use std::path::PathBuf;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::format::detect::{detect, is_sidecar, may_be};
use tokio::task::spawn_blocking;

use super::manifest::Entry;
use super::sidecars::Sidecars;
use crate::objects::{Location, ObjectStoreUrl, told};
use crate::topics::SourceConfig;

/// Why a source could not be listed, in words for whoever creates the topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListError(pub String);

/// Lists what `config` takes of what is at `location`, in the order of names.
pub(super) async fn list(
    location: &Location,
    config: &SourceConfig,
    roots: Option<&[PathBuf]>,
) -> Result<Vec<Entry>, ListError> {
    let url = &config.url;
    let prefix = (!location.path.is_empty()).then(|| Path::from(location.path.as_str()));
    let mut listing = location.objects.list(prefix.as_ref());
    let (mut entries, mut seen) = (Vec::new(), 0_u64);
    let mut sidecars = Sidecars::default();
    let is_files = matches!(url, ObjectStoreUrl::File { .. });
    while let Some(mut meta) = listing.try_next().await.map_err(|error| refused(url, &error))? {
        seen += 1;
        // That of a file has its inode: what is put back would be another one, though nothing of it is different.
        meta.e_tag = meta.e_tag.filter(|_| !is_files);
        let Some(name) = name_below(&location.path, &meta) else { continue };
        // Whoever takes `*.tar` alone has index files as well.
        if !config.leaves_out(&name) {
            sidecars.note(&name, &meta);
        }
        let is_data = config.format.is_some() || !is_sidecar(&name);
        if !is_data || !config.takes(&name) {
            continue;
        }
        if entries.len() >= limits::OBJECTS {
            let most = limits::OBJECTS;
            return Err(ListError(format!("{url} has more than {most} objects: take fewer")));
        }
        let modified_ms = meta.last_modified.timestamp_millis();
        let (etag, size) = (meta.e_tag, meta.size);
        entries.push(Entry { name, etag, size, modified_ms, index: None });
    }
    if entries.is_empty() && seen == 0 {
        return Err(nothing_at(location, url).await);
    }
    if entries.is_empty() {
        return Err(ListError(format!(
            "none of the {seen} objects at {url} is taken: see robustmq.source.include and exclude"
        )));
    }
    let mut entries = sidecars.attach(config, without_folders(entries));
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match (&config.url, roots) {
        (ObjectStoreUrl::File { dir }, Some(roots)) => {
            let (dir, roots) = (dir.clone(), roots.to_vec());
            let checked = spawn_blocking(move || check_links(&dir, &roots, entries)).await;
            checked.map_err(|error| ListError(format!("{url}: {error}")))?
        }
        _ => Ok(entries),
    }
}

/// Why nothing is there: it may be an object itself, which lies under no prefix.
async fn nothing_at(location: &Location, url: &ObjectStoreUrl) -> ListError {
    let (what, name) = match url {
        ObjectStoreUrl::File { dir } => {
            let is_file = tokio::fs::metadata(dir).await.is_ok_and(|found| found.is_file());
            let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
            ("a file: name the directory that it is in", name.filter(|_| is_file))
        }
        ObjectStoreUrl::S3 { prefix, .. } => {
            let is_object = location.objects.head(&Path::from(prefix.as_str())).await.is_ok();
            let name = prefix.rsplit('/').next().filter(|name| !name.is_empty() && is_object);
            ("an object: name the prefix before it", name.map(str::to_owned))
        }
    };
    ListError(match name {
        Some(name) => {
            format!("{url} is {what}, and robustmq.source.include={name} to take it alone")
        }
        None => format!("{url} has no objects"),
    })
}

/// A format that is set is to be that of some object at least, as far as names tell: otherwise all of them would be damaged.
pub(super) fn check_format(config: &SourceConfig, entries: &[Entry]) -> Result<(), ListError> {
    let Some(format) = config.format else { return Ok(()) };
    if entries.iter().any(|entry| may_be(format, &entry.name)) {
        return Ok(());
    }
    let first = entries.first().map_or("", |entry| entry.name.as_str());
    let named = detect(first, &[]).map_or("something else", |(format, _)| format.name());
    Err(ListError(format!(
        "robustmq.source.format={} fits none of the {} objects at {}: by their names they are something else (the first, {first}, is \
         {named})",
        format.name(),
        entries.len(),
        config.url
    )))
}

/// Why a source cannot be listed, in words for people.
fn refused(url: &ObjectStoreUrl, error: &object_store::Error) -> ListError {
    use object_store::Error;
    let text = told(error);
    // `object_store` has no kinds of errors for listings in S3: the status stands in the text.
    let says = |status: &str| text.contains(&format!("status code: {status}"));
    let why = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => NOT_ALLOWED,
        _ if says("403") || says("401") => NOT_ALLOWED,
        Error::NotFound { .. } => NOT_THERE,
        _ if says("404") => NOT_THERE,
        _ => "it cannot be listed",
    };
    ListError(format!("{url}: {why} ({text})"))
}

const NOT_ALLOWED: &str = "it may not be listed: check the credentials, and that they grant s3:ListBucket and s3:GetObject";
const NOT_THERE: &str = "there is no such bucket or directory";

/// Leaves out what only makes a folder be seen: consoles and file browsers put an empty object for it, with a slash at the end of its key
/// that a listing does not show us.
fn without_folders(mut entries: Vec<Entry>) -> Vec<Entry> {
    let empty = entries.iter().filter(|entry| entry.size == 0).map(|entry| entry.name.clone());
    let empty: HashSet<String> = empty.collect();
    let above = |name: &str| {
        let folders = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        folders.filter_map(|folder| empty.get(folder)).cloned().collect::<Vec<_>>()
    };
    let folders: HashSet<String> = match empty.is_empty() {
        true => return entries,
        false => entries.iter().flat_map(|entry| above(&entry.name)).collect(),
    };
    entries.retain(|entry| !folders.contains(&entry.name));
    entries
}

/// Links are followed, but not out of the directories that may become topics.
fn check_links(
    dir: &std::path::Path,
    roots: &[PathBuf],
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, ListError> {
    let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    let beside = entries.iter().filter_map(|entry| Some(&entry.index.as_ref()?.name));
    for name in entries.iter().map(|entry| &entry.name).chain(beside) {
        let real = dir.join(name).canonicalize();
        let real = real.map_err(|error| ListError(format!("{name} cannot be read: {error}")))?;
        if !roots.iter().any(|root| real.starts_with(root)) {
            return Err(ListError(format!(
                "{name} is a link out of the directories that [dataset] file_roots allows"
            )));
        }
    }
    Ok(entries)
}

fn name_below(prefix: &str, meta: &ObjectMeta) -> Option<String> {
    let path = meta.location.as_ref();
    let name = path.strip_prefix(prefix)?.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Entry, ObjectStoreUrl, check_links, refused, without_folders};
    use crate::dataset::sidecars::Sidecar;

    fn entry(name: &str, size: u64) -> Entry {
        Entry { name: name.to_owned(), etag: None, size, modified_ms: 0, index: None }
    }

    /// A folder that was made in a browser became a record without a value.
    #[test]
    fn an_empty_object_that_is_a_folder_of_others_is_left_out() {
        let check = |entries: &[(&str, u64)], expected: &[&str]| {
            let entries = entries.iter().map(|(name, size)| entry(name, *size)).collect();
            let left = without_folders(entries);
            assert_eq!(left.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), expected);
        };
        check(&[("a", 0), ("a/b", 0), ("a/b/c", 1), ("a-", 0)], &["a/b/c", "a-"]);
        check(&[("a", 1), ("a/b", 1), ("b", 0)], &["a", "a/b", "b"]);
        check(&[("a/b/c", 0), ("a/b", 0)], &["a/b/c"]);
    }

    /// Listings in S3 fail with errors of no kind, and people were told only that it cannot be listed.
    #[test]
    fn whoever_creates_a_topic_is_told_what_to_look_at() {
        let url: ObjectStoreUrl = "s3://data/train".parse().expect("a URL");
        let check = |text: &str, said: &str| {
            let error = object_store::Error::Generic { store: "S3", source: text.into() };
            let refused = refused(&url, &error).0;
            assert!(refused.starts_with(&format!("s3://data/train: {said}")), "{refused}");
            assert!(refused.contains(text), "{refused}");
        };
        let answer = "Server returned non-2xx status code: ";
        check(&format!("{answer}404 Not Found: NoSuchBucket"), "there is no such bucket");
        check(&format!("{answer}403 Forbidden: InvalidAccessKeyId"), "it may not be listed: check");
        check(&format!("{answer}500 Internal Server Error"), "it cannot be listed (");
    }

    /// A link below a directory that was allowed served whatever it led to.
    #[test]
    fn links_out_of_what_is_allowed_are_refused_by_name() {
        let outside = tempfile::tempdir().expect("a directory");
        let inside = tempfile::tempdir().expect("a directory");
        std::fs::write(outside.path().join("secret"), "").expect("a disk");
        std::fs::write(inside.path().join("data"), "").expect("a disk");
        let link = |to: &std::path::Path, name: &str| {
            std::os::unix::fs::symlink(to, inside.path().join(name)).expect("a disk");
        };
        link(&inside.path().join("data"), "within");
        link(&outside.path().join("secret"), "out");
        let check = |names: &[&str]| {
            let entries = names.iter().map(|name| entry(name, 0)).collect();
            check_links(inside.path(), &[inside.path().to_owned()], entries)
        };
        assert_eq!(check(&["data", "within"]).map(|entries| entries.len()), Ok(2));
        let refused = check(&["data", "out"]).expect_err("it leads out");
        assert!(refused.0.starts_with("out is a link"), "{refused}");
        // Nor is what lies beside an object.
        let beside = Sidecar { name: "out".into(), etag: None, size: 0, modified_ms: 0 };
        let data = Entry { index: Some(beside), ..entry("data", 0) };
        assert!(check_links(inside.path(), &[inside.path().to_owned()], vec![data]).is_err());
    }
}
