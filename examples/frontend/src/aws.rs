//! On AWS: jobs and leads in DynamoDB, and uploads straight to S3 by presigned URLs, whose bytes never pass
//! through this process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{Client, config::Builder, presigning::PresigningConfig};
use leads::{DynamoLeads, LeadTable};
use status_core::{BoxError, FileInfo, JobId, StatusStore};
use status_dynamo::DynamoStore;
use status_http::UploadTicket;

use crate::StartError;

/// Throttled requests are repeated, with jitter, for some seconds.
const ATTEMPTS: u32 = 6;

/// How long S3 may take to answer: somebody waits for it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long an upload may take to begin.
const EXPIRES: Duration = Duration::from_secs(3_600);

/// The tables, made if they are not there.
pub(crate) async fn tables(
    table: Option<&str>,
) -> Result<(Arc<dyn StatusStore>, Arc<dyn LeadTable>), StartError> {
    let table = table.ok_or(StartError::Combination("--store dynamodb needs --table NAME"))?;
    let open = async {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let config = aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).load().await;
        let client = aws_sdk_dynamodb::Client::new(&config);
        let store = DynamoStore::new(client.clone(), table);
        store.create_table().await?;
        let leads = DynamoLeads::new(client, format!("{table}-leads"));
        leads.create_table().await?;
        Ok((Arc::new(store) as Arc<dyn StatusStore>, Arc::new(leads) as Arc<dyn LeadTable>))
    };
    open.await.map_err(StartError::Tables)
}

/// Where browsers send files, and the bucket's origin for the page's policy.
pub(crate) async fn uploads(bucket: &str) -> Result<(Arc<dyn status_http::Uploads>, String), StartError> {
    let bucket = S3Uploads::open(bucket).await;
    let origin = bucket.origin().await.map_err(StartError::Bucket)?;
    Ok((Arc::new(bucket), origin))
}

/// A bucket.
#[derive(Clone, Debug)]
struct S3Uploads {
    client: Client,
    bucket: String,
}

impl S3Uploads {
    async fn open(bucket: &str) -> Self {
        let config: SdkConfig = aws_config::load_defaults(BehaviorVersion::latest()).await;
        // Servers that stand in for S3 have no host name for each bucket.
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(TIMEOUT);
        let config = Builder::from(&config).force_path_style(true).timeout_config(timeouts.build()).build();
        Self { client: Client::from_conf(config), bucket: bucket.to_owned() }
    }

    /// Where browsers send files: scheme and host, for the page's policy.
    async fn origin(&self) -> Result<String, BoxError> {
        let request = self.client.put_object().bucket(&self.bucket).key("uploads/");
        let url = request.presigned(PresigningConfig::expires_in(EXPIRES)?).await?.uri().to_owned();
        let uri: axum::http::Uri = url.parse()?;
        let authority = uri.authority().ok_or("S3's address has no host")?;
        Ok(format!("{}://{authority}", uri.scheme_str().unwrap_or("https")))
    }
}

#[async_trait]
impl status_http::Uploads for S3Uploads {
    /// Signs the size and the type too: nothing else can be uploaded with it.
    async fn ticket(&self, job: JobId, file: &FileInfo) -> Result<UploadTicket, BoxError> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key_of(job, file))
            .content_type(&file.content_type)
            .content_length(i64::try_from(file.size)?);
        let signed = request.presigned(PresigningConfig::expires_in(EXPIRES)?).await?;
        // Browsers set the length themselves, and let no script set it.
        let headers = signed.headers().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
        let headers: BTreeMap<_, _> =
            headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(UploadTicket { method: "PUT".into(), url: signed.uri().to_owned(), headers })
    }

    /// Who may not look says yes: the splitter is told of the file by S3 itself.
    async fn has_arrived(&self, job: JobId, file: &FileInfo) -> Result<bool, BoxError> {
        let looked = self.client.head_object().bucket(&self.bucket).key(key_of(job, file)).send().await;
        let Err(error) = looked else { return Ok(true) };
        match error.raw_response().map(|response| response.status().as_u16()) {
            Some(403) => Ok(true),
            Some(404) => Ok(false),
            _ => Err(error.into()),
        }
    }
}

fn key_of(job: JobId, file: &FileInfo) -> String {
    format!("uploads/{job}/{}", file.name.replace('/', "_"))
}
