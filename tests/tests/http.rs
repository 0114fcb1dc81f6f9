//! The main job over HTTP, as a browser uses it.

use std::time::{Duration, Instant};

use e2e::{Server, leads_100, many_leads};
use reqwest::{Method, StatusCode, header};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};
use serde_json::{Value, json};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn a_csv_is_imported_and_again_it_updates() {
    let visitor = Server::start(&[]).await;
    let server = visitor;
    let visitor = server.visitor();
    for _ in 0..2 {
        let job = visitor.upload("leads-100.csv", leads_100()).await;
        let done = visitor.until_over(&job).await;
        assert_eq!(
            (&done["status"], &done["outcome"], &done["label"]),
            (&json!("completed"), &json!("succeeded"), &json!("Completed"))
        );
        assert_eq!(
            done["progress"]["batches"],
            json!({"total": 10, "completed": 10, "failed": 0, "pending": 0, "running": 0})
        );
        assert_eq!(done["progress"]["items"], json!({"total": 100, "processed": 100, "failed": 0}));
        assert_eq!(done["progress"]["fraction"], 1.0);
        assert!(done.get("poll_after_ms").is_none(), "absent when terminal");
        assert_eq!(visitor.get("/leads").await["total"], 100);
    }
    let found = visitor.get("/leads?q=HATKINSON&sort=-last_name&per_page=5").await;
    assert_eq!(found["leads"][0]["company"], "Grimes, Madden and Huff");
    assert_eq!(visitor.get("/jobs").await["jobs"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_workbook_is_imported_with_all_its_worksheets() {
    let mut book = Workbook::new();
    let date = Format::new().set_num_format("yyyy-mm-dd");
    let sheet = book.add_worksheet();
    sheet.write(0, 0, "Export of 2026-11-23").expect("written");
    for (column, name) in ["First Name", "Last Name", "Email", "Phone", "Since"].into_iter().enumerate() {
        sheet.write(2, u16::try_from(column).expect("few"), name).expect("written");
    }
    for row in 3..18_u32 {
        sheet.write(row, 0, "Ann").expect("written");
        sheet.write(row, 1, format!("Bee {row}")).expect("written");
        sheet.write(row, 2, format!("ann{row}@example.com")).expect("written");
        sheet.write(row, 3, 15_550_100 + row).expect("written");
        sheet
            .write_with_format(row, 4, ExcelDateTime::from_ymd(2024, 2, 29).expect("a date"), &date)
            .expect("written");
    }
    let second = book.add_worksheet();
    second.write_row(0, 0, ["Name", "E-Mail"]).expect("written");
    second.write_row(1, 0, ["Ada Lovelace", "ada@example.com"]).expect("written");
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let job = visitor.upload("leads.xlsx", book.save_to_buffer().expect("a workbook")).await;
    let done = visitor.until_over(&job).await;
    assert_eq!(done["progress"]["items"]["processed"], 16, "{done}");
    assert_eq!(visitor.get("/leads?q=ada@").await["leads"][0]["last_name"], "Lovelace");
    let lead = &visitor.get("/leads?q=ann3@").await["leads"][0];
    assert_eq!((&lead["phone"], &lead["remarks"]), (&json!("15550103"), &json!("Since: 2024-02-29")));
}

#[tokio::test]
async fn events_show_every_status_and_progress_only_grows() {
    let server = Server::start(&["--batch-delay", "100ms", "--workers", "2"]).await;
    let visitor = server.visitor();
    let csv = leads_100();
    let (job, url) = visitor.create("leads-100.csv", csv.len()).await;
    let watching = tokio::spawn({
        let (visitor, job) = (visitor.clone(), job.clone());
        async move { visitor.events(&job).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    visitor.request(Method::PUT, &url).body(csv).send().await.expect("answered");
    let snapshots = watching.await.expect("no panic");
    let mut statuses: Vec<_> = snapshots.iter().map(|s| s["status"].as_str().expect("text")).collect();
    statuses.dedup();
    assert_eq!(statuses, ["uploading", "uploaded", "processing", "completed"]);
    let done: Vec<_> = snapshots.iter().map(|s| number(&s["progress"]["batches"]["completed"])).collect();
    assert!(done.is_sorted() && done.len() > 5, "{done:?}");
    assert!(snapshots.is_sorted_by_key(|s| number(&s["version"])));
    let again = visitor.events(&job).await;
    assert_eq!(again.len(), 1, "a terminal job: its snapshot, and the end");
}

#[tokio::test]
async fn cancelling_in_the_middle_stops_and_keeps_what_was_done() {
    let server = Server::start(&["--batch-delay", "100ms", "--workers", "2"]).await;
    let visitor = server.visitor();
    let job = visitor.upload("leads.csv", many_leads(1_000)).await;
    visitor.until(&job, |s| number(&s["progress"]["batches"]["completed"]) >= 4).await;
    let (status, asked) = visitor.post(&format!("{job}/cancel"), &json!({"reason": "wrong file"})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        (&asked["status"], &asked["cancel_requested"]["reason"]),
        (&json!("processing"), &json!("wrong file"))
    );
    let over = visitor.until_over(&job).await;
    assert_eq!((&over["status"], &over["label"]), (&json!("cancelled"), &json!("Processing Cancelled")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = visitor.get(&job).await;
    let completed = number(&later["progress"]["batches"]["completed"]);
    assert!((4..=10).contains(&completed), "what was under way was finished, nothing was begun: {completed}");
    assert_eq!(
        number(&visitor.get("/leads").await["total"]),
        completed * 10,
        "what was done is there and counted"
    );
    let (status, _) = visitor.post(&format!("{job}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "cancelled already");
    let told = visitor.get(&format!("{job}/history")).await;
    let told: Vec<_> =
        told["history"].as_array().expect("a list").iter().map(|h| h["to"].as_str().expect("text")).collect();
    assert_eq!(told, ["uploading", "uploaded", "processing", "sealed", "cancel_requested", "cancelled"]);
}

#[tokio::test]
async fn a_terminal_job_cannot_be_cancelled() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let job = visitor.upload("leads-100.csv", leads_100()).await;
    visitor.until_over(&job).await;
    let response = visitor.request(Method::POST, &format!("{job}/cancel")).send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!((&problem["type"], &problem["status"]), (&json!("job-terminal"), &json!(409)));
}

#[tokio::test]
async fn an_upload_that_was_cancelled_is_refused() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let (job, url) = visitor.create("leads-100.csv", 10).await;
    let (status, _) = visitor.post(&format!("{job}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "nothing had begun");
    let refused = visitor.request(Method::PUT, &url).body("a,b\n1,2\n").send().await.expect("answered");
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let (status, problem) = visitor.post(&format!("{job}/upload-progress"), &json!({"bytes": 5})).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("job-terminal")));
}

#[tokio::test]
async fn what_cannot_be_read_fails_in_words_and_the_next_upload_works() {
    let server = Server::start(&["--max-upload-bytes", "60000000"]).await;
    let visitor = server.visitor();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend((0..3_000_u32).map(|n| (n * 7 % 251) as u8));
    let mut corrupt = b"PK\x03\x04".to_vec();
    corrupt.extend((0..3_000_u32).map(|n| (n * 13 % 241) as u8));
    let line = format!("a,b\n\"{}\"\n", "x".repeat(50_000_000)).into_bytes();
    for (name, bytes, code, words) in [
        ("empty.csv", Vec::new(), "file-empty", "The file is empty"),
        ("blank.csv", b" \n\n".to_vec(), "file-empty", "The file is empty"),
        ("header.csv", b"First Name,Email\n".to_vec(), "file-without-rows", "no leads below"),
        ("image.csv", png, "file-not-a-table", "a PNG image"),
        ("corrupt.xlsx", corrupt, "workbook-damaged", "damaged"),
        ("line.csv", line, "row-too-long", "Row 2 is longer"),
    ] {
        let job = visitor.upload(name, bytes).await;
        let over = visitor.until_over(&job).await;
        let failure = &over["failure"];
        assert_eq!(
            (&over["status"], &failure["code"], &failure["stage"]),
            (&json!("failed"), &json!(code), &json!("split")),
            "{name}"
        );
        assert!(failure["message"].as_str().expect("text").contains(words), "{name}: {failure}");
    }
    let job = visitor.upload("leads-100.csv", leads_100()).await;
    assert_eq!(visitor.until_over(&job).await["status"], "completed");
}

#[tokio::test]
async fn files_over_the_limit_are_refused() {
    let server = Server::start(&["--max-upload-bytes", "1000"]).await;
    let visitor = server.visitor();
    let (status, problem) =
        visitor.post("/jobs", &json!({"file_name": "big.csv", "size": 1_001, "content_type": ""})).await;
    assert_eq!((status, &problem["type"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("file-too-large")));
    let (job, url) = visitor.create("liar.csv", 10).await;
    let sent = visitor.request(Method::PUT, &url).body(vec![b'x'; 5_000]).send().await.expect("answered");
    assert_eq!(sent.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(visitor.get(&job).await["status"], "uploading", "another try is possible");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_uploaded() {
    let server = Server::start(&[]).await;
    let alice = server.visitor();
    let new = json!({"file_name": "leads-100.csv", "size": leads_100().len(), "content_type": "text/csv"});
    let created = alice.request(Method::POST, "/jobs").json(&new).send().await.expect("answered");
    let created: Value = created.json().await.expect("JSON");
    let job = format!("/jobs/{}", created["job"]["id"].as_str().expect("an id"));
    let early = alice.request(Method::POST, &format!("{job}/uploaded")).send().await.expect("answered");
    assert_eq!(early.status(), StatusCode::CONFLICT);
    assert_eq!(early.json::<Value>().await.expect("JSON")["type"], "file-missing");
    let url = created["upload"]["url"].as_str().expect("where it goes").to_owned();
    let sent = alice.request(Method::PUT, &url).body(leads_100()).send().await.expect("answered");
    assert_eq!(sent.status(), StatusCode::OK);
    assert_eq!(alice.until_over(&job).await["status"], "completed");
}

#[tokio::test]
async fn who_imports_much_makes_nobody_else_wait() {
    let server = Server::start(&["--batch-delay", "200ms"]).await;
    let (alice, bob) = (server.visitor(), server.visitor());
    let rows: String = (0..20_000).map(|n| format!("Ann{n} Bee,ann{n}@example.com\n")).collect();
    for n in 0..4 {
        let job = alice.upload(&format!("many-{n}.csv"), format!("Name,Email\n{rows}").into_bytes()).await;
        if n < 2 {
            alice.until(&job, |job| job["progress"]["batches"]["completed"] != 0).await;
        }
    }
    let begun = Instant::now();
    let job = bob.upload("one.csv", b"Name,Email\nBob Cee,bob@example.com\n".to_vec()).await;
    assert_eq!(bob.until_over(&job).await["status"], "completed");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn for_anybody_else_a_job_does_not_exist() {
    let server = Server::start(&["--batch-delay", "200ms"]).await;
    let (alice, bob) = (server.visitor(), server.visitor());
    let job = alice.upload("leads-100.csv", leads_100()).await;
    let upload = job.replace("/jobs/", "/uploads/");
    for (method, path) in [
        (Method::GET, job.clone()),
        (Method::GET, format!("{job}?wait=1")),
        (Method::GET, format!("{job}/events")),
        (Method::GET, format!("{job}/history")),
        (Method::GET, format!("{job}/errors")),
        (Method::GET, format!("{job}/errors?format=csv")),
        (Method::POST, format!("{job}/cancel")),
        (Method::POST, format!("{job}/uploaded")),
        (Method::PUT, upload),
        (Method::GET, "/jobs/../etc/passwd".into()),
        (Method::GET, "/jobs/nonsense".into()),
    ] {
        let refused = bob.request(method.clone(), &path).body("").send().await.expect("answered");
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
    }
    let done = alice.until_over(&job).await;
    assert_eq!(done["status"], "completed", "nobody else cancelled it");
    assert_eq!(bob.get("/leads").await["total"], 0);
    assert_eq!(bob.get("/jobs").await["jobs"], json!([]));
}

#[tokio::test]
async fn a_poll_costs_nothing_while_nothing_changes_and_waits_on_request() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let (job, _) = visitor.create("leads.csv", 100).await;
    let first = visitor.request(Method::GET, &job).send().await.expect("answered");
    let etag = first.headers()[header::ETAG].to_str().expect("text").to_owned();
    let poll = async |query: &str| {
        let begun = Instant::now();
        let request =
            visitor.request(Method::GET, &format!("{job}{query}")).header(header::IF_NONE_MATCH, &etag);
        (request.send().await.expect("answered").status(), begun.elapsed())
    };
    assert_eq!(poll("").await.0, StatusCode::NOT_MODIFIED);
    let (status, took) = poll("?wait=1").await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    let changing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        visitor.post(&format!("{job}/cancel"), &json!({})).await;
    };
    let ((status, took), ()) = tokio::join!(poll("?wait=20"), changing);
    assert_eq!(status, StatusCode::OK);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_job_that_is_over_is_erased_on_request() {
    let server = Server::start(&["--batch-delay", "300ms"]).await;
    let (visitor, other) = (server.visitor(), server.visitor());
    let job = visitor.upload("leads-100.csv", leads_100()).await;
    let delete = async |visitor: &e2e::Visitor| {
        visitor.request(Method::DELETE, &job).send().await.expect("answered").status()
    };
    assert_eq!(delete(&visitor).await, StatusCode::CONFLICT, "it runs");
    visitor.until_over(&job).await;
    assert_eq!(delete(&other).await, StatusCode::NOT_FOUND, "not theirs");
    assert_eq!(delete(&visitor).await, StatusCode::NO_CONTENT);
    assert_eq!(delete(&visitor).await, StatusCode::NOT_FOUND, "erased");
    assert_eq!(visitor.get("/jobs").await["jobs"], json!([]));
    assert_eq!(visitor.get("/leads").await["total"], 100, "the leads are no part of the job");
}

#[tokio::test]
async fn a_retried_creation_finds_its_job() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    visitor.get("/jobs").await;
    let create = async |size: u64| {
        let body = json!({"file_name": "leads.csv", "size": size, "content_type": "text/csv"});
        let request = visitor.request(Method::POST, "/jobs").header("Idempotency-Key", "one").json(&body);
        let response = request.send().await.expect("answered");
        let location = response.headers().get(header::LOCATION).map(|l| l.to_str().expect("text").to_owned());
        (response.status(), location, response.json::<Value>().await.expect("JSON"))
    };
    let (status, location, created) = create(10).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(location, Some(format!("/jobs/{}", created["job"]["id"].as_str().expect("text"))));
    assert_eq!(create(10).await.2["job"]["id"], created["job"]["id"]);
    let (status, _, problem) = create(11).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency-key-reused"))
    );
}

#[tokio::test]
async fn failed_rows_are_listed_and_downloaded_as_text() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let job = visitor.upload("leads.csv", b"Name,Notes\nAda,x\n,=HYPERLINK(1)\nBob,y\n".to_vec()).await;
    let done = visitor.until_over(&job).await;
    assert_eq!((&done["status"], &done["outcome"]), (&json!("completed"), &json!("partial")));
    assert_eq!(done["progress"]["items"], json!({"total": 3, "processed": 2, "failed": 1}));
    let errors = visitor.get(&format!("{job}/errors")).await;
    assert_eq!(errors["errors"][0]["item"], 2, "{errors}");
    assert_eq!(errors["errors"][0]["code"], "lead-unusable");
    let request = visitor.request(Method::GET, &format!("{job}/errors")).header(header::ACCEPT, "text/csv");
    let response = request.send().await.expect("answered");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/csv; charset=utf-8");
    let csv = response.text().await.expect("text");
    let (columns, row) = csv.split_once('\n').expect("two lines");
    assert!(columns.ends_with("line,batch,item,code,message"), "{csv}");
    assert!(row.contains(",0,2,lead-unusable,"), "{csv}");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    for body in [
        json!({}),
        json!({"file_name": "", "size": 1}),
        json!({"file_name": "x".repeat(256), "size": 1}),
        json!({"file_name": "a\u{0}b", "size": 1}),
        json!({"file_name": "a.csv", "size": -1}),
        json!({"file_name": "a.csv", "size": 1, "kind": "x".repeat(65)}),
    ] {
        let (status, problem) = visitor.post("/jobs", &body).await;
        assert!(status.is_client_error(), "{body}");
        assert_eq!(problem["type"], "invalid-request");
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()));
    }
    for path in [
        "/jobs?limit=0",
        "/jobs?status=nonsense",
        "/jobs?cursor=nonsense",
        "/leads?page=0",
        "/leads?sort=nonsense",
        &format!("/leads?q={}", "a".repeat(101)),
    ] {
        let refused = visitor.request(Method::GET, path).send().await.expect("answered");
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(
        visitor.get("/jobs?status=&limit=&cursor=").await["jobs"],
        json!([]),
        "empty fields are absent ones"
    );
    assert_eq!(visitor.get("/leads?page=&per_page=&sort=&q=").await["total"], 0);
    let huge =
        visitor.request(Method::POST, "/jobs").body(vec![b' '; 100_000]).send().await.expect("answered");
    assert!(huge.status().is_client_error());
}

#[tokio::test]
async fn the_interface_describes_itself_and_is_healthy() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let description = visitor.get("/openapi.json").await;
    for path in [
        "/jobs",
        "/jobs/{id}",
        "/jobs/{id}/events",
        "/jobs/{id}/cancel",
        "/jobs/{id}/errors",
        "/jobs/{id}/history",
    ] {
        assert!(description["paths"].get(path).is_some(), "{path}");
    }
    let health = visitor.request(Method::GET, "/healthz").send().await.expect("answered");
    assert_eq!(health.status(), StatusCode::OK);
    let page = visitor.request(Method::GET, "/").send().await.expect("answered");
    assert!(
        page.headers()["content-security-policy"].to_str().expect("text").starts_with("default-src 'self'")
    );
    let script = visitor.request(Method::GET, "/job-status.js").send().await.expect("answered");
    assert_eq!(script.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
}

#[tokio::test]
async fn a_hundred_thousand_rows_go_through_while_the_page_answers() {
    let server = Server::start(&[]).await;
    let visitor = server.visitor();
    let job = visitor.upload("many.csv", many_leads(100_000)).await;
    let mut slowest = Duration::ZERO;
    let done = loop {
        let begun = Instant::now();
        let snapshot = visitor.get(&job).await;
        slowest = slowest.max(begun.elapsed());
        if snapshot["status"] != "processing" && snapshot["status"] != "uploaded" {
            break snapshot;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(done["progress"]["batches"]["completed"], 10_000, "{done}");
    assert_eq!(visitor.get("/leads?per_page=1").await["total"], 100_000);
    assert!(slowest < Duration::from_secs(2), "the slowest answer took {slowest:?}");
}
