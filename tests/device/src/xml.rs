//! Owns the little XML that object stores answer with: elements by name, no attributes, no nesting of one name.

/// The text of the first element `name`, entities resolved.
pub fn text(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).next().map(unescape)
}

/// The inner text of every element `name`, as it stands.
pub fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let end = start + rest[start..].find(&close)?;
        let inner = &rest[start..end];
        rest = &rest[end + close.len()..];
        Some(inner)
    })
}

fn unescape(text: &str) -> String {
    let plain =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&#39;", "'")];
    let text = plain.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain));
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_in_order_and_entities_resolved_once() {
        let xml = "<L><C><Key>a&amp;lt;b</Key></C><C><Key>&quot;c&quot;</Key></C></L>";
        let keys: Vec<_> = elements(xml, "C").filter_map(|entry| text(entry, "Key")).collect();
        assert_eq!(keys, ["a&lt;b", "\"c\""]);
        assert_eq!(text(xml, "Missing"), None);
    }
}
