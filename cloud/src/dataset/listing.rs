//! Lists a source: what of it is taken, what is refused and why.

use std::collections::HashSet;
use std::path::PathBuf;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::bad_etag;
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
        if let Some(why) = etag.as_deref().and_then(bad_etag) {
            return Err(ListError(format!("{name} at {url} cannot be read: {why}")));
        }
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
    check_once(&entries)?;
    match (&config.url, roots) {
        (ObjectStoreUrl::File { dir }, Some(roots)) => {
            let (dir, roots) = (dir.clone(), roots.to_vec());
            let checked = spawn_blocking(move || check_links(&dir, &roots, entries)).await;
            checked.map_err(|error| ListError(format!("{url}: {error}")))?
        }
        _ => Ok(entries),
    }
}

/// A name that came twice would be two objects of the topic.
fn check_once(sorted: &[Entry]) -> Result<(), ListError> {
    let names = sorted.iter().zip(sorted.iter().skip(1));
    let mut twice = names.filter(|(one, next)| one.name == next.name);
    match twice.next() {
        Some((Entry { name, .. }, _)) => Err(ListError(format!(
            "{name} is listed twice: the server repeats itself, or there is another object of that name with a slash behind it"
        ))),
        None => Ok(()),
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
mod tests;
