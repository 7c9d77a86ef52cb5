//! Errors as messages tell them.

/// An error with what caused it, on one line, each thing once. What an object store answers as XML is told by its code and its message.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = shortened(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = shortened(&cause.to_string());
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// On one line, and without what is around code and message of an error of S3.
fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (Some(begins), Some(error)) = (text.find('<'), text.find("<Error>")) else { return text };
    let head = text.get(..begins).unwrap_or_default();
    let is_body =
        begins == error || text.get(begins..).is_some_and(|body| body.starts_with("<?xml"));
    let Some(body) = text.get(error..).filter(|_| is_body) else { return text };
    let of = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    };
    let tail = body.split_once("</Error>").map_or("", |(_, tail)| tail);
    match (of("Code"), of("Message")) {
        (Some(code), Some(message)) if !message.is_empty() => {
            format!("{head}{code}: {message}{tail}")
        }
        (Some(code), _) => format!("{head}{code}{tail}"),
        (None, _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: &'static str,
        source: Option<Box<Failure>>,
    }

    /// Whole answers of S3, with request ids and hosts, stood in messages, and twice.
    #[test]
    fn an_answer_in_xml_is_its_code_and_its_message() {
        let check = |texts: &[&'static str], expected: &str| {
            let chained = texts
                .iter()
                .rev()
                .fold(None, |source, text| Some(Box::new(Failure { text, source })));
            assert_eq!(chain(&*chained.expect("one")), expected);
        };
        let body = "status code: 503: <?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code>\n<Message>Reduce your\nrate</Message><HostId>x</HostId></Error>";
        check(&[body], "status code: 503: SlowDown: Reduce your rate");
        check(
            &["GET failed", body, body],
            "GET failed: status code: 503: SlowDown: Reduce your rate",
        );
        check(&["<Error><Code>NoSuchKey</Code></Error> at a"], "NoSuchKey at a");
        check(&["a  b", "b"], "a b");
        check(&["cut <Error><Co"], "cut <Error><Co");
        check(&["a <b> <Error><Code>x</Code></Error>"], "a <b> <Error><Code>x</Code></Error>");
    }
}
