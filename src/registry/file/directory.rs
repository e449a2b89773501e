//! The directory of one service. All of this blocks.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    boot,
    record::{EXTENSION, LeaseRecord, MAX_SIZE, Record, file_name},
};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceName,
    registry::Lease,
    util::{
        file::{self, TEMPORARY},
        filename,
        stamp::{self, Stamp},
    },
};

#[derive(Debug, Clone)]
pub(super) struct Directory {
    root: PathBuf,
    path: PathBuf,
    service: ServiceName,
}

/// What a directory holds.
#[derive(Debug)]
pub(super) enum Listing {
    /// There is no directory for this service.
    NoService,
    Records {
        records: Vec<(String, Record)>,
        /// What is no record, by the name of its file; the sum of those past the bound under one name.
        skipped: BTreeMap<String, Error>,
        /// Which directory it is: another one may come in its place.
        identity: u64,
    },
}

/// What was read of each file before; a file that is the same is not read again.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<String, (Stamp, Result<Record>)>);

/// So many files of one service are read.
const MAX_FILES: usize = 10_000;

/// What nobody renewed or touched for so long, or ten TTLs if that is longer, is swept away.
const STALE: Duration = Duration::from_secs(60);

impl Directory {
    pub(super) fn new(root: PathBuf, service: ServiceName) -> Self {
        Self { path: root.join(filename::encode(service.as_str())), root, service }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory.
    pub(super) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|error| failed("make", &self.path, error))
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.file(record);
        file::replace(&path, &record.encode()?, false).map_err(|error| failed("write", &path, error))
    }

    /// The lease in the file of this record, if it is the record's own.
    pub(super) fn read_own(&self, record: &Record) -> Result<Option<LeaseRecord>> {
        let path = self.file(record);
        let bytes = match file::read(&path, MAX_SIZE) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(failed("read", &path, error)),
        };
        // What somebody else made of the file, or half of it, is not ours.
        let found = Record::decode(&bytes, &self.service, &name(record)).ok().and_then(|found| found.lease);
        Ok(found.filter(|found| record.lease.as_ref().is_some_and(|own| own.token == found.token)))
    }

    /// Reads all there is.
    pub(super) fn list(&self, known: &mut Known) -> Result<Listing> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) && self.root.is_dir() => return Ok(Listing::NoService),
            Err(error) if is_missing(&error) => {
                let context = format!(
                    "there is no directory {}: it is made when a first server registers there",
                    self.root.display()
                );
                return Err(Error::with_source(Kind::Unavailable, context, error));
            }
            Err(error) => return Err(failed("read", &self.path, error)),
        };
        let identity = fs::metadata(&self.path).map_or(0, |metadata| stamp::identity(&metadata));
        let (mut records, mut skipped, mut before) = (Vec::new(), BTreeMap::new(), std::mem::take(&mut known.0));
        let mut beyond = 0;
        for entry in entries {
            let entry = entry.map_err(|error| failed("read", &self.path, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Among hidden ones are those being written.
            if name.starts_with('.') {
                continue;
            }
            if known.0.len() >= MAX_FILES {
                beyond += 1;
                continue;
            }
            // Gone since the directory was read, or as good as that.
            let Ok(metadata) = entry.metadata() else { continue };
            let stamp = Stamp::of(&metadata);
            let result = match before.remove(&name) {
                Some((same, result)) if same == stamp => result,
                _ => match self.read(&name, &metadata) {
                    Some(result) => result,
                    None => continue,
                },
            };
            match &result {
                Ok(record) => records.push((name.clone(), record.clone())),
                Err(error) => drop(skipped.insert(name.clone(), error.clone())),
            }
            known.0.insert(name, (stamp, result));
        }
        if beyond > 0 {
            let context = format!("more than {MAX_FILES} files: {beyond} or more are not read");
            skipped.insert("*".to_owned(), Error::new(Kind::Exhausted, context));
        }
        Ok(Listing::Records { records, skipped, identity })
    }

    /// Reads one file; none if it is gone by now.
    fn read(&self, name: &str, metadata: &fs::Metadata) -> Option<Result<Record>> {
        let skip = |why: &'static str| Some(Err(Error::new(Kind::Corrupt, why)));
        if !metadata.is_file() {
            return skip("it is not a regular file");
        }
        if !name.ends_with(EXTENSION) {
            return skip("its name does not end in .json");
        }
        match file::read(&self.path.join(name), MAX_SIZE) {
            Ok(bytes) => Some(Record::decode(&bytes, &self.service, name)),
            Err(error) if is_missing(&error) => None,
            Err(error) => Some(Err(Error::with_source(Kind::Corrupt, "it cannot be read", error))),
        }
    }

    /// Takes out leases that ended long ago, and temporary files of who crashed over them. How long
    /// ago is told by the file system's clock alone. One who lives would write his file again.
    pub(super) fn sweep(&self) {
        let Some(now) = self.clock() else { return };
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten().take(MAX_FILES) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = entry.metadata().and_then(|metadata| metadata.modified());
            let age = age.ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            if age < STALE {
                continue;
            }
            let temporary = name.starts_with('.') && name.ends_with(TEMPORARY);
            let stale = || {
                let bytes = file::read(&entry.path(), MAX_SIZE).ok()?;
                let lease = Record::decode(&bytes, &self.service, &name).ok()?.lease?;
                Some(age > lease.ttl() * 10)
            };
            if temporary || stale() == Some(true) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// What time it is to the file system.
    fn clock(&self) -> Option<std::time::SystemTime> {
        let probe = self.path.join(".clock");
        file::replace(&probe, b"", false).ok()?;
        let now = fs::metadata(&probe).and_then(|metadata| metadata.modified()).ok();
        drop(fs::remove_file(&probe));
        now
    }

    fn file(&self, record: &Record) -> PathBuf {
        self.path.join(name(record))
    }
}

impl Record {
    /// The record of a lease that was never renewed.
    pub(super) fn of(lease: &Lease) -> Self {
        let ttl_ms = u64::try_from(lease.ttl().as_millis()).unwrap_or(u64::MAX);
        let token = lease.token().to_owned();
        let record = LeaseRecord { token, beat: 0, ttl_ms, ended: false, boot: None, uptime_ms: 0 };
        Self { instance: lease.instance().clone(), lease: Some(record) }.beat(0)
    }

    /// The same, renewed now for the `beat`th time.
    pub(super) fn beat(mut self, beat: u64) -> Self {
        if let Some(lease) = &mut self.lease {
            lease.beat = beat;
            lease.boot = boot::id().map(str::to_owned);
            lease.uptime_ms = boot::uptime().map_or(0, |uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX));
        }
        self
    }

    /// The same, taken out by its owner.
    pub(super) fn ended(mut self) -> Self {
        if let Some(lease) = &mut self.lease {
            lease.ended = true;
        }
        self
    }
}

fn name(record: &Record) -> String {
    file_name(record.instance.id().as_str())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::Unavailable,
    };
    Error::with_source(kind, format!("cannot {what} {}", path.display()), source)
}
