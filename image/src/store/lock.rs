//! One process per store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::OpenError;

/// Held as long as the store is open; the kernel lets go of it whatever way the process ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the store in `root`, or says who has it.
    pub(super) fn take(root: &Path) -> Result<Self, OpenError> {
        let path = root.join("lock");
        let failed = |what: &'static str| {
            let path = path.clone();
            move |source: io::Error| OpenError::File { what, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = (&file).take(256).read_to_string(&mut holder);
                let holder = match read {
                    Ok(1..) => holder.trim().to_owned(),
                    _ => "another process".to_owned(),
                };
                return Err(OpenError::InUse { root: root.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let text = format!("{} (process {})\n", name.trim(), std::process::id());
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        write().map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}
