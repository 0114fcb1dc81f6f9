//! Giving space back: what was deleted leaves free pages, which later jobs use again. Only where a
//! quarter of the file is free does it get shorter, page by page, so that nobody waits for a
//! `VACUUM` of all of it.

use rusqlite::Connection;

use crate::failure::Failure;

/// A file whose free pages are at least one in so many gets shorter.
const FREE_SHARE: i64 = 4;
/// Below so many pages (four megabytes) nothing is worth the work.
const FEW_PAGES: i64 = 1_024;
/// The most pages that are given back in one transaction.
const PAGES_AT_ONCE: i64 = 1_024;

/// Gives some pages back; whether there are more.
pub(crate) fn step(connection: &Connection) -> Result<bool, Failure> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (free, all) = (number("freelist_count")?, number("page_count")?);
    if free < FEW_PAGES || free * FREE_SHARE < all {
        return Ok(false);
    }
    // SQLite gives back one page for each step of the statement.
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    // Where the file was made without this, nothing has happened.
    Ok(number("freelist_count")? < free)
}
