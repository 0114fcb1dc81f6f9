//! Leads in one SQLite file.
//!
//! - `owners`: each has a number and counts its leads. The ids of an owner's leads begin with its number, so
//!   that the index of texts, which knows ids only, is searched in the owner's part alone.
//! - `leads`: the lead as JSON, and its text in lower case.
//! - `orders`: a row for each lead and field, clustered in the order in which they are shown.
//! - `texts`: an index of all runs of three characters (FTS5's trigrams), for searches.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, ToSql, Transaction, TransactionBehavior, config::DbConfig,
    named_params, params,
};
use status_core::{BoxError, JobId, OwnerId, Timestamp};
use tokio::sync::oneshot;

use super::{LeadPage, LeadQuery, LeadTable, Scope, Sort, StoredLead, TableError, Total};
use crate::{Field, Lead};

/// The version of the tables.
const VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE owners (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        leads INTEGER NOT NULL DEFAULT 0,
        next INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE leads (
        id INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL REFERENCES owners,
        key TEXT NOT NULL,
        job TEXT NOT NULL,
        row INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        lead TEXT NOT NULL,
        text TEXT NOT NULL,
        UNIQUE (owner, key)
    ) STRICT;
    CREATE INDEX leads_newest ON leads (owner, job DESC, row);
    CREATE TABLE orders (
        owner INTEGER NOT NULL,
        field INTEGER NOT NULL,
        value TEXT NOT NULL,
        job TEXT NOT NULL,
        row INTEGER NOT NULL,
        lead INTEGER NOT NULL,
        PRIMARY KEY (owner, field, value, job, row, lead)
    ) STRICT, WITHOUT ROWID;
    CREATE VIRTUAL TABLE texts USING fts5 (
        text, content = 'leads', content_rowid = 'id', tokenize = 'trigram case_sensitive 1'
    );
    PRAGMA application_id = 0x4c656164;
    PRAGMA user_version = 1;
";
/// Tells a file of leads from any other SQLite database: "Lead" in ASCII.
const APPLICATION_ID: i64 = 0x4c65_6164;
/// The log is cut back to this many bytes once it has been written to the file.
const LOG_BYTES: i64 = 16 << 20;
/// An owner's ids begin at its number times this.
const IDS_PER_OWNER: i64 = 1 << 32;
/// The most writes in one transaction.
const MOST_IN_ONE: usize = 64;
/// So many leads are sorted in memory; where more contain what is searched for, their order is gone through
/// until a page is full.
const SORTED_IN_MEMORY: usize = 2_000;
/// What is shorter than three characters is searched for among so many of the owner's newest leads.
const NEWEST: usize = 5_000;
/// Between the fields of a lead's text, so that nothing is found across two of them.
const SEPARATOR: char = '\u{1}';
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Leads in one SQLite file. A write is on the disk when it is answered; writes that wait at one moment share
/// one transaction. Pages, orders and searches go by indexes.
#[derive(Clone, Debug)]
pub struct SqliteLeads {
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
}

impl SqliteLeads {
    /// Opens the file at `path`, and makes it, for its owner alone, if it is not there. A file that was not
    /// closed is checked first.
    ///
    /// # Errors
    /// [`TableError`] if it cannot be used: it is another program's, a later version's, or damaged. None of
    /// these is changed.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let failed = |source: BoxError| TableError { operation: "opening the file", source, may_pass: false };
        let writer = open(path).map_err(failed)?;
        let reader = connect(path).map_err(|error| failed(refusal(path, &error)))?;
        reader.pragma_update(None, "query_only", true).map_err(|error| failed(error.into()))?;
        let writer = Writer::start(writer).map_err(|error| failed(error.into()))?;
        Ok(Self { writer: Arc::new(writer), reader: Arc::new(Mutex::new(reader)) })
    }
}

/// Makes the file, unless it is there. SQLite gives its log the same permissions.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// A batch is recorded once its leads are written, and its message is then gone: they have to be on the disk.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// The connection that writes, to a file that is known to be one of leads.
fn open(path: &Path) -> Result<Connection, BoxError> {
    create_private(path).map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
    // Whoever closes the file last removes its log.
    let was_closed = !beside(path, "-wal").exists();
    let mut connection = connect(path).map_err(|error| refusal(path, &error))?;
    prepare(&mut connection, was_closed).map_err(|refused| match refused {
        Refused::Sqlite(error) => refusal(path, &error),
        Refused::Foreign => format!(
            "{} is not a database of leads; put it elsewhere, or choose another folder",
            path.display()
        )
        .into(),
        Refused::Later(version) => format!(
            "{} has version {version}, and this program knows versions up to {VERSION}: update this program",
            path.display()
        )
        .into(),
        Refused::Damaged(found) => damaged(path, &found),
    })?;
    Ok(connection)
}

/// Why a file cannot be used.
enum Refused {
    Sqlite(rusqlite::Error),
    Foreign,
    Later(i64),
    Damaged(String),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(connection: &mut Connection, was_closed: bool) -> Result<(), Refused> {
    // A file that is refused keeps its log, and with it the sign that it is to be checked.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, VERSION) => false,
        (APPLICATION_ID, later) if later > VERSION => return Err(Refused::Later(later)),
        (0, 0) if tables == 0 => true,
        _ => return Err(Refused::Foreign),
    };
    if !was_closed && let Some(found) = damage(connection)? {
        return Err(Refused::Damaged(found));
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    if is_new {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// What SQLite's own check finds wrong with the file first. A lead with a value that it may not have concerns
/// nobody else, and the index of texts is made again from the leads.
fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut check = connection.prepare("PRAGMA integrity_check(2147483647)")?;
    let mut findings = check.query([])?;
    let mut texts_are_damaged = false;
    while let Some(row) = findings.next()? {
        let finding: String = row.get(0)?;
        if finding.contains(TEXTS_ARE_DAMAGED) {
            texts_are_damaged = true;
        } else if finding != "ok" && !finding.contains(" value in ") {
            return Ok(Some(finding));
        }
    }
    if texts_are_damaged {
        connection.execute("INSERT INTO texts (texts) VALUES ('rebuild')", [])?;
    }
    Ok(None)
}

/// What SQLite's check says of an index of texts.
const TEXTS_ARE_DAMAGED: &str = "inverted index for FTS5 table";

/// What SQLite says, and of which file; with advice where there is some.
fn refusal(path: &Path, error: &rusqlite::Error) -> BoxError {
    let file = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error.to_string()),
        Some(ErrorCode::DiskFull) => format!("{file}: {error}; free space on the disk").into(),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            format!("{file}: {error}; make the file and its folder writable").into()
        }
        _ => format!("{file} cannot be opened: {error}").into(),
    }
}

/// An old log would be read into a backup that is put in the file's place.
fn damaged(path: &Path, found: &str) -> BoxError {
    let (file, log, shared) = (path.display(), beside(path, "-wal"), beside(path, "-shm"));
    let (log, shared) = (log.display(), shared.display());
    format!(
        "{file} is damaged ({found}); remove {log} and {shared} before you put a backup in its place, \
         such as sqlite3's `.backup` makes"
    )
    .into()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[async_trait]
impl LeadTable for SqliteLeads {
    async fn upsert(
        &self,
        owner: &OwnerId,
        job: JobId,
        leads: &[(u64, Lead)],
        at: Timestamp,
    ) -> Result<(), TableError> {
        let leads = leads.iter().map(|(row, lead)| StoredLead::new(job, *row, lead.clone(), at)).collect();
        let written = self.writer.write(owner.clone(), leads).await;
        written.map_err(|source| {
            let may_pass = source.downcast_ref::<Arc<rusqlite::Error>>().is_some_and(|error| may_pass(error));
            TableError { operation: "writing", source, may_pass }
        })
    }

    async fn page(&self, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, TableError> {
        let (owner, query, reader) = (owner.clone(), query.clone(), self.reader.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            // One state of the file for all statements.
            let transaction = connection.unchecked_transaction()?;
            page(&transaction, &owner, &query)
        });
        let read = reading.await.map_err(BoxError::from).flatten();
        read.map_err(|source| TableError { operation: "reading", source, may_pass: true })
    }
}

/// The way to the thread that writes.
#[derive(Debug)]
struct Writer {
    writes: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

struct Write {
    owner: OwnerId,
    leads: Vec<StoredLead>,
    reply: oneshot::Sender<Result<(), Arc<rusqlite::Error>>>,
}

impl Writer {
    fn start(connection: Connection) -> io::Result<Self> {
        let (writes, inbox) = mpsc::channel();
        let thread =
            thread::Builder::new().name("leads".into()).spawn(move || write_all(connection, &inbox))?;
        Ok(Self { writes: Some(writes), thread: Some(thread) })
    }

    async fn write(&self, owner: OwnerId, leads: Vec<StoredLead>) -> Result<(), BoxError> {
        let (reply, answer) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or("the file is closed")?;
        writes.send(Write { owner, leads, reply }).map_err(|_| "the thread that writes has ended")?;
        Ok(answer.await??)
    }
}

impl Drop for Writer {
    /// What was given to the thread is written.
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the same may succeed later. The rest is the fault of what was to be written, or of the file.
fn may_pass(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly,
        SystemIoFailure,
    };
    let passing = [
        DatabaseBusy,
        DatabaseLocked,
        DiskFull,
        SystemIoFailure,
        ReadOnly,
        PermissionDenied,
        CannotOpen,
        OutOfMemory,
    ];
    error.sqlite_error_code().is_some_and(|code| passing.contains(&code))
}

fn write_all(mut connection: Connection, inbox: &Receiver<Write>) {
    while let Ok(first) = inbox.recv() {
        let writes: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).take(MOST_IN_ONE).collect();
        let written = match write_together(&mut connection, &writes) {
            Ok(()) => vec![Ok(()); writes.len()],
            // All of them may be repeated.
            Err(error) if may_pass(&error) || writes.len() == 1 => {
                vec![Err(Arc::new(error)); writes.len()]
            }
            // One of them is at fault, and only that one is told.
            Err(_) => {
                let alone = |write| write_together(&mut connection, std::slice::from_ref(write));
                writes.iter().map(alone).map(|written| written.map_err(Arc::new)).collect()
            }
        };
        for (write, written) in writes.into_iter().zip(written) {
            let _ = write.reply.send(written);
        }
    }
}

fn write_together(connection: &mut Connection, writes: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for Write { owner, leads, .. } in writes {
        let owner: i64 = transaction
            .prepare_cached(
                "INSERT INTO owners (name) VALUES (?1) ON CONFLICT DO UPDATE SET name = name RETURNING number",
            )?
            .query_row([owner.as_str()], |row| row.get(0))?;
        for lead in leads {
            put(&transaction, owner, lead)?;
        }
    }
    transaction.commit()
}

/// Writes a lead, and what finds it, in the place of the one with the same key.
fn put(transaction: &Transaction<'_>, owner: i64, lead: &StoredLead) -> rusqlite::Result<()> {
    let before = transaction
        .prepare_cached(
            "SELECT id, key, job, row, updated_at, lead, text FROM leads WHERE owner = ?1 AND key = ?2",
        )?
        .query_row(params![owner, lead.id], Listed::read)
        .optional()?;
    let id = if let Some(before) = before {
        before.unlist(transaction, owner)?;
        before.id
    } else {
        let place: i64 = transaction
            .prepare_cached(
                "UPDATE owners SET leads = leads + 1, next = next + 1 WHERE number = ?1 RETURNING next",
            )?
            .query_row([owner], |row| row.get(0))?;
        owner * IDS_PER_OWNER + place
    };
    let text = text(&lead.lead);
    let json = serde_json::to_string(&lead.lead)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let job = lead.job_id.to_string();
    transaction
        .prepare_cached(
            "INSERT INTO leads (id, owner, key, job, row, updated_at, lead, text)
             VALUES (:id, :owner, :key, :job, :row, :updated_at, :lead, :text)
             ON CONFLICT (id) DO UPDATE
             SET job = :job, row = :row, updated_at = :updated_at, lead = :lead, text = :text",
        )?
        .execute(named_params! {
            ":id": id, ":owner": owner, ":key": lead.id, ":job": job, ":row": lead.row,
            ":updated_at": lead.updated_at.as_millisecond(), ":lead": json, ":text": text,
        })?;
    for (field, value) in values(lead) {
        transaction
            .prepare_cached(
                "INSERT INTO orders (owner, field, value, job, row, lead) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![owner, field, value, job, lead.row, id])?;
    }
    transaction
        .prepare_cached("INSERT INTO texts (rowid, text) VALUES (?1, ?2)")?
        .execute(params![id, text])?;
    Ok(())
}

/// A lead as it is in the indexes.
struct Listed {
    id: i64,
    /// `None` if it cannot be read.
    lead: Option<StoredLead>,
    text: String,
}

impl Listed {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get("id")?, lead: stored(row).ok(), text: row.get("text")? })
    }

    /// Takes the lead out of the orders and the index of texts.
    fn unlist(&self, transaction: &Transaction<'_>, owner: i64) -> rusqlite::Result<()> {
        let mut found = 0;
        if let Some(lead) = &self.lead {
            for (field, value) in values(lead) {
                found += transaction
                    .prepare_cached(
                        "DELETE FROM orders
                         WHERE owner = ?1 AND field = ?2 AND value = ?3 AND job = ?4 AND row = ?5 AND lead = ?6",
                    )?
                    .execute(params![owner, field, value, lead.job_id.to_string(), lead.row, self.id])?;
            }
        }
        // The places of a damaged lead are not known: they are looked for among all of the owner's.
        if found < Field::ALL.len() {
            transaction
                .prepare_cached("DELETE FROM orders WHERE owner = ?1 AND lead = ?2")?
                .execute([owner, self.id])?;
        }
        transaction
            .prepare_cached("INSERT INTO texts (texts, rowid, text) VALUES ('delete', ?1, ?2)")?
            .execute(params![self.id, self.text])?;
        Ok(())
    }
}

/// What a lead is sorted by, for each field.
fn values(lead: &StoredLead) -> impl Iterator<Item = (i64, String)> + '_ {
    Field::ALL.into_iter().map(|field| (place(field), lead.lead.get(field).to_lowercase()))
}

fn place(field: Field) -> i64 {
    Field::ALL.iter().position(|other| *other == field).map_or(0, |place| place as i64)
}

/// What is searched: SQLite's own lower case knows ASCII only.
fn text(lead: &Lead) -> String {
    let fields = Field::ALL.map(|field| lead.get(field).to_lowercase().replace(['\0', SEPARATOR], " "));
    fields.join(&SEPARATOR.to_string())
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredLead> {
    let unreadable =
        |error: BoxError| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error);
    let at = Timestamp::from_millisecond(row.get("updated_at")?);
    Ok(StoredLead {
        id: row.get("key")?,
        lead: serde_json::from_str(&row.get::<_, String>("lead")?).map_err(|e| unreadable(e.into()))?,
        job_id: row.get::<_, String>("job")?.parse().map_err(|_| unreadable("no job's id".into()))?,
        row: row.get("row")?,
        updated_at: at.map_err(|error| unreadable(error.to_string().into()))?,
    })
}

fn page(connection: &Connection, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, BoxError> {
    let owner: Option<(i64, usize)> = connection
        .prepare_cached("SELECT number, leads FROM owners WHERE name = ?1")?
        .query_row([owner.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((owner, all)) = owner else { return Ok(LeadPage::of([].iter(), query)) };
    let leads = Leads { connection, owner, sort: query.sort };
    let needle = query.needle();
    let (skipped, per_page) = (query.skipped(), query.per_page());
    match needle.chars().count() {
        0 => leads.page(query, all, &leads.ids(skipped, per_page)?),
        1 | 2 => {
            let newest = Leads { sort: None, ..leads };
            let found = newest.read(&newest.ids(0, NEWEST)?)?;
            let scope = (all > NEWEST).then_some(Scope { newest: NEWEST });
            Ok(LeadPage { scope, ..LeadPage::of(found.iter(), query) })
        }
        _ => match leads.count(&needle)? {
            many if many > SORTED_IN_MEMORY => {
                leads.page(query, many, &leads.ids_with(&needle, skipped, per_page)?)
            }
            _ => Ok(LeadPage::of(leads.with(&needle)?.iter(), query)),
        },
    }
}

/// The leads of one owner in some order.
#[derive(Clone, Copy)]
struct Leads<'a> {
    connection: &'a Connection,
    owner: i64,
    sort: Option<Sort>,
}

impl Leads<'_> {
    fn page(&self, query: &LeadQuery, total: usize, ids: &[i64]) -> Result<LeadPage, BoxError> {
        Ok(LeadPage {
            leads: self.read(ids)?,
            total: Total::Exactly(total),
            page: query.page.max(1),
            scope: None,
        })
    }

    /// A part of the order, from its index alone.
    fn ids(&self, skipped: usize, at_most: usize) -> rusqlite::Result<Vec<i64>> {
        let (rows, order) = self.order();
        let parameters: &[(&str, &dyn ToSql)] =
            &[(":owner", &self.owner), (":skipped", &skipped), (":at_most", &at_most)];
        self.all(
            &format!("SELECT id FROM {rows} ORDER BY {order} LIMIT :at_most OFFSET :skipped"),
            parameters,
        )
    }

    /// A part of the order of those that contain `needle`.
    fn ids_with(&self, needle: &str, skipped: usize, at_most: usize) -> rusqlite::Result<Vec<i64>> {
        let (rows, order) = self.order();
        let parameters: &[(&str, &dyn ToSql)] =
            &[(":owner", &self.owner), (":needle", &needle), (":skipped", &skipped), (":at_most", &at_most)];
        self.all(
            &format!(
                "SELECT id FROM {rows} CROSS JOIN (SELECT id, text FROM leads) AS read USING (id)
                 WHERE instr(read.text, :needle) ORDER BY {order} LIMIT :at_most OFFSET :skipped"
            ),
            parameters,
        )
    }

    /// The index that has the order, and the order. Both are made of constants.
    fn order(&self) -> (String, &'static str) {
        match self.sort {
            None => ("(SELECT id, job, row FROM leads WHERE owner = :owner)".into(), "job DESC, row"),
            Some(Sort { by, descending }) => {
                let field = place(by);
                let rows = format!(
                    "(SELECT lead AS id, value, job, row FROM orders WHERE owner = :owner AND field = {field})"
                );
                (rows, if descending { "value DESC, job DESC, row DESC" } else { "value, job, row" })
            }
        }
    }

    fn count(&self, needle: &str) -> rusqlite::Result<usize> {
        self.connection
            .prepare_cached("SELECT count(*) FROM texts WHERE texts MATCH ?1 AND rowid BETWEEN ?2 AND ?3")?
            .query_row(params![phrase(needle), self.first(), self.last()], |row| row.get(0))
    }

    fn with(&self, needle: &str) -> rusqlite::Result<Vec<StoredLead>> {
        let ids: Vec<i64> = self
            .connection
            .prepare_cached("SELECT rowid FROM texts WHERE texts MATCH ?1 AND rowid BETWEEN ?2 AND ?3")?
            .query_map(params![phrase(needle), self.first(), self.last()], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        self.read(&ids)
    }

    fn read(&self, ids: &[i64]) -> rusqlite::Result<Vec<StoredLead>> {
        let mut read = self
            .connection
            .prepare_cached("SELECT key, job, row, updated_at, lead FROM leads WHERE id = ?1")?;
        let read = ids.iter().map(|id| match read.query_row([id], stored) {
            // One damaged lead hides no other.
            Err(error) if error.sqlite_error_code().is_none() => {
                tracing::warn!(id, %error, "a lead cannot be read, and is left out");
                Ok(None)
            }
            read => read.map(Some),
        });
        read.filter_map(Result::transpose).collect()
    }

    fn all(&self, sql: &str, parameters: &[(&str, &dyn ToSql)]) -> rusqlite::Result<Vec<i64>> {
        self.connection.prepare_cached(sql)?.query_map(parameters, |row| row.get(0))?.collect()
    }

    fn first(&self) -> i64 {
        self.owner * IDS_PER_OWNER
    }

    fn last(&self) -> i64 {
        self.first() + (IDS_PER_OWNER - 1)
    }
}

/// What was typed is one phrase, and no query.
fn phrase(needle: &str) -> String {
    format!("\"{}\"", needle.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How SQLite would carry a query out.
    fn plan(connection: &Connection, sql: &str) -> String {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a query");
        let count = plan.parameter_count();
        let steps = plan.query_map(rusqlite::params_from_iter(vec!["1"; count]), |row| row.get(3));
        let steps: Vec<String> = steps.and_then(Iterator::collect).expect("a plan");
        steps.join("; ")
    }

    #[test]
    fn pages_and_orders_go_by_their_index_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("leads.db");
        let connection = open(&path).expect("it opens");
        let newest = [None, Some(false), Some(true)];
        for descending in newest {
            let sort = descending.map(|descending| Sort { by: Field::Company, descending });
            let leads = Leads { connection: &connection, owner: 1, sort };
            let (rows, order) = leads.order();
            let ids = plan(&connection, &format!("SELECT id FROM {rows} ORDER BY {order} LIMIT 1 OFFSET 1"));
            assert!(!ids.contains("SCAN") && !ids.contains("TEMP B-TREE"), "{ids}");
            assert!(ids.contains("COVERING INDEX") || ids.contains("PRIMARY KEY"), "{ids}");
            let found = plan(
                &connection,
                &format!(
                    "SELECT id FROM {rows} CROSS JOIN (SELECT id, text FROM leads) AS read USING (id) WHERE instr(read.text, 'x')
                     ORDER BY {order} LIMIT 1"
                ),
            );
            assert!(!found.contains("SCAN") && !found.contains("TEMP B-TREE"), "{found}");
        }
    }
}
