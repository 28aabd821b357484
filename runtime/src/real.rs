//! Owns the production seams: tokio sockets, std files, the clocks of the system, a pool for blocking work and the
//! entropy of the operating system. Must not decide anything, and is the only file that may name these primitives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use jiff::tz::TimeZone;
use socket2::{SockRef, TcpKeepalive};
use tidegate_core::time::{Mono, Now, Wall};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::seam::{Blocking, Clock, Descriptors, Disk, DiskFile, Listener, Meta, Net, Open, Seams, Trouble};

/// The seams of a running site. Cheap to clone; all clones share one monotonic origin.
#[derive(Clone, Debug, Default)]
pub struct RealSeams {
    net: RealNet,
    disk: RealDisk,
    clock: RealClock,
    blocking: RealBlocking,
}

impl RealSeams {
    /// Seams whose monotonic clock starts at zero now.
    #[must_use]
    pub fn new() -> RealSeams {
        RealSeams::default()
    }
}

impl Seams for RealSeams {
    type Net = RealNet;
    type Disk = RealDisk;
    type Clock = RealClock;
    type Blocking = RealBlocking;

    fn net(&self) -> &RealNet {
        &self.net
    }

    fn disk(&self) -> &RealDisk {
        &self.disk
    }

    fn clock(&self) -> &RealClock {
        &self.clock
    }

    fn blocking(&self) -> &RealBlocking {
        &self.blocking
    }

    fn system_text(&self, path: &Path) -> Option<String> {
        let mut text = String::new();
        // The kernel says of such a file that it is empty, or as long as a page.
        File::open(path).ok()?.take(SYSTEM_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn system_names(&self, path: &Path) -> Vec<String> {
        self.disk.list(path).unwrap_or_default()
    }

    fn local_zone(&self) -> Option<TimeZone> {
        TimeZone::try_system().ok()
    }

    #[cfg(unix)]
    fn descriptors(&self, wanted: Option<u64>) -> Option<Descriptors> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        let allowed = now.maximum.unwrap_or(FILES_MAX);
        let soft = wanted.unwrap_or(FILES_MAX).min(allowed);
        // Where the system refuses, what held before holds on, and that is what is told.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: now.maximum });
        let now = getrlimit(Resource::Nofile);
        now.current.map(|soft| Descriptors { soft, hard: now.maximum })
    }
}

/// TCP of the operating system, without Nagle's delay: frames and answers are small and waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNet;

/// A bound TCP socket.
#[derive(Debug)]
pub struct RealListener {
    socket: TcpListener,
    /// Kept so that a connection can be taken, and closed, when there is no other descriptor: left in the queue of the
    /// kernel its client would wait for an answer for ever.
    spare: Option<File>,
}

impl Net for RealNet {
    type Stream = TcpStream;
    type Listener = RealListener;

    async fn bind(&self, addr: SocketAddr) -> io::Result<RealListener> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the last process linger; on Windows the same word would let others take the port.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        Ok(RealListener { socket: socket.listen(BACKLOG)?, spare: spare() })
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        // An IPv6 literal arrives in the brackets of its URL, which the resolver does not know.
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for RealListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.spare.is_none() {
            self.spare = spare();
        }
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                // It fails on a connection that is gone already; whoever reads from it will see that.
                let _ = stream.set_nodelay(true);
                let _ = give_up_on_the_dead(&stream);
                Ok((stream, peer))
            }
            Err(error) => {
                if matches!(RealListener::trouble(&error), Trouble::ProcessFull | Trouble::SystemFull) {
                    self.turn_away().await;
                }
                Err(error)
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    #[cfg(unix)]
    fn trouble(error: &io::Error) -> Trouble {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => Trouble::ProcessFull,
            Some(Errno::NFILE) => Trouble::SystemFull,
            Some(Errno::CONNABORTED) => Trouble::Aborted,
            _ => Trouble::Other,
        }
    }
}

impl RealListener {
    /// Takes the next connection in place of the spare descriptor, and closes it.
    async fn turn_away(&mut self) {
        match self.spare.take() {
            Some(spare) => {
                drop(spare);
                drop(self.socket.accept().now_or_never());
                self.spare = self::spare();
            }
            // Another thread was quicker. It gives one back when it is done with its file.
            None => tokio::time::sleep(SPARE_PAUSE).await,
        }
    }
}

/// Has the system end a connection whose peer is gone without a word, after [`SILENT_MAX`]. Left to itself it tries for a
/// quarter of an hour to send what is small enough for its buffers, and never ends what only listens.
fn give_up_on_the_dead(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(SILENT_MAX / 2).with_interval(PROBE_EVERY);
    #[cfg(unix)]
    let probes = probes.with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENT_MAX))?;
    Ok(())
}

/// How long an accepted connection may be without a sign of life of its peer's system: longer than a robot needs to get
/// from one access point to the next.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Between two questions to a peer that was silent for half of that.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// So many questions fill the other half.
#[cfg(unix)]
const PROBES: u32 = 3;

fn spare() -> Option<File> {
    File::open(if cfg!(windows) { "NUL" } else { "/dev/null" }).ok()
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// An open file. Positioned reads and writes need no lock: they do not move a cursor.
#[derive(Debug)]
pub struct RealFile(File);

/// A locked file; the lock ends with it.
#[derive(Debug)]
pub struct RealLock {
    _file: File,
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn open(&self, path: &Path, how: Open) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::ReadWrite => {
                options.write(true);
            }
            Open::Create => {
                options.write(true).create(true).truncate(true);
            }
            Open::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(RealFile(options.open(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A directory can be opened and synced like a file on unix only; elsewhere the rename itself is all there is.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let found = fs::metadata(path)?;
        Ok(Meta {
            len: if found.is_dir() { 0 } else { found.len() },
            is_dir: found.is_dir(),
            modified_ms: found.modified().map_or(0, millis_since_1970),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn lock(&self, path: &Path) -> io::Result<RealLock> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(RealLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(unix)]
    fn free_bytes(&self, path: &Path) -> Option<u64> {
        let found = rustix::fs::statvfs(path).ok()?;
        // What only root may still use is not free.
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg(unix)]
    fn file_number(&self, path: &Path) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path).ok()?;
        // Some file systems give a number away again at once: the time of birth tells the next file from the last.
        let born = found.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let born = born.map_or(0, |at| at.as_nanos() as u64);
        Some(found.ino() ^ born.rotate_left(32))
    }

    #[cfg(unix)]
    fn total_bytes(&self, path: &Path) -> Option<u64> {
        let found = rustix::fs::statvfs(path).ok()?;
        Some(found.f_blocks.saturating_mul(found.f_frsize))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self, _path: &Path) -> Option<u64> {
        // std cannot tell. A full disk shows itself as `StorageFull` on the write that does not fit.
        None
    }

    fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = if fs::metadata(path)?.is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
        #[cfg(not(unix))]
        {
            fs::metadata(path).map(drop)
        }
    }
}

impl DiskFile for RealFile {
    #[cfg(unix)]
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.0.seek_read(&mut buf[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, buf, offset)
    }

    #[cfg(windows)]
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.0.seek_write(&buf[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The clocks of the system. The monotonic one counts nanoseconds since this value was first made.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    origin: Instant,
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock { origin: Instant::now() }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Now {
        Now {
            wall: Wall(millis_since_1970(SystemTime::now())),
            mono: Mono(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    async fn sleep(&self, after: Duration) {
        tokio::time::sleep(after).await;
    }
}

/// A pool of threads for short blocking work, threads of their own for what runs as long as the site.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealBlocking;

impl Blocking for RealBlocking {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is being torn down cancels blocking work; the task that waits is dropped
                // with it and never sees an answer.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }

    async fn dedicate<T, F, M>(&self, name: &'static str, make: M) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        let (send, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a current-thread runtime needs a few descriptors at start only");
            let value = tokio::task::LocalSet::new().block_on(&runtime, async move { make().await });
            // Nobody waits any more when the site is being torn down.
            let _ = send.send(value);
        });
        let thread = thread.expect("the system can start one more thread");
        match answer.await {
            Ok(value) => value,
            Err(_gone) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                // The sender went without a value and without a panic: the closure above cannot do that.
                Ok(()) => unreachable!("the thread {name} ended without an answer"),
            },
        }
    }

    fn entropy(&self, buf: &mut [u8]) {
        getrandom::fill(buf).expect("the operating system has entropy once it has booted");
    }
}

/// More descriptors than a site has a use for, where the system has no limit of its own.
const FILES_MAX: u64 = 1 << 20;

/// Connections that may wait to be accepted: as many as there can be links. The system takes less of it, Linux
/// `net.core.somaxconn`, by default 4,096. Where a fleet that comes back at once finds the queue full, it tries again after 1, 3
/// and 7 seconds.
const BACKLOG: u32 = 32_768;

/// How long a listener without a spare descriptor waits for one.
const SPARE_PAUSE: Duration = Duration::from_millis(20);

/// The table of routes of a router is a few hundred kilobytes; nothing else that is read is as long as a page.
const SYSTEM_BYTES_MAX: u64 = 1 << 20;

fn millis_since_1970(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_second_lock_of_the_same_file_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        RealDisk.lock(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_has_another_number_and_one_that_was_changed_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("f"), dir.path().join("next"));
        fs::write(&path, b"whole").unwrap();
        let first = RealDisk.file_number(&path).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b" and more").unwrap();
        assert_eq!(RealDisk.file_number(&path), Some(first), "it was changed where it lies");
        // Unlinked first, so that a file system may give its number away again. Births are told apart by the tick of the
        // kernel's clock: some of these fall into one, all of them do not.
        let by = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while RealDisk.file_number(&path) == Some(first) {
            assert!(std::time::Instant::now() < by, "another file has the number of the one before");
            fs::remove_file(&path).unwrap();
            fs::write(&next, b"whole").unwrap();
            fs::rename(&next, &path).unwrap();
        }
        assert_eq!(RealDisk.file_number(&next), None, "there is none any more");
    }

    #[test]
    fn files_are_read_and_written_at_positions_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let file = RealDisk.open(&path, Open::CreateNew).unwrap();
        file.write_all_at(b"world", 6).unwrap();
        file.write_all_at(b"hello ", 0).unwrap();
        file.sync().unwrap();
        let mut all = [0; 11];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(&all, b"hello world");
        assert_eq!(file.read_exact_at(&mut all, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(RealDisk.open(&path, Open::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        RealDisk.open(&dir.path().join("a"), Open::Create).unwrap();
        RealDisk.sync_dir(dir.path()).unwrap();
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["a", "b"]);
        assert_eq!(RealDisk.meta(&path).unwrap().len, 11);
        RealDisk.restrict_to_owner(&path).unwrap();
        assert_eq!(RealDisk.free_bytes(dir.path()).is_some_and(|free| free > 0), cfg!(unix));
        assert_eq!(RealDisk.free_bytes(&dir.path().join("nowhere")), None);
    }

    #[test]
    fn a_dedicated_thread_has_its_name_and_answers() {
        let answer = block_on(RealBlocking.dedicate("test-thread", || async {
            let two = tokio::spawn(async { 2 }).await.unwrap();
            (two, std::thread::current().name().map(str::to_owned))
        }));
        assert_eq!(answer, (2, Some("test-thread".to_owned())));
    }

    #[test]
    fn a_panic_in_blocking_work_reaches_the_caller() {
        let caught = std::panic::catch_unwind(|| block_on(RealBlocking.run(|| panic!("from the pool"))));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"from the pool"));
        let caught = std::panic::catch_unwind(|| {
            block_on(RealBlocking.dedicate("panics", || async { panic!("from the thread") }))
        });
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"from the thread"));
    }

    #[test]
    fn sockets_carry_bytes_both_ways() {
        block_on(async {
            let mut listener = RealNet.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (mut ours, accepted) =
                tokio::try_join!(RealNet.connect("localhost", port), listener.accept()).unwrap();
            let (mut theirs, _) = accepted;
            ours.write_all(b"ping").await.unwrap();
            let mut got = [0; 4];
            theirs.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"ping");
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_ends_accepted_connections_whose_peer_is_gone_within_a_minute() {
        block_on(async {
            let mut listener = RealNet.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (_client, accepted) =
                tokio::try_join!(RealNet.connect("localhost", port), listener.accept()).unwrap();
            let socket = SockRef::from(&accepted.0);
            assert!(socket.keepalive().unwrap());
            let silent = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
            assert_eq!(silent, SILENT_MAX);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENT_MAX));
        });
    }

    /// In a process of its own: the limit of this one is everybody's.
    #[cfg(unix)]
    #[test]
    fn without_a_descriptor_left_clients_are_turned_away_at_once_and_later_they_are_taken_again() {
        const CHILD: &str = "TIDEGATE_TEST_FEW_DESCRIPTORS";
        if std::env::var_os(CHILD).is_some() {
            return block_on(few_descriptors());
        }
        let name = "real::tests::without_a_descriptor_left_clients_are_turned_away_at_once_and_later_they_are_taken_again";
        let ended = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && text.contains("1 passed"), "{text}");
    }

    #[cfg(unix)]
    async fn few_descriptors() {
        let seams = RealSeams::new();
        assert_eq!(seams.descriptors(Some(50)), Some(Descriptors { soft: 50, hard: Some(64) }));
        assert_eq!(seams.descriptors(None), Some(Descriptors { soft: 64, hard: Some(64) }));
        assert_eq!(seams.descriptors(Some(1000)).unwrap().soft, 64, "no more than the system allows");
        let mut listener = seams.net().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        for client in &mut clients {
            let error = listener.accept().await.unwrap_err();
            assert_eq!(RealListener::trouble(&error), Trouble::ProcessFull, "{error}");
            let read = client.read(&mut [0]).await;
            assert!(matches!(read, Ok(0) | Err(_)), "it is closed, and not kept waiting");
        }
        drop((taken, clients));
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        client.unwrap();
        accepted.unwrap();
    }

    #[test]
    fn the_monotonic_clock_starts_at_zero_and_clones_share_it() {
        let seams = RealSeams::new();
        let a = seams.clock().now();
        let b = seams.clone().clock().now();
        assert!(a.mono <= b.mono);
        assert!(a.wall.0 > 1_600_000_000_000);
        let mut first = [0_u8; 16];
        let mut second = [0_u8; 16];
        seams.blocking().entropy(&mut first);
        seams.blocking().entropy(&mut second);
        assert_ne!(first, second);
    }
}
