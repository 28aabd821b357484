//! Owns cutting ordered keys into pages, with prefix and delimiter. Must not know requests or files.

use super::limits;

/// What to list.
#[derive(Clone, Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    /// Only what comes after this key or common prefix.
    pub(super) after: &'a str,
    pub(super) max: usize,
}

/// One page.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) prefixes: Vec<String>,
    /// The last key or common prefix of the page, if there is more.
    pub(super) next: Option<String>,
}

/// The page of `keys`, which are in order and begin no later than `query.after`.
pub(super) fn page<'k, T>(query: &Query<'_>, keys: impl Iterator<Item = (&'k str, T)>) -> Page<T> {
    let max = query.max.min(limits::PAGE_MAX);
    let mut page = Page { entries: Vec::new(), prefixes: Vec::new(), next: None };
    let mut last = String::new();
    if max == 0 {
        return page;
    }
    for (key, entry) in keys {
        let Some(rest) = key.strip_prefix(query.prefix) else {
            if key > query.prefix {
                break;
            }
            continue;
        };
        let group = match rest.find(query.delimiter) {
            Some(at) if !query.delimiter.is_empty() => {
                Some(&key[..query.prefix.len() + at + query.delimiter.len()])
            }
            Some(_) | None => None,
        };
        let name = group.unwrap_or(key);
        // A group that was listed goes on being listed: all its keys are behind its name.
        if name <= query.after && !query.after.is_empty()
            || group.is_some() && page.prefixes.last().is_some_and(|p| p == name)
        {
            continue;
        }
        if page.entries.len() + page.prefixes.len() == max {
            page.next = Some(last);
            break;
        }
        name.clone_into(&mut last);
        match group {
            Some(group) => page.prefixes.push(group.to_owned()),
            None => page.entries.push(entry),
        }
    }
    page
}

/// Percent-encodes a key for an answer with `encoding-type=url`.
pub(super) fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&super::sums::hex(&[byte]).to_uppercase());
        }
    }
    out
}
