//! The last set of each service on disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    registry::Snapshot,
    util::{file, filename, task::blocking},
};

/// A directory with one file a service: a line that says what it is, then a line an instance.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    registry: Box<str>,
}

impl Disk {
    pub(super) fn new(directory: &Path, registry: &str) -> Self {
        Self { directory: directory.join(filename::encode(registry)), registry: registry.into() }
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn path(&self, service: &ServiceName) -> PathBuf {
        self.directory.join(format!("{}.snapshot", filename::encode(service.as_str())))
    }

    /// Reads the last set; none if there is no file.
    pub(super) async fn load(&self, service: &ServiceName) -> Result<Option<Snapshot>> {
        let (path, service) = (self.path(service), service.clone());
        blocking(move || match file::read(&path, MAX_SIZE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
            Ok(bytes) => decode(&bytes, &service).map(Some),
        })
        .await
    }

    /// Writes a set in place of the last one. A reader finds the one or the other, never a part.
    pub(super) async fn save(&self, service: &ServiceName, snapshot: Snapshot) -> Result<()> {
        let (path, service, directory) = (self.path(service), service.clone(), self.directory.clone());
        blocking(move || {
            let bytes = encode(&service, snapshot.instances())?;
            fs::create_dir_all(&directory).map_err(|error| failed("make the directory of", &path, error))?;
            file::replace(&path, &bytes, true).map_err(|error| failed("write", &path, error))
        })
        .await
    }
}

fn header(service: &ServiceName, instances: usize) -> String {
    format!("callsign snapshot 1 {instances} {service}\n")
}

fn encode(service: &ServiceName, instances: &[Arc<ServiceInstance>]) -> Result<Vec<u8>> {
    let mut bytes = header(service, instances.len()).into_bytes();
    for instance in instances {
        bytes.extend_from_slice(instance.to_json().as_bytes());
        bytes.push(b'\n');
    }
    if bytes.len() as u64 > MAX_SIZE {
        let context = format!("the snapshot of {service} has {} bytes, at most {MAX_SIZE} are kept", bytes.len());
        return Err(Error::new(Kind::Exhausted, context));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], service: &ServiceName) -> Result<Snapshot> {
    let corrupt = |why: &str| Error::new(Kind::Corrupt, format!("the snapshot of {service} is not usable: {why}"));
    let lines = bytes.strip_suffix(b"\n").ok_or_else(|| corrupt("it is cut short"))?;
    let mut lines = lines.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let instances = lines.map(|line| ServiceInstance::from_json(line).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    if first != header(service, instances.len()).trim_end().as_bytes() {
        return Err(corrupt("its first line does not fit what follows"));
    }
    if instances.iter().any(|instance| instance.service() != service) {
        return Err(corrupt("it is of another service"));
    }
    Ok(Snapshot::new(instances))
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    Error::with_source(Kind::Unavailable, format!("cannot {what} {}", path.display()), source)
}

/// What is read of a file and written to one, at most.
const MAX_SIZE: u64 = 16 * 1024 * 1024;
