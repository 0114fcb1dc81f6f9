//! Leads in one SQLite file.
//!
//! - `owners`: each has a number and counts its leads. The ids of an owner's leads begin with its number, so
//!   that the index of texts, which knows ids only, is searched in the owner's part alone.
//! - `leads`: the lead as JSON, and its text in lower case.
//! - `orders`: a row for each lead and field, clustered in the order in which they are shown.
//! - `texts`: an index of all runs of three characters (FTS5's trigrams), for searches.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, ToSql, Transaction, TransactionBehavior, named_params, params,
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
    PRAGMA user_version = 1;
";
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
    /// Opens the file at `path`, and makes it, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// [`TableError`] if it cannot be used, or was written by a later version.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let failed = |source: BoxError| TableError { operation: "opening the file", source, may_pass: false };
        create_private(path).map_err(|error| failed(error.into()))?;
        let writer = connect(path).and_then(prepare).map_err(failed)?;
        let reader = connect(path).map_err(failed)?;
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
fn connect(path: &Path) -> Result<Connection, BoxError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn prepare(mut connection: Connection) -> Result<Connection, BoxError> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => transaction.execute_batch(SCHEMA)?,
        VERSION => {}
        later => {
            let why =
                format!("it has version {later}, and this program knows {VERSION}: update this program");
            return Err(why.into());
        }
    }
    transaction.commit()?;
    Ok(connection)
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
        // Upserts may be repeated: if one fails, all of them are told.
        let written = write_together(&mut connection, &writes).map_err(Arc::new);
        for write in writes {
            let _ = write.reply.send(written.clone());
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
        .query_row(params![owner, lead.id], |row| {
            Ok((row.get::<_, i64>("id")?, stored(row)?, row.get::<_, String>("text")?))
        })
        .optional()?;
    let id = if let Some((id, before, text)) = before {
        for (field, value) in values(&before) {
            transaction
                .prepare_cached(
                    "DELETE FROM orders WHERE owner = ?1 AND field = ?2 AND value = ?3 AND job = ?4 AND row = ?5 AND lead = ?6",
                )?
                .execute(params![owner, field, value, before.job_id.to_string(), before.row, id])?;
        }
        transaction
            .prepare_cached("INSERT INTO texts (texts, rowid, text) VALUES ('delete', ?1, ?2)")?
            .execute(params![id, text])?;
        id
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
        ids.iter().map(|id| read.query_row([id], stored)).collect()
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
        let connection = connect(&path).and_then(prepare).expect("it opens");
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
