//! The tables of leads: what they show is the same, whatever they are kept in.

use std::{path::Path, time::Instant};

use leads::{Field, Lead, LeadPage, LeadQuery, LeadTable, MemoryLeads, Sort, SqliteLeads, Total};
use proptest::prelude::*;
use status_core::{JobId, OwnerId, Timestamp};

fn owner(name: &str) -> OwnerId {
    OwnerId::new(name).expect("a name")
}

fn job(number: u8) -> JobId {
    let at = Timestamp::from_millisecond(i64::from(number) * 1_000).expect("a time");
    JobId::from_parts(at, u128::from(number))
}

/// Few words, so that leads are found by several, replace each other and share their place in an order.
fn word() -> impl Strategy<Value = String> {
    let words = ["", "Ada", "ADA", "Änne", "İpek", "o'\"Hara", "王芳", "a%b_c", "AND", "NEAR(a b)", "ßx y"];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn lead() -> impl Strategy<Value = Lead> {
    (word(), word(), word(), "[ab]?").prop_map(|(first_name, company, remarks, email)| Lead {
        first_name,
        company,
        remarks,
        email,
        ..Lead::default()
    })
}

fn query() -> impl Strategy<Value = LeadQuery> {
    let needle =
        prop_oneof![word(), "[a-zäß\"'%*: ]{0,5}", Just("\u{1}".to_owned()), Just("ßx\0y".to_owned())];
    let sort = prop::option::of((prop::sample::select(Field::ALL.to_vec()), any::<bool>()));
    (1_usize..4, 1_usize..5, sort, needle).prop_map(|(page, per_page, sort, q)| {
        let sort = sort.map(|(by, descending)| Sort { by, descending });
        LeadQuery { page, per_page, sort, q }
    })
}

type Write = (&'static str, u8, Vec<(u64, Lead)>);

fn write() -> impl Strategy<Value = Write> {
    let owners = prop::sample::select(vec!["alice", "bob"]);
    (owners, 0_u8..3, prop::collection::vec((0_u64..6, lead()), 0..6))
}

/// What may differ: leads of one row of one job, which an order does not tell apart.
fn shown(page: &LeadPage) -> (Vec<(JobId, u64)>, Total, usize) {
    (page.leads.iter().map(|lead| (lead.job_id, lead.row)).collect(), page.total, page.page)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn both_show_the_same(path: &Path, writes: Vec<Write>, queries: Vec<LeadQuery>) {
    let (memory, mut file) = (MemoryLeads::default(), SqliteLeads::open(path).expect("it opens"));
    for (name, number, leads) in writes {
        for table in [&memory as &dyn LeadTable, &file] {
            table.upsert(&owner(name), job(number), &leads, Timestamp::UNIX_EPOCH).await.expect("written");
        }
    }
    drop(file);
    file = SqliteLeads::open(path).expect("it opens again");
    for query in queries {
        for name in ["alice", "bob", "nobody"] {
            let expected = memory.page(&owner(name), &query).await.expect("read");
            let found = file.page(&owner(name), &query).await.expect("read");
            assert_eq!(shown(&found), shown(&expected), "{query:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_shows_what_memory_shows(
        writes in prop::collection::vec(write(), 0..6),
        queries in prop::collection::vec(query(), 12),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        run(both_show_the_same(&folder.path().join("leads.db"), writes, queries));
    }
}

/// Where more leads are found than are sorted in memory, or a search is too short for the index.
#[test]
fn a_file_shows_many_as_memory_does_and_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (memory, file) =
        (MemoryLeads::default(), SqliteLeads::open(&folder.path().join("leads.db")).expect("it opens"));
    run(async {
        for number in 0..6_u8 {
            let leads: Vec<_> = (0..1_000_u64)
                .map(|row| {
                    let n = row * 6 + u64::from(number);
                    let (first_name, company) = (format!("Ada {n}"), format!("Firm {}", n * 7_919 % 6_000));
                    let email = format!("ada{n}@example.com");
                    (row, Lead { first_name, company, email, ..Lead::default() })
                })
                .collect();
            for table in [&memory as &dyn LeadTable, &file] {
                for name in ["alice", "bob"] {
                    table
                        .upsert(&owner(name), job(number), &leads, Timestamp::UNIX_EPOCH)
                        .await
                        .expect("written");
                }
            }
        }
        let sorts = [None, Some((Field::Company, false)), Some((Field::Company, true))];
        for sort in sorts.map(|sort| sort.map(|(by, descending)| Sort { by, descending })) {
            for (q, page) in
                [("", 1), ("", 300), ("example", 1), ("example", 250), ("firm 599", 1), ("FIRM", 3)]
            {
                let query = LeadQuery { q: q.into(), page, sort, ..LeadQuery::default() };
                let expected = memory.page(&owner("alice"), &query).await.expect("read");
                let begun = Instant::now();
                let found = file.page(&owner("alice"), &query).await.expect("read");
                let took = begun.elapsed();
                assert_eq!(found, expected, "{query:?}");
                assert!(took.as_millis() < 250, "{query:?} took {took:?}");
            }
        }
        // Two characters are searched for among the newest, which is said.
        let query = LeadQuery { q: "0@".into(), ..LeadQuery::default() };
        let found = file.page(&owner("alice"), &query).await.expect("read");
        assert_eq!(found.scope.map(|scope| scope.newest), Some(5_000));
        assert_eq!(found.total, Total::Exactly(400));
    });
}

#[test]
fn a_file_of_a_later_version_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    drop(SqliteLeads::open(&path).expect("it opens"));
    let connection = rusqlite::Connection::open(&path).expect("it opens");
    connection.pragma_update(None, "user_version", 2).expect("set");
    let refused = SqliteLeads::open(&path).expect_err("it is later");
    assert!(refused.source.to_string().contains("update this program"), "{}", refused.source);
}

fn refused(path: &Path) -> String {
    SqliteLeads::open(path).expect_err("it cannot be used").source.to_string()
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    for version in [0, 1, 7] {
        let _ = std::fs::remove_file(&path);
        let connection = rusqlite::Connection::open(&path).expect("it opens");
        connection.execute_batch("CREATE TABLE mycrm (a)").expect("made");
        connection.pragma_update(None, "user_version", version).expect("set");
        drop(connection);
        let before = std::fs::read(&path).expect("read");
        let why = refused(&path);
        assert!(why.contains("leads.db is not a database of leads"), "{why}");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }
}

#[test]
fn a_file_that_was_not_closed_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    let table = SqliteLeads::open(&path).expect("it opens");
    let leads: Vec<_> = (0..500_u64).map(|row| (row, called(&format!("ada{row}@example.com")))).collect();
    run(table.upsert(&owner("alice"), job(1), &leads, Timestamp::UNIX_EPOCH)).expect("written");
    drop(table);
    // A log beside the file is the sign that it was not closed.
    std::fs::write(folder.path().join("leads.db-wal"), "").expect("written");
    drop(SqliteLeads::open(&path).expect("it is sound"));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[20 * 4_096..40 * 4_096].fill(0);
    std::fs::write(&path, bytes).expect("written");
    std::fs::write(folder.path().join("leads.db-wal"), "").expect("written");
    let why = refused(&path);
    assert!(why.contains("leads.db is damaged") && why.contains("leads.db-wal and"), "{why}");
    assert!(why.contains("before you put a backup in its place"), "{why}");
}

fn called(email: &str) -> Lead {
    Lead { first_name: "Ada".into(), email: email.into(), ..Lead::default() }
}

#[test]
fn a_damaged_lead_keeps_no_file_shut_that_was_not_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    let table = SqliteLeads::open(&path).expect("it opens");
    let leads = [(0, called("ada@example.com")), (1, called("bob@example.com"))];
    run(table.upsert(&owner("alice"), job(1), &leads, Timestamp::UNIX_EPOCH)).expect("written");
    drop(table);
    let alter = |from, to| {
        let file = rusqlite::Connection::open(&path).expect("it opens");
        file.pragma_update(None, "writable_schema", true).expect("set");
        let alter = "UPDATE sqlite_schema SET sql = replace(sql, ?1, ?2) WHERE name = 'leads'";
        assert_eq!(file.execute(alter, [from, to]).expect("altered"), 1);
    };
    alter("lead TEXT NOT NULL", "lead TEXT");
    let file = rusqlite::Connection::open(&path).expect("it opens");
    file.execute("UPDATE leads SET lead = NULL WHERE row = 0", []).expect("damaged");
    drop(file);
    alter("lead TEXT", "lead TEXT NOT NULL");
    std::fs::write(folder.path().join("leads.db-wal"), "").expect("written");
    let table = SqliteLeads::open(&path).expect("it opens");
    let page = run(table.page(&owner("alice"), &LeadQuery::default())).expect("read");
    assert_eq!(page.leads.len(), 1);
}

#[test]
fn a_damaged_index_of_texts_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    let table = SqliteLeads::open(&path).expect("it opens");
    let leads: Vec<_> = (0..100_u64).map(|row| (row, called(&format!("ada{row}@example.com")))).collect();
    run(table.upsert(&owner("alice"), job(1), &leads, Timestamp::UNIX_EPOCH)).expect("written");
    drop(table);
    let file = rusqlite::Connection::open(&path).expect("it opens");
    // The rows past the first two hold the index itself.
    assert_ne!(file.execute("DELETE FROM texts_data WHERE id > 10", []).expect("damaged"), 0);
    drop(file);
    std::fs::write(folder.path().join("leads.db-wal"), "").expect("written");
    let table = SqliteLeads::open(&path).expect("it opens");
    let found = LeadQuery { q: "ada77@".into(), ..LeadQuery::default() };
    assert_eq!(run(table.page(&owner("alice"), &found)).expect("read").leads.len(), 1);
}

#[test]
fn a_damaged_lead_hides_no_other_and_can_be_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leads.db");
    let table = SqliteLeads::open(&path).expect("it opens");
    let leads: Vec<_> = (0..9_u64).map(|row| (row, called(&format!("ada{row}@example.com")))).collect();
    let write =
        |leads: &[(u64, Lead)]| run(table.upsert(&owner("alice"), job(1), leads, Timestamp::UNIX_EPOCH));
    write(&leads).expect("written");
    let sort = Some(Sort { by: Field::Email, descending: false });
    let queries = ["", "ad", "example"].map(|q| LeadQuery { q: q.into(), sort, ..LeadQuery::default() });
    let show = |query: &LeadQuery| run(table.page(&owner("alice"), query)).expect("read");
    let whole = queries.each_ref().map(show);
    let file = rusqlite::Connection::open(&path).expect("it opens");
    file.execute_batch("UPDATE leads SET lead = '{broken' WHERE row = 3").expect("damaged");
    for query in &queries {
        assert_eq!(show(query).leads.len(), 8, "{query:?}");
    }
    write(&leads).expect("written");
    assert_eq!(queries.each_ref().map(show), whole);
    let orders: i64 = file.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).expect("counted");
    assert_eq!(orders, 9 * Field::ALL.len() as i64);
    // One that is damaged in a way that can be read is found in the orders all the same.
    file.execute_batch("UPDATE leads SET lead = replace(lead, 'Ada', 'Bob')").expect("damaged");
    write(&leads).expect("written");
    assert_eq!(queries.each_ref().map(show), whole);
}

#[test]
fn a_page_past_all_numbers_is_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = SqliteLeads::open(&folder.path().join("leads.db")).expect("it opens");
    let lead = (0, called("ada@example.com"));
    run(file.upsert(&owner("alice"), job(1), &[lead], Timestamp::UNIX_EPOCH)).expect("written");
    let query = LeadQuery { page: usize::MAX, ..LeadQuery::default() };
    assert_eq!(run(file.page(&owner("alice"), &query)).expect("read").leads, []);
}

#[cfg(unix)]
#[test]
fn a_file_and_its_log_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let table = SqliteLeads::open(&folder.path().join("leads.db")).expect("it opens");
    let lead = (0, Lead { email: "ada@example.com".into(), ..Lead::default() });
    run(table.upsert(&owner("alice"), job(1), &[lead], Timestamp::UNIX_EPOCH)).expect("written");
    for file in std::fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file")) {
        let mode = file.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
}
