//! SQLite's side of `queue`: the same transitions as rows of two tables, one writer thread that drains a channel, and
//! answers that leave after the commit. One request per transaction, or as many as the driver takes into a batch.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::{CLAIMED_MAX, Sample, Spent};

/// Bytes of the row of a job and of an episode beside its columns: about what ours have.
pub const ROW_BYTES: usize = 256;
/// As the site's store.
const CACHE_KIB: i64 = 32 << 10;
/// Requests that may wait, as letters for the driver.
const WAITING_MAX: usize = tidegate_runtime::inbox::LETTERS;

/// A transition.
enum Ask {
    Enqueue(i64),
    /// The due job that was approved first.
    Claim,
    Complete(i64),
}

/// Its answer, after the commit: the job, if there was one.
type Answer = rusqlite::Result<Option<i64>>;
type Letter = (Ask, oneshot::Sender<Answer>);

fn open(dir: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(dir.join("queue.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

/// Makes a database with so many approved episodes, numbered from 1.
pub fn seed(dir: &Path, episodes: u64) -> rusqlite::Result<()> {
    let mut connection = open(dir)?;
    connection.execute_batch(
        "CREATE TABLE episodes (id INTEGER PRIMARY KEY, approved_at INTEGER NOT NULL, sync INTEGER NOT NULL, \
         job INTEGER, row BLOB NOT NULL);
         CREATE TABLE jobs (id INTEGER PRIMARY KEY, episode INTEGER NOT NULL, state INTEGER NOT NULL, \
         approved_at INTEGER NOT NULL, queued_at INTEGER NOT NULL, claims INTEGER NOT NULL, claimed_at INTEGER, \
         ended_at INTEGER, row BLOB NOT NULL);
         CREATE INDEX jobs_due ON jobs (approved_at, id) WHERE state = 0;",
    )?;
    let tx = connection.transaction()?;
    for episode in 1..=i64::try_from(episodes).unwrap_or(i64::MAX) {
        let row = [7_u8; ROW_BYTES];
        tx.execute("INSERT INTO episodes VALUES (?1, ?1, 0, NULL, ?2)", params![episode, row])?;
    }
    tx.commit()?;
    // Everything into the one file that is copied.
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE")
}

fn transit(connection: &Connection, ask: &Ask, at: i64) -> Answer {
    match ask {
        Ask::Enqueue(episode) => {
            let row = [7_u8; ROW_BYTES];
            let mut insert = connection.prepare_cached(
                "INSERT INTO jobs (episode, state, approved_at, queued_at, claims, row) \
                 SELECT id, 0, approved_at, ?2, 0, ?3 FROM episodes WHERE id = ?1 AND sync = 0",
            )?;
            let job = insert.insert(params![episode, at, row])?;
            let mut mark =
                connection.prepare_cached("UPDATE episodes SET sync = 1, job = ?2 WHERE id = ?1")?;
            mark.execute(params![episode, job])?;
            Ok(Some(job))
        }
        Ask::Claim => {
            let mut claim = connection.prepare_cached(
                "UPDATE jobs SET state = 1, claims = claims + 1, claimed_at = ?1 WHERE id = \
                 (SELECT id FROM jobs WHERE state = 0 ORDER BY approved_at, id LIMIT 1) RETURNING id",
            )?;
            claim.query_row(params![at], |row| row.get(0)).optional()
        }
        Ask::Complete(job) => {
            let mut complete = connection.prepare_cached(
                "UPDATE jobs SET state = 2, ended_at = ?2 WHERE id = ?1 AND state = 1 RETURNING episode",
            )?;
            let episode: Option<i64> = complete.query_row(params![job, at], |row| row.get(0)).optional()?;
            let mut mark = connection.prepare_cached("UPDATE episodes SET sync = 2 WHERE id = ?1")?;
            mark.execute(params![episode])?;
            Ok(episode.map(|_| *job))
        }
    }
}

/// The one writer. Gives how many transactions it made.
fn write(
    mut connection: Connection,
    mut letters: mpsc::Receiver<Letter>,
    batch_max: usize,
) -> rusqlite::Result<u64> {
    let mut commits = 0;
    let origin = Instant::now();
    while let Some(first) = letters.blocking_recv() {
        let at = i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some((ask, to)) = next {
            answers.push((to, transit(&tx, &ask, at)));
            next = if answers.len() < batch_max { letters.try_recv().ok() } else { None };
        }
        tx.commit()?;
        commits += 1;
        for (to, answer) in answers {
            // Whoever asked waits.
            let _ = to.send(answer);
        }
    }
    Ok(commits)
}

async fn ask(letters: &mpsc::Sender<Letter>, ask: Ask) -> io::Result<Option<i64>> {
    let (to, answer) = oneshot::channel();
    letters.send((ask, to)).await.map_err(io::Error::other)?;
    answer.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// One round on a copy of the seeded database.
pub async fn round(dir: &Path, callers: usize, jobs: u64, batch_max: usize) -> io::Result<Sample> {
    let connection = open(dir).map_err(io::Error::other)?;
    let (letters, out) = mpsc::channel(WAITING_MAX);
    let writer = thread::spawn(move || write(connection, out, batch_max));
    let due = Arc::new(Semaphore::new(0));
    let completed = Arc::new(AtomicU64::new(0));
    let mut claimers = JoinSet::new();
    for _ in 0..CLAIMED_MAX {
        let (letters, due, completed) = (letters.clone(), Arc::clone(&due), Arc::clone(&completed));
        claimers.spawn(async move {
            // Closed when all jobs are completed.
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let job = ask(&letters, Ask::Claim).await?;
                let job = job.ok_or_else(|| io::Error::other("a due job was not there"))?;
                let done = ask(&letters, Ask::Complete(job)).await?;
                completed.fetch_add(u64::from(done.is_some()), Ordering::Relaxed);
            }
            Ok::<(), io::Error>(())
        });
    }
    let spent = Spent::now();
    let begun = Instant::now();
    let (next, last) = (Arc::new(AtomicI64::new(1)), i64::try_from(jobs).unwrap_or(i64::MAX));
    let mut enqueuers = JoinSet::new();
    for _ in 0..callers {
        let (letters, next, due) = (letters.clone(), Arc::clone(&next), Arc::clone(&due));
        enqueuers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let episode = next.fetch_add(1, Ordering::Relaxed);
                if episode > last {
                    return Ok::<Vec<Duration>, io::Error>(took);
                }
                let one = Instant::now();
                ask(&letters, Ask::Enqueue(episode)).await?;
                took.push(one.elapsed());
                due.add_permits(1);
            }
        });
    }
    let mut acks = Vec::new();
    while let Some(took) = enqueuers.join_next().await {
        acks.extend(took.map_err(io::Error::other)??);
    }
    // A claimer that fails ends early; its error is told below.
    let mut failed = None;
    while completed.load(Ordering::Relaxed) < jobs && failed.is_none() {
        tokio::time::sleep(Duration::from_micros(500)).await;
        failed = claimers.try_join_next();
    }
    let took = begun.elapsed();
    due.close();
    let ended = claimers.join_all().await.into_iter();
    if let Some(failed) = failed {
        failed.map_err(io::Error::other)??;
    }
    ended.collect::<io::Result<()>>()?;
    let spent = Spent::now().since(spent);
    drop(letters);
    let writer = writer.join().map_err(|_| io::Error::other("the writer panicked"))?;
    let commits = writer.map_err(io::Error::other)?;
    Ok(Sample { took, jobs, acks, commits, syncs: commits, written: spent.written, cpu: spent.cpu, steps: 0 })
}
