//! The little XML that S3 speaks.

use std::fmt::Write as _;

use super::date;
use super::objects::Listing;

fn document(root: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{content}</{root}>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

pub(super) fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>")
}

pub(super) fn listing(page: &Listing) -> String {
    let mut content = format!("<KeyCount>{}</KeyCount>", page.objects.len() + page.prefixes.len());
    for object in &page.objects {
        let (key, etag) = (escaped(&object.key), escaped(&object.etag));
        let (size, modified) = (object.size, date::iso(object.modified));
        // Writing to a String does not fail.
        let _ = write!(
            content,
            "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
        );
    }
    for prefix in &page.prefixes {
        let prefix = escaped(prefix);
        let _ = write!(content, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    let _ = write!(content, "<IsTruncated>{}</IsTruncated>", page.next.is_some());
    if let Some(next) = &page.next {
        let _ = write!(content, "<NextContinuationToken>{}</NextContinuationToken>", escaped(next));
    }
    document("ListBucketResult", &content)
}

/// The keys that a DeleteObjects request names.
pub(super) fn keys(request: &str) -> Vec<String> {
    let keys = request.split("<Key>").skip(1);
    let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
    keys.map(|(key, _)| unescaped(key)).collect()
}

fn unescaped(text: &str) -> String {
    let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'")];
    // The mark itself comes last, so that nothing becomes one by that.
    let marks = marks.into_iter().chain([("&amp;", "&")]);
    marks.fold(text.to_owned(), |text, (escaped, mark)| text.replace(escaped, mark))
}

pub(super) fn deleted(keys: &[String]) -> String {
    let each = |key: &String| format!("<Deleted><Key>{}</Key></Deleted>", escaped(key));
    document("DeleteResult", &keys.iter().map(each).collect::<String>())
}

pub(super) fn upload(bucket: &str, key: &str, id: &str) -> String {
    let key = escaped(key);
    let content = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
    document("InitiateMultipartUploadResult", &content)
}

pub(super) fn completed(bucket: &str, key: &str, etag: &str) -> String {
    let (key, etag) = (escaped(key), escaped(etag));
    let content = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>");
    document("CompleteMultipartUploadResult", &content)
}
