//! The four seams in memory: duplex sockets by port, files in a map, tokio's virtual time, blocking work inline.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_runtime::seam::{Blocking, Clock, Disk, DiskFile, Listener, Meta, Net, Open, Seams};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) const START_MS: i64 = 1_795_225_444_000;

#[derive(Clone)]
pub(super) struct Floor {
    pub(super) net: Ports,
    pub(super) disk: Files,
    clock: Ticks,
}

impl Floor {
    pub(super) fn new() -> Self {
        Self { net: Ports::default(), disk: Files::default(), clock: Ticks(Instant::now()) }
    }
}

impl Seams for Floor {
    type Net = Ports;
    type Disk = Files;
    type Clock = Ticks;
    type Blocking = Inline;
    fn net(&self) -> &Ports {
        &self.net
    }
    fn disk(&self) -> &Files {
        &self.disk
    }
    fn clock(&self) -> &Ticks {
        &self.clock
    }
    fn blocking(&self) -> &Inline {
        &Inline
    }
}

#[derive(Clone, Default)]
pub(super) struct Ports(Arc<Mutex<BTreeMap<u16, mpsc::UnboundedSender<DuplexStream>>>>);

pub(super) struct Door(mpsc::UnboundedReceiver<DuplexStream>, u16);

impl Ports {
    pub(super) fn open(&self, port: u16) -> Door {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(port, sender);
        Door(receiver, port)
    }
}

impl Net for Ports {
    type Stream = DuplexStream;
    type Listener = Door;
    async fn bind(&self, addr: SocketAddr) -> io::Result<Door> {
        Ok(self.open(addr.port()))
    }
    async fn connect(&self, _host: &str, port: u16) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let door = self.0.lock().unwrap().get(&port).cloned();
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        door.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}

impl Door {
    pub(super) async fn next(&mut self) -> DuplexStream {
        self.0.recv().await.expect("the ports outlive their doors")
    }
}

impl Listener for Door {
    type Stream = DuplexStream;
    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        Ok((self.next().await, ([127, 0, 0, 1], self.1).into()))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], self.1).into())
    }
}

#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<BTreeMap<PathBuf, FileInMemory>>>);

#[derive(Clone, Debug, Default)]
pub(super) struct FileInMemory(Arc<Mutex<Vec<u8>>>);

impl Files {
    pub(super) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(Path::new(path)).map(|file| file.0.lock().unwrap().clone())
    }
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let file = FileInMemory(Arc::new(Mutex::new(bytes.to_vec())));
        self.0.lock().unwrap().insert(PathBuf::from(path), file);
    }
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().map(|path| path.display().to_string()).collect()
    }
}

impl Disk for Files {
    type File = FileInMemory;
    type Lock = ();
    fn open(&self, path: &Path, how: Open) -> io::Result<FileInMemory> {
        let mut files = self.0.lock().unwrap();
        match (how, files.get(path)) {
            (Open::Read | Open::ReadWrite, Some(file)) => Ok(file.clone()),
            (Open::Read | Open::ReadWrite, None) => Err(io::ErrorKind::NotFound.into()),
            (Open::CreateNew, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create | Open::CreateNew, _) => {
                let file = FileInMemory::default();
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
        }
    }
    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let files = self.0.lock().unwrap();
        if let Some(file) = files.get(path) {
            return Ok(Meta { len: file.len()?, is_dir: false, modified_ms: 0 });
        }
        let is_dir = files.keys().any(|name| name.starts_with(path));
        if is_dir { Ok(Meta { len: 0, is_dir, modified_ms: 0 }) } else { Err(io::ErrorKind::NotFound.into()) }
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.0.lock().unwrap();
        let inside = files.keys().filter_map(|name| name.strip_prefix(path).ok());
        let firsts = inside.filter_map(|name| Some(name.iter().next()?.to_string_lossy().into_owned()));
        let mut names: Vec<String> = firsts.collect();
        names.dedup();
        Ok(names)
    }
    fn lock(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn free_bytes(&self, _path: &Path) -> Option<u64> {
        None
    }
    fn restrict_to_owner(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for FileInMemory {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let from = offset as usize;
        let piece = bytes.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(piece);
        Ok(())
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let (from, to) = (offset as usize, offset as usize + buf.len());
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        bytes[from..to].copy_from_slice(buf);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct Ticks(Instant);

impl Clock for Ticks {
    fn now(&self) -> tidegate_core::time::Now {
        let passed = self.0.elapsed();
        tidegate_core::time::Now {
            wall: tidegate_core::time::Wall(START_MS).after(passed),
            mono: tidegate_core::time::Mono::default().after(passed),
        }
    }
    async fn sleep(&self, after: Duration) {
        tokio::time::sleep(after).await;
    }
}

#[derive(Clone)]
pub(super) struct Inline;

impl Blocking for Inline {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        work()
    }
    fn dedicate<T, F, M>(&self, _name: &'static str, make: M) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        drop(make);
        std::future::pending()
    }
    fn entropy(&self, buf: &mut [u8]) {
        buf.fill(7);
    }
}
