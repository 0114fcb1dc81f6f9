//! A lead in the seven fields that the CRM keeps.

use serde::{Deserialize, Serialize};

/// A person somebody may want to sell to. Every field is text as it is to be shown; empty where nothing is known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lead {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Position in the company.
    pub title: String,
    /// Employer.
    pub company: String,
    /// One address, in lower case.
    pub email: String,
    /// One number, as written.
    pub phone: String,
    /// Everything else the file said, as "Column: value; …".
    pub remarks: String,
}

/// One of the seven fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Given name.
    FirstName,
    /// Family name.
    LastName,
    /// Position.
    Title,
    /// Employer.
    Company,
    /// E-mail address.
    Email,
    /// Telephone number.
    Phone,
    /// The rest.
    Remarks,
}

impl Field {
    /// All seven, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::FirstName,
        Self::LastName,
        Self::Title,
        Self::Company,
        Self::Email,
        Self::Phone,
        Self::Remarks,
    ];

    /// The field's name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Title => "title",
            Self::Company => "company",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Remarks => "remarks",
        }
    }
}

impl Lead {
    /// The longest field that is kept, in bytes; remarks may have ten times that.
    pub const MAX_FIELD: usize = 200;

    /// The field's text.
    pub fn get(&self, field: Field) -> &str {
        match field {
            Field::FirstName => &self.first_name,
            Field::LastName => &self.last_name,
            Field::Title => &self.title,
            Field::Company => &self.company,
            Field::Email => &self.email,
            Field::Phone => &self.phone,
            Field::Remarks => &self.remarks,
        }
    }

    /// The field's text, to be changed.
    pub fn get_mut(&mut self, field: Field) -> &mut String {
        match field {
            Field::FirstName => &mut self.first_name,
            Field::LastName => &mut self.last_name,
            Field::Title => &mut self.title,
            Field::Company => &mut self.company,
            Field::Email => &mut self.email,
            Field::Phone => &mut self.phone,
            Field::Remarks => &mut self.remarks,
        }
    }

    /// The lead trimmed, within its bounds, the address in lower case.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        for field in Field::ALL {
            let max = if field == Field::Remarks { 10 * Self::MAX_FIELD } else { Self::MAX_FIELD };
            let text = self.get_mut(field);
            *text = status_core::text::bounded(text.trim(), max);
        }
        self.email = self.email.to_lowercase();
        self
    }

    /// Whether there is anybody to talk to: a name, a company, an address or a number.
    pub fn is_somebody(&self) -> bool {
        Field::ALL.into_iter().any(|f| !matches!(f, Field::Remarks | Field::Title) && !self.get(f).is_empty())
    }
}
