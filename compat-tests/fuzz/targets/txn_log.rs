//! The reader of transaction logs, and the decoder of what it finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io;
use std::path::Path;
use zabra::storage::{Disk, LogReader, ReadFile, SegmentFile, Space, WriteFile};
use zabra::wire::txn::Txn;

struct Memory(Vec<u8>);

impl ReadFile for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

struct OneFile(Vec<u8>);

impl Disk for OneFile {
    fn open(&self, _: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Memory(self.0.clone())))
    }
    fn list(&self, _: &Path) -> io::Result<Vec<(String, u64)>> {
        unreachable!("it is only read")
    }
    fn list_dirs(&self, _: &Path) -> io::Result<Vec<String>> {
        unreachable!("it is only read")
    }
    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn allocated(&self, _: &Path) -> io::Result<u64> {
        unreachable!("it is only read")
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        unreachable!("it is only read")
    }
    fn segment(&self, _: &Path, _: u64) -> io::Result<Box<dyn SegmentFile>> {
        unreachable!("it is only read")
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn truncate(&self, _: &Path, _: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn sync_file(&self, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        unreachable!("it is only read")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("it is only read")
    }
    fn boot(&self) -> u64 {
        unreachable!("it is only read")
    }
}

fuzz_target!(|data: &[u8]| {
    // Half of the inputs get a right header, so that the records are reached.
    let mut file = Vec::new();
    if data.first().is_some_and(|byte| byte & 1 == 0) {
        file.extend_from_slice(b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0");
    }
    file.extend_from_slice(data);
    let mut log = LogReader::open(&OneFile(file), Path::new("log.1")).expect("it opens");
    while let Ok(Some(record)) = log.next() {
        let _ = Txn::decode(record.body);
    }
    // Without a checksum in the way.
    let _ = Txn::decode(data.to_vec().into());
});
