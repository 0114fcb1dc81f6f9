//! Queries as browsers' forms send them.

use axum::{
    extract::{FromRequestParts, Query},
    http::{Uri, request::Parts, uri::PathAndQuery},
};
use serde::de::DeserializeOwned;

use crate::Problem;

/// A query whose empty fields (`?status=&limit=`) are as good as absent, and whose faults are problems.
#[derive(Clone, Copy, Debug)]
pub struct QueryString<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for QueryString<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let filled: Vec<_> =
            query.split('&').filter(|pair| !pair.is_empty() && !pair.ends_with('=')).collect();
        let query: PathAndQuery = format!("/?{}", filled.join("&"))
            .parse()
            .map_err(|_| Problem::invalid("The query cannot be read."))?;
        let Query(query) = Query::try_from_uri(&Uri::from(query))?;
        Ok(Self(query))
    }
}
