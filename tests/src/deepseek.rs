//! A stand-in for DeepSeek's chat API that answers well, but as slowly, or not at all, as a test wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router, extract::State, http::StatusCode, response::IntoResponse, response::Response, routing::post,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the server does when it sees a word in the rows.
#[derive(Clone, Copy, Debug)]
pub enum Upset {
    /// Nothing.
    Never,
    /// Refuses what has this word in it.
    By(&'static str),
}

/// The server; ends with the test.
#[derive(Clone, Debug)]
pub struct DeepSeek {
    /// Where it is.
    pub url: String,
    asked: Arc<AtomicUsize>,
    paused: watch::Sender<bool>,
    delay: Duration,
    upset: Upset,
}

impl DeepSeek {
    /// A server that takes so long for each answer.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn serve(delay: Duration, upset: Upset) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let this = Self { url, asked: Arc::default(), paused: watch::Sender::new(false), delay, upset };
        let app = Router::new().route("/chat/completions", post(answer)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        this
    }

    /// Holds back all answers, or gives them again.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// How many requests there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// What the template is told of it.
    pub fn parameters(&self) -> [(&str, &str); 2] {
        [("DeepSeekApiKey", "sk-test"), ("DeepSeekBaseUrl", &self.url)]
    }

    /// What a caller's environment says of it.
    pub fn environment(&self) -> Value {
        json!({"NORMALISER": "deepseek", "DEEPSEEK_API_KEY": "sk-test", "DEEPSEEK_BASE_URL": self.url})
    }
}

async fn answer(State(model): State<DeepSeek>, Json(request): Json<Value>) -> Response {
    model.asked.fetch_add(1, Ordering::Relaxed);
    let text = request["messages"][1]["content"].as_str().expect("rows");
    if matches!(model.upset, Upset::By(word) if text.contains(word)) {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    tokio::time::sleep(model.delay).await;
    let _ = model.paused.subscribe().wait_for(|paused| !paused).await;
    let asked: Value = serde_json::from_str(text).expect("JSON");
    let rows = asked["rows"].as_array().expect("rows").iter();
    let leads: Vec<_> = rows
        .map(|row| {
            let cell = |name: &str| row["cells"][name].as_str().unwrap_or_default();
            json!({"row": row["row"], "first_name": cell("First Name"), "last_name": cell("Last Name"), "title": "",
                "company": cell("Company"), "email": cell("Email"), "phone": ""})
        })
        .collect();
    let content = json!({ "leads": leads }).to_string();
    Json(json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}))
        .into_response()
}
