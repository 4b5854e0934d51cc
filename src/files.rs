//! Files that change while the bridge runs: certificates, keys, passwords.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_128;

/// Files that belong together. Their contents are compared, not times or inodes: a Kubernetes Secret changes by a
/// symbolic link.
pub struct Files {
    paths: Vec<PathBuf>,
    /// What they held when they were last taken up.
    settled: Contents,
    before: Contents,
}

/// Each file's hash; none where it cannot be read.
type Contents = Vec<Option<u128>>;

impl Files {
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let now = contents(&paths);
        Self { paths, settled: now.clone(), before: now }
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Looks at them; true, once for each change, when two looks have seen the same: files that are written one after
    /// the other belong together.
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
    paths.iter().map(|path| std::fs::read(path).ok().map(|text| xxh3_128(&text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
