//! Files that change while the bridge runs: certificates, keys, passwords.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem;
use xxhash_rust::xxh3::xxh3_128;

/// Some editors put this mark before a text, and joined files have it in between.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// A PEM file's text without byte order marks: a PEM reader silently skips an item behind one.
///
/// # Errors
/// The file cannot be read.
pub fn read_pem(file: &Path) -> Result<Vec<u8>, pem::Error> {
    let text = std::fs::read(file).map_err(pem::Error::Io)?;
    // PEM is ASCII: a lossy conversion loses nothing that counts.
    Ok(String::from_utf8_lossy(&text).replace(BYTE_ORDER_MARK, "").into_bytes())
}

/// Files that belong together; a folder stands for the certificates in it. The contents are compared, not times or
/// inodes: a Kubernetes Secret changes by a symbolic link.
pub struct Files {
    paths: Vec<PathBuf>,
    /// The contents when the files were last taken up.
    settled: Contents,
    before: Contents,
}

/// Each file's hash; `None` where it cannot be read.
type Contents = Vec<Option<u128>>;

impl Files {
    /// Reads the files once; later changes are told against this state.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let now = contents(&paths);
        Self { paths, settled: now.clone(), before: now }
    }

    /// Whether there is no file to look at.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Reads the files; true, once for each change, when two readings agree: several files may be written one after the
    /// other, and belong together.
    pub fn have_changed(&mut self) -> bool {
        let now = contents(&self.paths);
        let changed = now == self.before && now != self.settled;
        if changed {
            self.settled.clone_from(&now);
        }
        self.before = now;
        changed
    }
}

fn contents(paths: &[PathBuf]) -> Contents {
    let read = |path: &PathBuf| if path.is_dir() { certificates(path) } else { std::fs::read(path).ok() };
    paths.iter().map(|path| read(path).map(|text| xxh3_128(&text))).collect()
}

/// Every `*.crt` of a folder, one after the other: Kubernetes mounts a Secret with a CA and its successor like this.
/// `None` where the folder has none, or one cannot be read.
pub fn certificates(folder: &Path) -> Option<Vec<u8>> {
    let entries = std::fs::read_dir(folder).ok()?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>().ok()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    paths.sort();
    let texts = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>().ok()?;
    (!texts.is_empty()).then(|| texts.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_the_certificates_in_it() {
        let dir = temp_dir::TempDir::new().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.password", "0");
        assert_eq!(certificates(dir.path()), None);
        write("ca.crt", "1");
        write("ca-2018-07-06T17-54-49Z.crt", "2");
        assert_eq!(certificates(dir.path()).unwrap(), b"2\n1");
        let mut files = Files::new(vec![dir.path().to_owned()]);
        write("ca.password", "3");
        assert!(!files.have_changed() && !files.have_changed());
        write("ca-2019.crt", "4");
        assert!(!files.have_changed() && files.have_changed());
    }

    #[test]
    fn a_change_is_told_once_and_when_it_is_complete() {
        let dir = temp_dir::TempDir::new().unwrap();
        let paths = ["one", "two"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], "1").unwrap();
        let mut files = Files::new(paths.to_vec());
        assert!(!files.have_changed());
        std::fs::write(&paths[0], "2").unwrap();
        assert!(!files.have_changed());
        std::fs::write(&paths[1], "2").unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed());
        assert!(!files.have_changed());
    }
}
