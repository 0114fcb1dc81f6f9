//! Uploads to the process itself: the bytes go to a temporary file, named by the job and by nothing a user typed.

use std::{
    collections::HashMap,
    error::Error as StdError,
    fs::File,
    path::{Path as FsPath, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::{Body, HttpBody},
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::put,
};
use futures::TryStreamExt;
use status_core::{Actor, Error, FileInfo, JobId, OwnerId, PageRequest, Snapshot, Status, Tracker};
use status_http::{BoxError, Problem, UploadTicket};
use tempfile::TempPath;
use tokio::{
    fs,
    io::AsyncWriteExt,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    owner::Visitor,
    pipeline::{self, Pipeline},
    queue::Rooms,
    reading,
};

/// How the names of files begin whose bytes are still coming.
const PART: &str = ".part-";

/// How long an upload may take beside what its bytes may take, and how many of them have to come in a second.
const PATIENCE: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 4 << 10;
/// How many files of one owner come at once.
const UPLOADS_OF_ONE: usize = 8;

/// A folder of files by job.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    max_bytes: u64,
    /// The most bytes of all files together.
    max_stored: u64,
    /// How many bytes of that are still to come.
    coming: AtomicU64,
    kept: Kept,
    /// Whoever is alone with a job may put its file in place, and say that it is there.
    alone: Rooms<JobId>,
    /// Who sends files now.
    owners: Rooms<OwnerId>,
    /// The uploads that are coming. Of a job it is the last one that has begun.
    writers: Mutex<HashMap<JobId, CancellationToken>>,
}

/// Does something when it is dropped.
struct Gone<F: FnMut()>(F);

impl<F: FnMut()> Drop for Gone<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Room for bytes that are coming.
#[derive(Debug)]
struct Reserved<'a> {
    of: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What goes when the process ends.
#[derive(Debug)]
enum Kept {
    /// The folder.
    Temporary { _folder: tempfile::TempDir },
    /// That no other process gets the folder.
    Locked { _lock: File },
}

impl Uploads {
    pub(crate) fn in_temporary_folder(max_bytes: u64, max_stored: u64) -> std::io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("leads-").tempdir()?;
        let folder = temporary.path().to_owned();
        Ok(Self::new(folder, max_bytes, max_stored, Kept::Temporary { _folder: temporary }))
    }

    /// Files in a folder that outlives the process, and is its alone as long as `lock` is held.
    pub(crate) fn in_folder(folder: &FsPath, max_bytes: u64, max_stored: u64, lock: File) -> Self {
        Self::new(folder.to_owned(), max_bytes, max_stored, Kept::Locked { _lock: lock })
    }

    fn new(folder: PathBuf, max_bytes: u64, max_stored: u64, kept: Kept) -> Self {
        let (coming, writers) = (AtomicU64::new(0), Mutex::default());
        let (alone, owners) = (Rooms::new(1), Rooms::new(UPLOADS_OF_ONE));
        Self { folder, max_bytes, max_stored, coming, kept, alone, owners, writers }
    }

    /// [`write`](Self::write), given up when another upload of the job begins: whoever sends a file again does not wait for
    /// what is left of the first time.
    async fn write_alone(
        &self,
        job: JobId,
        body: Body,
        file: Option<&FileInfo>,
    ) -> Result<TempPath, UploadError> {
        let writers = || self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = CancellationToken::new();
        if let Some(before) = writers().insert(job, replaced.clone()) {
            before.cancel();
        }
        let _gone = Gone(|| {
            let mut writers = writers();
            // Whoever has come meanwhile is not this one.
            if !replaced.is_cancelled() {
                writers.remove(&job);
            }
        });
        replaced.run_until_cancelled(self.write(body, file)).await.unwrap_or(Err(UploadError::Replaced))
    }

    /// Keeps room for so many bytes, until it is dropped.
    fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, UploadError> {
        let coming = self.coming.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let reserved = Reserved { of: &self.coming, bytes };
        let mut stored = coming;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // What is still coming has its room already, and what goes while we look has none.
            let is_coming = entry.file_name().to_str().is_some_and(|name| name.starts_with(PART));
            if let (false, Ok(metadata)) = (is_coming, entry.metadata()) {
                stored += metadata.len();
            }
        }
        if stored > self.max_stored { Err(UploadError::NoRoom) } else { Ok(reserved) }
    }

    pub(crate) fn path(&self, job: JobId) -> PathBuf {
        self.folder.join(job.to_string())
    }

    /// Writes a file as it comes, under a name of its own. Nothing of it is kept unless all of it came, and in time.
    async fn write(&self, body: Body, file: Option<&FileInfo>) -> Result<TempPath, UploadError> {
        let size = file.map(|file| file.size);
        // Before anything of it is sent, where the sender waits for a word.
        self.takes(body.size_hint().lower(), size)?;
        let _room = self.reserve(size.unwrap_or(self.max_bytes))?;
        let begun = Instant::now();
        // Opened once: who opens it by its name may make it anew after it was given up.
        let (out, part) = tempfile::Builder::new().prefix(PART).tempfile_in(&self.folder)?.into_parts();
        let mut out = fs::File::from_std(out);
        let mut bytes = 0_u64;
        let mut chunks = body.into_data_stream();
        loop {
            let until = begun + PATIENCE + Duration::from_secs(bytes / SLOWEST);
            let next = timeout_at(until, chunks.try_next()).await.map_err(|_| UploadError::TooSlow)?;
            let Some(chunk) = next.map_err(|_| UploadError::CutOff)? else { break };
            bytes += chunk.len() as u64;
            self.takes(bytes, size)?;
            out.write_all(&chunk).await?;
        }
        if let Some(size) = size.filter(|size| *size != bytes) {
            return Err(UploadError::OtherSize { size });
        }
        out.sync_all().await?;
        Ok(part)
    }

    /// Whether so many bytes may come, of a file of that size.
    fn takes(&self, bytes: u64, size: Option<u64>) -> Result<(), UploadError> {
        match size {
            _ if bytes > self.max_bytes => Err(UploadError::TooLarge(self.max_bytes)),
            Some(size) if bytes > size => Err(UploadError::OtherSize { size }),
            _ => Ok(()),
        }
    }

    /// Makes it the job's file.
    async fn put_in_place(
        &self,
        job: JobId,
        part: TempPath,
        _alone: &OwnedSemaphorePermit,
    ) -> Result<(), UploadError> {
        part.persist(self.path(job)).map_err(|error| error.error)?;
        // Its name is on the disk, too, before the job counts on it.
        #[cfg(unix)]
        fs::File::open(&self.folder).await?.sync_all().await?;
        Ok(())
    }
}

/// Files that are kept and split in this process.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) tracker: Tracker,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) pipeline: Pipeline,
    /// How long jobs are kept.
    pub(crate) retention: Duration,
}

impl Local {
    /// Takes the file, then has it split. Of several that come for one job, the first that is there becomes the job's.
    ///
    /// A file that is in place while its job is still uploading is of an upload that nobody was told to have worked: another
    /// may take its place. Once the job knows of its file, it stays as it is.
    async fn receive(&self, owner: OwnerId, id: JobId, body: Body) -> Result<Snapshot, Problem> {
        let job = self.tracker.owned_by(owner.clone()).snapshot(id).await?;
        takes_a_file(&job)?;
        let _place = self.uploads.owners.try_enter(owner).ok_or_else(|| {
            Problem::too_many("Too many of your files are coming at once.", Duration::from_secs(2))
        })?;
        let part = self
            .uploads
            .write_alone(id, body, job.file.as_ref())
            .await
            .map_err(|error| problem(id, error))?;
        // Whoever has sent all of it may go: a job that knows of its file is split.
        let kept = tokio::spawn(self.clone().keep(job, part)).await;
        kept.unwrap_or_else(|_| Err(Problem::internal()))
    }

    /// Makes what has come the file of a job that has none yet.
    async fn keep(self, job: Snapshot, part: TempPath) -> Result<Snapshot, Problem> {
        let id = job.id;
        let alone = self.uploads.alone.enter(id).await;
        takes_a_file(&self.tracker.snapshot_now(id).await?)?;
        if let Err(error) = self.uploads.put_in_place(id, part, &alone).await {
            // It may be there in spite of that, and be found by whoever says that it has been uploaded.
            if self.uploads.path(id).exists() {
                self.finish_later(id, job.title);
            }
            return Err(problem(id, error));
        }
        let finished = self.finish(id, &job.title, &alone).await;
        if finished.as_ref().is_err_and(Error::may_pass) {
            self.finish_later(id, job.title);
        }
        Ok(finished?)
    }

    /// Tells the job that its file is there, then has it split: nobody reads it before.
    async fn finish(&self, id: JobId, title: &str, _alone: &OwnedSemaphorePermit) -> Result<Snapshot, Error> {
        let path = self.uploads.path(id);
        let finished = self.tracker.finish_upload(id, &Actor::OWNER).await;
        match &finished {
            Ok(_) => self.pipeline.split(id, title.to_owned(), path),
            Err(Error::Rejected { .. } | Error::NotFound(_)) => remove(&path),
            Err(_) => {}
        }
        finished
    }

    /// The same in the background, once the store answers.
    fn finish_later(&self, id: JobId, title: String) {
        let this = self.clone();
        self.pipeline.spawn(async move {
            for tried in 1.. {
                let alone = this.uploads.alone.enter(id).await;
                let Err(error) = this.finish(id, &title, &alone).await else { return };
                drop(alone);
                tracing::warn!(job = %id, tried, error = &error as &dyn StdError, "a job could not be told of its file");
                if !error.may_pass() {
                    return;
                }
                tokio::time::sleep(pipeline::pause(tried)).await;
            }
        });
    }

    /// Splits again what was not through when the process before this one ended: whatever has settled is not worked on twice.
    /// Removes what nobody needs any more, of what this program has made: half-written files, and those of jobs that are over.
    /// A file whose job is not there stays as long as jobs are kept: the job may come back with a backup.
    pub(crate) async fn resume(&self) -> std::io::Result<()> {
        let (mut foreign, mut gone) = (0, 0);
        for entry in std::fs::read_dir(&self.uploads.folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file()));
            let id = name.and_then(|name| name.parse::<JobId>().ok());
            let job = match (id, name) {
                (Some(id), _) => self.tracker.snapshot_now(id).await,
                (None, Some(name)) if name.starts_with(PART) => {
                    remove(&path);
                    continue;
                }
                // Of a file that is there.
                (None, Some(name)) if reading::is_note(name) => {
                    if !path.with_extension("").exists() {
                        remove(&path);
                    }
                    continue;
                }
                _ => {
                    foreign += 1;
                    continue;
                }
            };
            match job {
                Ok(job) if !job.status.is_terminal() => {
                    tracing::info!(job = %job.id, "going on with a job that was unfinished");
                    self.finish_later(job.id, job.title);
                }
                Ok(_) => remove(&path),
                // By then it would be gone from any backup that is worth having.
                Err(Error::NotFound(_)) if is_older(&entry, self.retention) => remove(&path),
                Err(Error::NotFound(_)) => gone += 1,
                // Only what is known to be over is removed. The next start looks again.
                Err(error) => tracing::warn!(
                    ?path,
                    error = &error as &dyn StdError,
                    "an upload whose job cannot be read is kept"
                ),
            }
        }
        let folder = self.uploads.folder.display();
        if gone > 0 {
            tracing::warn!(gone, %folder, "uploads whose jobs are not known are kept");
        }
        if foreign > 0 {
            tracing::warn!(foreign, %folder, "what others have put among the uploads is left alone");
        }
        // Other processes have none of these jobs: the folder is this one's.
        if matches!(self.uploads.kept, Kept::Locked { .. }) {
            let this = self.clone();
            self.pipeline.spawn(async move { this.fail_without_file().await });
        }
        Ok(())
    }

    /// Fails the jobs whose files are gone: nobody could ever split them.
    async fn fail_without_file(&self) {
        let (mut page, mut tried) = (PageRequest::first(100), 0);
        loop {
            let open = match self.tracker.list_open(&page).await {
                Ok(open) => open,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn StdError, "unfinished jobs cannot be listed");
                    tried += 1;
                    tokio::time::sleep(pipeline::pause(tried)).await;
                    continue;
                }
            };
            for job in open.rows {
                if job.status != Status::Uploading && !self.uploads.path(job.id).exists() {
                    tracing::warn!(job = %job.id, "the file of an unfinished job is gone");
                    self.pipeline.fail(job.id, pipeline::file_gone()).await;
                }
            }
            match open.next {
                Some(next) => page.cursor = Some(next),
                None => return,
            }
        }
    }
}

/// Whether a file has not changed for so long.
fn is_older(file: &std::fs::DirEntry, than: Duration) -> bool {
    let changed = file.metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > than))
}

/// Removes a file, and what is noted about it. One that cannot be removed keeps nothing from starting.
pub(crate) fn remove(path: &FsPath) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(?path, error = &error as &dyn StdError, "an upload could not be removed");
    }
    let _ = std::fs::remove_file(reading::note(path));
}

/// `PUT /uploads/{id}`.
pub(crate) fn router(local: Local) -> Router {
    Router::new().route("/uploads/{id}", put(receive)).with_state(local)
}

#[async_trait]
impl status_http::Uploads for Uploads {
    async fn ticket(&self, job: JobId, _: &FileInfo) -> Result<UploadTicket, BoxError> {
        Ok(UploadTicket::put(format!("/uploads/{job}")))
    }

    async fn has_arrived(&self, job: JobId, _: &FileInfo) -> Result<bool, BoxError> {
        Ok(fs::try_exists(self.path(job)).await?)
    }
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the connection was cut")]
    CutOff,
    #[error("the file has more than {0} bytes")]
    TooLarge(u64),
    #[error("other than the {size} bytes that were announced came")]
    OtherSize { size: u64 },
    #[error("it comes too slowly")]
    TooSlow,
    #[error("another one has begun")]
    Replaced,
    #[error("all uploads together have no room for it")]
    NoRoom,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn takes_a_file(job: &Snapshot) -> Result<(), Problem> {
    if job.status == Status::Uploading {
        return Ok(());
    }
    let detail = format!("The job is {} and takes no file.", job.status);
    Err(Problem::new(StatusCode::CONFLICT, "job-not-uploading", "The job takes no file", detail))
}

fn problem(job: JobId, error: UploadError) -> Problem {
    match error {
        UploadError::CutOff => Problem::invalid("The upload was cut off. Send the file again."),
        UploadError::TooLarge(max) => Problem::too_large(max),
        UploadError::OtherSize { size } => {
            let detail =
                format!("The job is for a file of {size} bytes; more or fewer came. Send that file.");
            Problem::new(StatusCode::BAD_REQUEST, "file-size-differs", "Another file than was said", detail)
        }
        UploadError::TooSlow => Problem::too_slow(),
        UploadError::Replaced => {
            let detail = "Another upload of this job's file has begun. This one is given up.";
            Problem::new(StatusCode::CONFLICT, "upload-replaced", "Another upload has begun", detail)
        }
        UploadError::NoRoom => {
            tracing::warn!(%job, "uploads together have no room for more (--max-stored-bytes)");
            Problem::storage_full()
        }
        UploadError::Io(error) => {
            tracing::error!(%job, error = &error as &dyn StdError, "an upload could not be written");
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Problem::storage_full();
            }
            Problem::unavailable()
        }
    }
}

/// [`Local::receive`].
async fn receive(
    Shared(local): Shared<Local>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Snapshot>, Problem> {
    let id: JobId = id.parse().map_err(|_| Problem::job_not_found())?;
    local.receive(visitor.into(), id, body).await.map(Json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;
    use futures::{StreamExt, stream};
    use status_core::{
        Facts, Job, JobState, MockStatusStore, NewJob, Policy, StatusStore, StoreError, SystemClock,
        Timestamp,
    };
    use status_memory::MemoryStore;
    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{queue::Queue, reading::Reader};

    fn id(number: u128) -> JobId {
        JobId::from_parts(Timestamp::UNIX_EPOCH, number)
    }

    fn completed(id: JobId) -> JobState {
        let owner = OwnerId::new("alice").expect("a name");
        let new = NewJob::titled("leads.csv").into_job(id, owner, &Policy::default(), Actor::OWNER);
        let mut job = new.expect("a job");
        job.status = Status::Completed;
        JobState::new(job, Facts::default())
    }

    const RETENTION: Duration = Duration::from_secs(3_600);

    /// Files are split, and nobody works on the batches: no job comes to its end.
    fn local(store: Arc<dyn StatusStore>) -> Local {
        local_with(store, Queue::new(1))
    }

    fn local_with(store: Arc<dyn StatusStore>, queue: Queue) -> Local {
        let tracker = Tracker::new(store);
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let pipeline = Pipeline::new(tracker.clone(), queue, 10, Reader::Here, tasks, shutdown);
        let uploads = Arc::new(Uploads::in_temporary_folder(1_000, 100_000).expect("a folder"));
        Local { tracker, uploads, pipeline, retention: RETENTION }
    }

    #[tokio::test]
    async fn an_upload_is_removed_only_when_its_job_is_known_to_be_over() {
        let (over, gone, unreadable, long_gone) = (id(1), id(2), id(3), id(4));
        let mut store = MockStatusStore::new();
        store.expect_read().returning(move |id, _| match id {
            id if id == over => Ok(Some(completed(id))),
            id if [gone, long_gone].contains(&id) => Ok(None),
            _ => Err(StoreError::Corrupt { subject: format!("job {id}"), why: "a test".into() }),
        });
        let local = local(Arc::new(store));
        let uploads = local.uploads.clone();
        let jobs = [over, gone, unreadable, long_gone].map(|id| id.to_string());
        let notes = [over, unreadable].map(|id| format!("{id}.deaths"));
        for name in jobs.into_iter().chain(notes).chain([format!("{PART}half"), "thesis.doc".into()]) {
            std::fs::write(uploads.folder.join(name), "1").expect("written");
        }
        let before = std::time::SystemTime::now() - RETENTION - Duration::from_secs(60);
        let long_gone = File::options().write(true).open(uploads.path(long_gone)).expect("there");
        long_gone.set_modified(before).expect("set");
        std::fs::create_dir(uploads.folder.join("folder")).expect("made");
        local.resume().await.expect("one job that cannot be read keeps nothing else from starting");
        let kept = std::fs::read_dir(&uploads.folder).expect("a folder");
        let mut kept: Vec<_> = kept.map(|entry| entry.expect("an entry").file_name()).collect();
        kept.sort();
        let (gone, unreadable) = (gone.to_string(), unreadable.to_string());
        let note = format!("{unreadable}.deaths");
        assert_eq!(kept, [gone.as_str(), unreadable.as_str(), note.as_str(), "folder", "thesis.doc"]);
    }

    /// Of the same size; blank lines are no rows.
    const ONE: &str = "Email\none@example.com\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
    const OTHER: &str = "Email\nother@example.com\nan@example.com\n";

    fn alice() -> OwnerId {
        OwnerId::new("alice").expect("a name")
    }

    fn new_upload() -> NewJob {
        NewJob::new(FileInfo::new("leads.csv", OTHER.len() as u64, "text/csv").expect("a good file"))
    }

    async fn waiting_for_a_file() -> (Local, JobId) {
        let local = local(Arc::new(MemoryStore::new(100, Arc::new(SystemClock))));
        let created = local.tracker.owned_by(alice()).create(new_upload()).await;
        (local, created.expect("created").id)
    }

    impl Local {
        /// Sends `body` as the job's file: the status of the answer.
        async fn send(&self, id: JobId, body: impl Into<Body>) -> StatusCode {
            match self.receive(alice(), id, body.into()).await {
                Ok(_) => StatusCode::OK,
                Err(problem) => problem.into_response().status(),
            }
        }

        fn file(&self, id: JobId) -> String {
            std::fs::read_to_string(self.uploads.path(id)).expect("a file")
        }

        /// How many rows are counted in the job's file.
        async fn rows(&self, id: JobId) -> Option<u64> {
            let mut shown = self.tracker.watch(id).await.expect("there").boxed();
            while let Some(shown) = shown.next().await {
                assert!(!shown.status.is_terminal(), "{shown:?}");
                if let Some(total) = shown.progress.items.total {
                    return Some(total);
                }
            }
            None
        }
    }

    #[tokio::test]
    async fn a_file_is_split_once_however_often_its_job_is_told_of_it() {
        let queue = Queue::new(1);
        let store = Arc::new(MemoryStore::new(100, Arc::new(SystemClock)));
        let local = local_with(store, queue.clone());
        let id = local.tracker.owned_by(alice()).create(new_upload()).await.expect("created").id;
        std::fs::write(local.uploads.path(id), OTHER).expect("written");
        for _ in 0..3 {
            local.finish_later(id, "leads.csv".into());
        }
        assert_eq!(local.rows(id).await, Some(2));
        queue.next().await;
        let again = tokio::time::timeout(Duration::from_millis(200), queue.next()).await;
        assert!(again.is_err(), "{again:?}");
    }

    #[tokio::test]
    async fn a_file_that_waits_for_its_turn_goes_when_its_job_ends() {
        let (local, jobs) = (local(Arc::new(MemoryStore::new(100, Arc::new(SystemClock)))), alice());
        let many = format!("Email\n{}", "one@example.com\n".repeat(900));
        let mut ids = Vec::new();
        for _ in 0..3 {
            let id = local.tracker.owned_by(jobs.clone()).create(new_upload()).await.expect("created").id;
            std::fs::write(local.uploads.path(id), &many).expect("written");
            local.finish_later(id, "leads.csv".into());
            ids.push(id);
        }
        let waiting = ids.pop().expect("three");
        for id in ids {
            assert_eq!(local.rows(id).await, Some(900));
        }
        assert!(local.uploads.path(waiting).exists());
        local.tracker.owned_by(jobs).cancel(waiting, None).await.expect("cancelled");
        while local.uploads.path(waiting).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_file_has_arrived_once_all_of_it_is_there() {
        let (local, id) = waiting_for_a_file().await;
        let file = new_upload().file.expect("a file");
        let has_arrived = async || {
            let uploads: &dyn status_http::Uploads = &*local.uploads;
            uploads.has_arrived(id, &file).await.expect("it is looked for")
        };
        let cut_off = stream::iter([Ok(ONE), Err(std::io::Error::other("cut off"))]);
        assert_eq!(local.send(id, Body::from_stream(cut_off)).await, StatusCode::BAD_REQUEST);
        assert!(!has_arrived().await);
        assert_eq!(local.send(id, ONE).await, StatusCode::OK);
        assert!(has_arrived().await);
    }

    #[tokio::test]
    async fn a_file_of_another_size_than_was_said_is_refused_and_leaves_nothing() {
        let (local, id) = waiting_for_a_file().await;
        let longer = OTHER.repeat(2);
        let streamed = |text: &str| Body::from_stream(stream::iter([std::io::Result::Ok(text.to_owned())]));
        for body in
            [Body::from(longer.clone()), streamed(&longer), Body::from("Email\n"), streamed("Email\n")]
        {
            assert_eq!(local.send(id, body).await, StatusCode::BAD_REQUEST);
        }
        assert_eq!(std::fs::read_dir(&local.uploads.folder).expect("a folder").count(), 0);
        assert_eq!(local.send(id, OTHER).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn all_files_together_have_a_bound_and_what_is_coming_counts() {
        let (local, id) = waiting_for_a_file().await;
        let size = OTHER.len() as u64;
        let taken = local.uploads.path(JobId::new(Timestamp::now()));
        let file = File::create(&taken).expect("made");
        file.set_len(local.uploads.max_stored - 2 * size + 1).expect("set");
        let coming = local.uploads.reserve(size).expect("room for one");
        assert_eq!(local.send(id, OTHER).await, StatusCode::INSUFFICIENT_STORAGE);
        drop(coming);
        assert_eq!(local.send(id, OTHER).await, StatusCode::OK);
        assert_eq!(local.uploads.coming.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_too_slowly_is_refused_and_leaves_nothing() {
        let (local, id) = waiting_for_a_file().await;
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Some((std::io::Result::Ok("E"), ()))
        });
        assert_eq!(local.send(id, Body::from_stream(drip)).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(std::fs::read_dir(&local.uploads.folder).expect("a folder").count(), 0);
    }

    #[tokio::test]
    async fn an_upload_that_ends_after_another_is_refused_and_changes_nothing() {
        let (local, id) = waiting_for_a_file().await;
        let (end, ended) = oneshot::channel::<()>();
        let rest = async move {
            let _ = ended.await;
            std::io::Result::Ok(OTHER)
        };
        let slow = Body::from_stream(stream::once(rest));
        let slow = tokio::spawn({
            let local = local.clone();
            async move { local.send(id, slow).await }
        });
        let files = || {
            let entries = std::fs::read_dir(&local.uploads.folder).expect("a folder");
            let names =
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
            // What is noted while it is read comes and goes.
            names.filter(|name| !reading::is_note(name)).collect::<Vec<_>>()
        };
        while files().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(local.send(id, ONE).await, StatusCode::OK);
        // Nobody waits for the rest of it.
        let _ = end.send(());
        assert_eq!(slow.await.expect("no panic"), StatusCode::CONFLICT);
        assert_eq!((local.file(id).as_str(), files()), (ONE, vec![id.to_string()]));
        assert_eq!(local.rows(id).await, Some(1));
    }

    #[tokio::test]
    async fn of_two_uploads_that_end_at_once_one_is_the_jobs_file_and_the_other_is_refused() {
        for _ in 0..20 {
            let (local, id) = waiting_for_a_file().await;
            let (one, other) = tokio::join!(local.send(id, ONE), local.send(id, OTHER));
            let (file, rows) = if one == StatusCode::OK { (ONE, 1) } else { (OTHER, 2) };
            let mut answers = [one, other];
            answers.sort();
            assert_eq!(answers, [StatusCode::OK, StatusCode::CONFLICT]);
            assert_eq!(local.file(id), file);
            assert_eq!(local.rows(id).await, Some(rows));
        }
    }

    #[tokio::test]
    async fn a_file_that_its_job_was_never_told_of_gives_way_to_the_next() {
        let (local, id) = waiting_for_a_file().await;
        std::fs::write(local.uploads.path(id), ONE).expect("written");
        assert_eq!(local.send(id, OTHER).await, StatusCode::OK);
        assert_eq!(local.send(id, ONE).await, StatusCode::CONFLICT);
        assert_eq!(local.file(id), OTHER);
        assert_eq!(local.rows(id).await, Some(2));
    }

    #[tokio::test]
    async fn a_file_that_its_job_was_never_told_of_is_the_jobs_after_a_restart() {
        let (local, id) = waiting_for_a_file().await;
        std::fs::write(local.uploads.path(id), ONE).expect("written");
        local.resume().await.expect("resumed");
        assert_eq!(local.rows(id).await, Some(1));
        assert_eq!(local.send(id, OTHER).await, StatusCode::CONFLICT);
        assert_eq!(local.file(id), ONE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_whose_job_could_not_be_told_is_split_once_the_store_answers() {
        let id = id(1);
        let job = new_upload().into_job(id, alice(), &Policy::default(), Actor::OWNER).expect("a job");
        let stored: Arc<Mutex<Job>> = Arc::new(Mutex::new(job));
        let (mut store, mut answers) = (MockStatusStore::new(), 0);
        let job = {
            let stored = stored.clone();
            move || stored.lock().expect("unpoisoned").clone()
        };
        store.expect_job().returning({
            let job = job.clone();
            move |_, _| Ok(Some(job()))
        });
        store.expect_read().returning({
            let job = job.clone();
            move |_, _| Ok(Some(JobState::new(job(), Facts::default())))
        });
        store.expect_decide().returning(move |next| {
            answers += 1;
            if answers <= 3 {
                let (operation, subject) = ("decide", format!("job {}", next.id));
                return Err(StoreError::Unavailable { operation, subject, source: "a test".into() });
            }
            *stored.lock().expect("unpoisoned") = next.clone();
            Ok(())
        });
        store.expect_propagate().returning(|_| Ok(()));
        store.expect_changed().returning(|_, _, _| ());
        let local = local(Arc::new(store));
        assert_eq!(local.send(id, ONE).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(job().status, Status::Uploading);
        for _ in 0..100 {
            // The clock is moved past the pauses.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if job().totals.is_some() {
                break;
            }
        }
        assert_eq!(job().totals.and_then(|totals| totals.items), Some(1));
    }
}
