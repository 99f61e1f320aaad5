//! A file system of the test's own, in an image of which the power can be cut: what was written and not
//! flushed is gone then.
//!
//! It is mounted where only this test sees it, and gone with the test's last process.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::network::quietly;

/// Sparse; a node wants room for its segments and a reserve.
const IMAGE_BYTES: u64 = 4 << 30;
/// What is written to see whether a cut of the power loses it.
const WRITTEN: &[u8] = b"written";
/// `EXT4_IOC_SHUTDOWN` without flushing the journal, by a tool that every machine of the tests has.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))";

pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    /// Mounts a new file system at a folder; says why where that is not permitted.
    pub fn mount(image: PathBuf, folder: PathBuf) -> Result<Self, String> {
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES)
            .map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        quietly(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        let disk = Self { image, folder };
        disk.power_on()?;
        // Whether the power can be cut is known only by doing it.
        disk.write("flushed")
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(&disk.folder)?.sync_all())
            .map_err(|error| error.to_string())?;
        disk.write("unflushed").map_err(|error| error.to_string())?;
        let cut = disk.cut_power();
        disk.unmount()?;
        cut?;
        disk.power_on()?;
        assert_eq!(disk.read("flushed").as_deref(), Some(WRITTEN));
        let unflushed = disk.read("unflushed").unwrap_or_default();
        assert_ne!(unflushed, WRITTEN, "what was not flushed is gone");
        Ok(disk)
    }

    /// Writes a file and flushes nothing.
    fn write(&self, name: &str) -> std::io::Result<File> {
        let mut file = File::create(self.folder.join(name))?;
        file.write_all(WRITTEN)?;
        Ok(file)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(name)).ok()
    }

    /// From now on nothing reaches the image, and what is written fails.
    pub fn cut_power(&self) -> Result<(), String> {
        quietly(
            Command::new("python3")
                .args(["-c", SHUT_DOWN])
                .arg(&self.folder),
        )
    }

    /// Mounts it again, with what the image has. Nothing may have a file open.
    pub fn come_back(&self) -> Result<(), String> {
        self.unmount()?;
        self.power_on()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn power_on(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        quietly(
            mount
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.folder),
        )
    }

    fn unmount(&self) -> Result<(), String> {
        quietly(Command::new("umount").arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It goes with the last process that sees it all the same.
        let _ = self.unmount();
    }
}
