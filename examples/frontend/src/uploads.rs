//! Uploads to the process itself: the bytes go to a temporary file, named by the job and by nothing a user typed.

use std::{
    error::Error as StdError,
    fs::File,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::put,
};
use futures::TryStreamExt;
use status_core::{Error, Failure, FileInfo, JobId, PageRequest, Snapshot, Stage, Status, Tracker};
use status_http::{BoxError, Problem, UploadTicket};
use tokio::{fs, io::AsyncWriteExt};

use crate::{owner::Visitor, pipeline::Pipeline};

/// How the names of files begin whose bytes are still coming.
const PART: &str = ".part-";

/// A folder of files by job.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    max_bytes: u64,
    kept: Kept,
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
    pub(crate) fn in_temporary_folder(max_bytes: u64) -> std::io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("leads-").tempdir()?;
        let folder = temporary.path().to_owned();
        Ok(Self { folder, max_bytes, kept: Kept::Temporary { _folder: temporary } })
    }

    /// Files in a folder that outlives the process, and is its alone as long as `lock` is held.
    pub(crate) fn in_folder(folder: &FsPath, max_bytes: u64, lock: File) -> Self {
        Self { folder: folder.to_owned(), max_bytes, kept: Kept::Locked { _lock: lock } }
    }

    pub(crate) fn path(&self, job: JobId) -> PathBuf {
        self.folder.join(job.to_string())
    }

    /// Writes a file as it comes. Nothing of it is kept unless all of it came.
    async fn write(&self, job: JobId, body: Body) -> Result<(), UploadError> {
        let part = tempfile::Builder::new().prefix(PART).tempfile_in(&self.folder)?.into_temp_path();
        let mut file = fs::File::create(&part).await?;
        let mut bytes = 0_u64;
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(|_| UploadError::CutOff)? {
            bytes += chunk.len() as u64;
            if bytes > self.max_bytes {
                return Err(UploadError::TooLarge(self.max_bytes));
            }
            file.write_all(&chunk).await?;
        }
        file.sync_all().await?;
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
}

impl Local {
    /// Splits again what was not through when the process before this one ended: whatever has settled is not worked on twice.
    /// Removes what nobody needs any more, of what this program has made: half-written files, and those of jobs that are over.
    /// A file whose job is not there stays: the job may come back with a backup.
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
                _ => {
                    foreign += 1;
                    continue;
                }
            };
            match job {
                Ok(job) if !job.status.is_terminal() => {
                    tracing::info!(job = %job.id, "going on with a job that was unfinished");
                    self.pipeline.split(job.id, job.title, path);
                }
                Ok(_) => remove(&path),
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
        let mut page = PageRequest::first(100);
        loop {
            let open = match self.tracker.list_open(&page).await {
                Ok(open) => open,
                Err(error) => {
                    return tracing::warn!(
                        error = &error as &dyn StdError,
                        "unfinished jobs cannot be listed"
                    );
                }
            };
            for job in open.rows {
                if job.status != Status::Uploading && !self.uploads.path(job.id).exists() {
                    tracing::warn!(job = %job.id, "the file of an unfinished job is gone");
                    let message = "The uploaded file is not there any more. Please upload it again.";
                    self.pipeline.fail(job.id, Failure::new(Stage::Split, "file-gone", message, true)).await;
                }
            }
            match open.next {
                Some(next) => page.cursor = Some(next),
                None => return,
            }
        }
    }
}

/// A file that cannot be removed keeps nothing from starting.
fn remove(path: &FsPath) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(?path, error = &error as &dyn StdError, "an upload could not be removed");
    }
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
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the connection was cut")]
    CutOff,
    #[error("the file has more than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Takes the file, then has it split.
async fn receive(
    Shared(state): Shared<Local>,
    visitor: Visitor,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Snapshot>, Problem> {
    let id: JobId = id.parse().map_err(|_| Problem::job_not_found())?;
    let jobs = state.tracker.owned_by(visitor.into());
    let job = jobs.snapshot(id).await?;
    if job.status != Status::Uploading {
        let detail = format!("The job is {} and takes no file.", job.status);
        return Err(Problem::new(StatusCode::CONFLICT, "job-not-uploading", "The job takes no file", detail));
    }
    state.uploads.write(id, body).await.map_err(|error| match error {
        UploadError::CutOff => Problem::invalid("The upload was cut off. Send the file again."),
        UploadError::TooLarge(max) => Problem::too_large(max),
        UploadError::Io(error) => {
            tracing::error!(job = %id, error = &error as &dyn StdError, "an upload could not be written");
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Problem::storage_full();
            }
            Problem::unavailable()
        }
    })?;
    let path = state.uploads.path(id);
    let finished = jobs.finish_upload(id).await;
    if let Err(Error::Rejected { .. } | Error::NotFound(_)) = &finished
        && let Err(error) = fs::remove_file(&path).await
    {
        tracing::warn!(job = %id, error = &error as &dyn StdError, "the file of a job that is over could not be removed");
    }
    let snapshot = finished?;
    state.pipeline.split(id, job.title, path);
    Ok(Json(snapshot))
}

#[cfg(test)]
mod tests {
    use status_core::{
        Actor, Facts, JobState, MockStatusStore, NewJob, OwnerId, Policy, StoreError, Timestamp,
    };
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::pipeline;

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

    #[tokio::test]
    async fn an_upload_is_removed_only_when_its_job_is_known_to_be_over() {
        let (over, gone, unreadable) = (id(1), id(2), id(3));
        let mut store = MockStatusStore::new();
        store.expect_read().returning(move |id, _| match id {
            id if id == over => Ok(Some(completed(id))),
            id if id == gone => Ok(None),
            _ => Err(StoreError::Corrupt { subject: format!("job {id}"), why: "a test".into() }),
        });
        let tracker = Tracker::new(Arc::new(store));
        let splitter = splitter::Splitter::new(tracker.clone(), pipeline::queue().0, 10);
        let pipeline = Pipeline::new(splitter, TaskTracker::new(), CancellationToken::new());
        let uploads = Arc::new(Uploads::in_temporary_folder(1).expect("a folder"));
        let names = [over, gone, unreadable].map(|id| id.to_string()).into_iter();
        for name in names.chain([format!("{PART}half"), "thesis.doc".into()]) {
            std::fs::write(uploads.folder.join(name), "a").expect("written");
        }
        std::fs::create_dir(uploads.folder.join("folder")).expect("made");
        let local = Local { tracker, uploads: uploads.clone(), pipeline };
        local.resume().await.expect("one job that cannot be read keeps nothing else from starting");
        let kept = std::fs::read_dir(&uploads.folder).expect("a folder");
        let mut kept: Vec<_> = kept.map(|entry| entry.expect("an entry").file_name()).collect();
        kept.sort();
        assert_eq!(
            kept,
            [gone.to_string().as_str(), unreadable.to_string().as_str(), "folder", "thesis.doc"]
        );
    }
}
