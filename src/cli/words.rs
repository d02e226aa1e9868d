//! The text of `-o`: words between commas, layers between colons, numbers in maps.
//!
//! Bytes in, bytes out: a path need not be UTF-8, and nothing here looks at a
//! file system. The rules are those of the kernel's overlayfs (`ovl_next_opt()`
//! and `ovl_parse_param_split_lowerdirs()` in fs/overlayfs/params.c), because
//! that is what the callers write for; double quotes right after the `=` are
//! mount(8)'s, for SELinux contexts with commas in them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::app::{IdExtent, LowerArg};

use super::failure::Usage;

/// One word of `-o`: `key` or `key=value`, the value still escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// What stands before the first `=`.
    pub key: &'a [u8],
    /// What stands behind it, without the quotes around it.
    pub value: Option<&'a [u8]>,
    /// The whole word as it was given.
    pub text: &'a [u8],
}

/// Splits an option string at its commas.
///
/// Empty words (`,,`, a comma at an end: podman 4 writes both) are dropped. A
/// comma is part of the word after a backslash, and between the double quotes
/// of `key="a,b"`.
pub fn split_words(text: &[u8]) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = word_end(rest);
        let (word, tail) = rest.split_at(end);
        if !word.is_empty() {
            words.push(as_word(word));
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    words
}

/// Where the word at the start of `text` ends: at its comma or at the end.
fn word_end(text: &[u8]) -> usize {
    if let Some(end) = quoted_word_end(text) {
        return end;
    }
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => return at,
            _ => {}
        }
    }
    text.len()
}

/// The end of a word of the form `key="…"`, if it is one: the closing quote
/// must be the last of the word, so that a quote in a path stays a quote.
fn quoted_word_end(text: &[u8]) -> Option<usize> {
    let equals = text.iter().position(|b| matches!(b, b'=' | b','))?;
    if text.get(equals) != Some(&b'=') || text.get(equals + 1) != Some(&b'"') {
        return None;
    }
    let first = equals + 2;
    let length = text.get(first..)?.iter().position(|b| *b == b'"')?;
    let behind = first + length + 1;
    matches!(text.get(behind), None | Some(b',')).then_some(behind)
}

fn as_word(text: &[u8]) -> Word<'_> {
    let Some(equals) = text.iter().position(|b| *b == b'=') else {
        return Word {
            key: text,
            value: None,
            text,
        };
    };
    let key = text.get(..equals).unwrap_or_default();
    let mut value = text.get(equals + 1..).unwrap_or_default();
    if let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""))
    {
        value = inner;
    }
    Word {
        key,
        value: Some(value),
        text,
    }
}

/// Takes one level of backslashes away: `\:` is `:`, `\,` is `,`, `\\` is `\`.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut escaped = false;
    for byte in text {
        if *byte == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        plain.push(*byte);
        escaped = false;
    }
    if escaped {
        plain.push(b'\\');
    }
    plain
}

/// A path from an escaped value.
pub fn path_of(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(text)))
}

/// Splits `lowerdir=`: layers between single colons, uppermost first; what
/// follows `::` is a data-only layer. Colons at the ends are ignored, as
/// fuse-overlayfs does.
pub fn split_lowers(text: &[u8]) -> Result<Vec<LowerArg>, Usage> {
    let mut lowers: Vec<LowerArg> = Vec::new();
    let mut data_only = false;
    for (colons, piece) in colon_pieces(text) {
        if !lowers.is_empty() {
            if data_only && colons == 1 {
                return Err(Usage::new(
                    "lowerdir= has a layer after a data-only layer",
                    "write `::` before every layer behind the first `::`",
                ));
            }
            data_only |= colons > 1;
        }
        lowers.push(LowerArg {
            path: path_of(piece),
            data_only,
            beside: None,
        });
    }
    Ok(lowers)
}

/// The pieces between unescaped colons, each with the number of colons before it.
fn colon_pieces(text: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let (mut start, mut colons, mut escaped) = (0, 0, false);
    for (at, byte) in text.iter().enumerate() {
        if *byte == b':' && !escaped {
            if let Some(piece) = text.get(start..at).filter(|p| !p.is_empty()) {
                pieces.push((colons, piece));
                colons = 0;
            }
            colons += 1;
            start = at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    if let Some(piece) = text.get(start..).filter(|p| !p.is_empty()) {
        pieces.push((colons, piece));
    }
    pieces
}

/// Reads `C:H:S[:C:H:S…]`, with empty fields (podman 4 begins with a colon)
/// ignored: C on disk, H shown, S how many.
pub fn parse_map(key: &str, text: &[u8]) -> Result<Vec<IdExtent>, Usage> {
    IdExtent::parse_list(text).ok_or_else(|| {
        Usage::new(
            format!(
                "{key}={} is not a mapping of ids",
                String::from_utf8_lossy(text)
            ),
            "write ON_DISK:SHOWN:COUNT, several of them with colons between, for example 0:1000:1:1:100000:65536",
        )
    })
}

/// A decimal number, nothing else around it.
pub fn parse_u32(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split_words(text.as_bytes())
            .iter()
            .map(|w| String::from_utf8_lossy(w.text).into_owned())
            .collect()
    }

    fn lowers(text: &str) -> Vec<(String, bool)> {
        split_lowers(text.as_bytes())
            .unwrap()
            .iter()
            .map(|l| (l.path.to_string_lossy().into_owned(), l.data_only))
            .collect()
    }

    #[test]
    fn empty_words_are_dropped() {
        assert_eq!(texts("a=1,,volatile,"), ["a=1", "volatile"]);
        assert_eq!(texts(",,"), [""; 0]);
        assert_eq!(texts(""), [""; 0]);
    }

    #[test]
    fn commas_hide_behind_backslashes_and_in_quotes() {
        assert_eq!(
            texts(r"upperdir=/a\,b,workdir=/w"),
            [r"upperdir=/a\,b", "workdir=/w"]
        );
        assert_eq!(
            texts(r#"x,context="system_u:object_r:c_t:s0:c1,c2",ro"#),
            ["x", r#"context="system_u:object_r:c_t:s0:c1,c2""#, "ro"]
        );
        let words = split_words(br#"context="a,b""#);
        assert_eq!(words[0].value, Some(&b"a,b"[..]));
    }

    #[test]
    fn a_quote_in_a_path_is_only_a_quote() {
        assert_eq!(texts(r#"lowerdir=/a"b,ro"#), [r#"lowerdir=/a"b"#, "ro"]);
        assert_eq!(texts(r#"lowerdir="/a,ro"#), [r#"lowerdir="/a"#, "ro"]);
        assert_eq!(texts(r#"lowerdir="/a"b,ro"#), [r#"lowerdir="/a"b"#, "ro"]);
    }

    #[test]
    fn two_backslashes_are_one_and_escape_nothing() {
        assert_eq!(texts(r"a=x\\,ro"), [r"a=x\\", "ro"]);
        assert_eq!(unescape(br"x\\y\:z\,w\q\"), br"x\y:z,wq\");
    }

    #[test]
    fn lowers_are_split_at_colons_and_data_only_ones_at_double_colons() {
        let layer = |p: &str| (p.to_owned(), false);
        let data = |p: &str| (p.to_owned(), true);
        assert_eq!(lowers("/a:/b:/c"), [layer("/a"), layer("/b"), layer("/c")]);
        assert_eq!(lowers(r"/a\:b:/c"), [layer("/a:b"), layer("/c")]);
        assert_eq!(lowers(r"/a\\:/c"), [layer(r"/a\"), layer("/c")]);
        assert_eq!(
            lowers("/a:/b::/d::/e"),
            [layer("/a"), layer("/b"), data("/d"), data("/e")]
        );
        assert_eq!(lowers(":/a:"), [layer("/a")]);
        assert_eq!(lowers(r"/a\"), [layer(r"/a\")]);
        assert_eq!(lowers(r"/a\:"), [layer("/a:")]);
        assert_eq!(lowers(""), []);
        assert!(split_lowers(b"/a::/d:/c").is_err());
    }

    #[test]
    fn maps_may_begin_with_a_colon_as_podman_4_writes_them() {
        let one = IdExtent {
            disk: 0,
            view: 1,
            count: 1000,
        };
        assert_eq!(parse_map("uidmapping", b":0:1:1000").unwrap(), [one]);
        let two = IdExtent {
            disk: 1000,
            view: 0,
            count: 1,
        };
        assert_eq!(
            parse_map("uidmapping", b"0:1:1000:1000:0:1").unwrap(),
            [one, two]
        );
        for wrong in [
            &b"0:1"[..],
            b"",
            b":",
            b"0:1:0",
            b"0:1:x",
            b"4294967295:0:2",
            b"-1:0:1",
            b"+1:0:1",
        ] {
            assert!(parse_map("uidmapping", wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_map("uidmapping", b"0:0:4294967295").is_ok());
    }
}
