//! Which store is meant: flags first, then the environment.

use std::{env, path::PathBuf, str::FromStr};

use crate::{
    arguments::Global,
    problem::{Outcome, Problem},
};

/// A store, as it is named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// `sqlite:FILE`.
    Sqlite(PathBuf),
    /// `dynamodb:TABLE`.
    DynamoDb(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite(file.into())),
            Some(("dynamodb", table)) if !table.is_empty() => Ok(Self::DynamoDb(table.to_owned())),
            _ => Err("a store is sqlite:FILE or dynamodb:TABLE".to_owned()),
        }
    }
}

impl Place {
    /// The store that the flags name, or else the environment.
    pub(crate) fn of(global: &Global) -> Outcome<Self> {
        if let Some(store) = &global.store {
            return Ok(store.clone());
        }
        if let Some(table) = &global.table {
            return Ok(Self::DynamoDb(table.clone()));
        }
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match (set("STATUS_STORE"), set("STATUS_TABLE")) {
            (Some(store), _) => {
                store.parse().map_err(|why| Problem::usage(format!("STATUS_STORE is {store:?}; {why}")))
            }
            (None, Some(table)) => Ok(Self::DynamoDb(table)),
            (None, None) => Err(Problem::usage(
                "no store is named; add --store sqlite:FILE or --table NAME, or set STATUS_STORE",
            )),
        }
    }
}

/// What a program says that was built without AWS.
#[cfg_attr(feature = "aws", allow(dead_code, reason = "said by the other build"))]
pub(crate) fn without_aws(table: &str) -> Problem {
    Problem::usage(format!(
        "this jobstatus was built without AWS; for DynamoDB use \
         `cargo run --release -p jobstatus-cli --features aws -- --store dynamodb:{table} …`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_file_or_a_table() {
        assert_eq!("sqlite:a/b:c.db".parse(), Ok(Place::Sqlite("a/b:c.db".into())));
        assert_eq!("dynamodb:jobs".parse(), Ok(Place::DynamoDb("jobs".into())));
        for text in ["jobs.db", "sqlite:", "dynamodb:", "postgres:x", ""] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_program_without_aws_names_the_command_that_has_it() {
        let Problem::Said { message, .. } = without_aws("jobs") else { panic!("something is said") };
        assert!(message.contains("cargo run --release -p jobstatus-cli --features aws -- "), "{message}");
    }
}
