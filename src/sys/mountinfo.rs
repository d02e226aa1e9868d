//! /proc/self/mountinfo, read (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line: one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// The mount's id.
    pub id: u64,
    /// st_dev of what it shows, as `major:minor`.
    pub device: (u32, u32),
    /// Which directory of the file system is shown.
    pub root: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// Flags of this mount, as in `rw,nosuid`.
    pub options: String,
    /// Such as `fuse.acetate`.
    pub fstype: String,
    /// What was given as source.
    pub source: OsString,
    /// The file system's own words, as in `rw,hidepid=invisible`.
    pub settings: String,
}

/// Reads the mounts that this process sees, in the order they were made.
pub fn read() -> std::io::Result<Vec<MountLine>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The uppermost mount at a path.
pub fn at(path: &Path) -> std::io::Result<Option<MountLine>> {
    Ok(read()?
        .into_iter()
        .rev()
        .find(|line| line.mountpoint == path))
}

/// Reads the text; lines of another form are left out.
pub fn parse(text: &[u8]) -> Vec<MountLine> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let mut device = fields.next()?.split(|b| *b == b':');
    let device = (
        u32::try_from(number(device.next()?)?).ok()?,
        u32::try_from(number(device.next()?)?).ok()?,
    );
    let root = path(fields.next()?);
    let mountpoint = path(fields.next()?);
    let options = text(fields.next()?);
    // Optional fields (propagation) end with a lone dash.
    fields.find(|f| *f == b"-")?;
    let fstype = text(&plain(fields.next()?));
    let source = OsString::from_vec(plain(fields.next()?));
    let settings = text(fields.next().unwrap_or_default());
    Some(MountLine {
        id,
        device,
        root,
        mountpoint,
        options,
        fstype,
        source,
        settings,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(plain(field)))
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = (*byte == b'\\')
            .then(|| tail.get(..3).and_then(octal_byte))
            .flatten();
        match octal {
            Some(value) => {
                out.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

fn octal_byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The absolute path the kernel would show for a mount point, found without
/// touching the mount itself: a dead or hanging daemon must not stop us.
pub fn real_mountpoint(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(PathBuf::from("/"));
    };
    if name.as_bytes() == b".." {
        return absolute.canonicalize();
    }
    let place = parent.canonicalize()?.join(name);
    // A symlink names the mount point it leads to; readlink of a mounted FUSE
    // root would not arrive here, as a directory is never one.
    match at(&place) {
        Ok(Some(_)) => Ok(place),
        _ => absolute.canonicalize(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_with_and_without_propagation_fields() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
            40 1 0:45 /merged /a\\040b\\134c ro,nosuid - fuse.acetate acetate ro,user_id=0\nrubbish\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].device, (98, 0));
        assert_eq!(lines[0].fstype, "ext3");
        assert_eq!(lines[1].mountpoint, Path::new("/a b\\c"));
        assert_eq!(lines[1].root, Path::new("/merged"));
        assert_eq!(lines[1].options, "ro,nosuid");
        assert_eq!(lines[1].fstype, "fuse.acetate");
    }

    #[test]
    fn a_backslash_without_digits_stays() {
        assert_eq!(plain(b"a\\x\\04"), b"a\\x\\04");
        assert_eq!(plain(b"\\011"), b"\t");
    }
}
