//! What the parts of the CRM import share: the [lead](Lead), [reading](mod@read) lead files as users really have them, the
//! [message](BatchMessage) that carries a batch, [normalising](Normaliser) and the [table](LeadTable) the leads end up in.

mod lead;
mod message;
pub mod normalise;
pub mod read;
mod table;

pub use lead::{Field, Lead};
pub use message::{BatchMessage, Columns, RawLead};
pub use normalise::{DeepSeek, DeepSeekError, NormaliseError, Normalised, Normaliser, NormaliserKind, Rules};
#[cfg(feature = "aws")]
pub use table::DynamoLeads;
#[cfg(feature = "sqlite")]
pub use table::SqliteLeads;
pub use table::{LeadPage, LeadQuery, LeadTable, MemoryLeads, Scope, Sort, StoredLead, TableError, Total};
