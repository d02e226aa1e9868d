//! Names of any bytes as printable text, and back: `%XX` for what could break a line.

/// `%`, `=` and what is no printable ASCII as `%XX`.
pub fn encoded(name: &[u8]) -> Vec<u8> {
    name.iter()
        .fold(Vec::with_capacity(name.len()), |mut out, b| {
            match b {
                b'%' | b'=' | 0..=0x20 | 0x7f.. => {
                    out.extend_from_slice(format!("%{b:02X}").as_bytes())
                }
                b => out.push(*b),
            }
            out
        })
}

/// The name that a text stands for; `None` where a `%` has no two digits behind it.
pub fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let digit = |d: Option<&u8>| char::from(*d?).to_digit(16);
                let value = digit(bytes.next())? << 4 | digit(bytes.next())?;
                u8::try_from(value).ok()?
            }
            b => *b,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_come_back() {
        let every: Vec<u8> = (1..=255).collect();
        let text = encoded(&every);
        assert!(text.iter().all(u8::is_ascii_graphic));
        assert_eq!(decoded(&text), Some(every));
        assert_eq!(decoded(b"user.%3d%41"), Some(b"user.=A".to_vec()));
        assert_eq!(decoded(b"user.%3"), None);
    }
}
