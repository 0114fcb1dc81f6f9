//! What people do with the example page, over the real frontend.

use std::{
    fs,
    time::{Duration, Instant},
};

use e2e::{DeepSeek, Server, Upset, leads_100, many_leads};
use serde_json::json;

use crate::driver::{Browser, Shown, browse};

/// Chooses a file as people do.
async fn choose(browser: &Browser, folder: &tempfile::TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("written");
    browser.find("#file").await.send_keys(path.to_str().expect("UTF-8")).await.expect("chosen");
}

/// Notes every label that an indicator shows, in `window.seen`.
const NOTE_LABELS: &str = "
    window.seen = [];
    const list = document.querySelector('job-status-list');
    const watch = () => {
        for (const job of list.children) {
            const label = job.shadowRoot?.querySelector('.label');
            if (!label || label.watched) continue;
            label.watched = true;
            const note = () => label.textContent && seen.at(-1) !== label.textContent && seen.push(label.textContent);
            note();
            new MutationObserver(note).observe(label, {childList: true, characterData: true, subtree: true});
        }
    };
    new MutationObserver(watch).observe(list, {childList: true});";

async fn opened(browser: &Browser, server: &Server) -> tempfile::TempDir {
    browser.goto(&server.url()).await;
    browser.until("return customElements.get('job-status-list') && document.querySelector('#columns').children.length").await;
    browser.js(NOTE_LABELS).await;
    tempfile::tempdir().expect("a folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn choosing_a_file_shows_every_step_to_completed() {
    let server = Server::start(&["--batch-delay", "150ms"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "leads-100.csv", &leads_100()).await;
        browser.until_shown("completed", |shown| shown.label == "Completed").await;
        let seen = browser.js("return seen").await;
        assert_eq!(seen, json!(["File Uploading", "File Uploaded", "Leads Processing", "Completed"]));
        browser.until("return document.querySelector('#toast').textContent.includes('100 leads imported from leads-100.csv')").await;
        assert_eq!(browser.js("return document.querySelector('#total').textContent").await, "100");
        assert_eq!(browser.axe().await, Vec::<String>::new());
        browser.screenshot("page-completed").await;
        browser.size(360, 740).await;
        browser.screenshot("page-completed-phone").await;
        assert!(browser.js("return document.documentElement.scrollWidth <= innerWidth").await == true, "too wide for a phone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_prominent_and_blocks_nothing() {
    let server = Server::start(&["--batch-delay", "300ms", "--workers", "2"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "first.csv", &many_leads(30)).await;
        browser.until_shown("completed", |shown| shown.label == "Completed").await;
        browser.until("return document.querySelector('#total').textContent === '30'").await;
        browser.js("document.querySelector('#search').focus()").await;
        choose(&browser, &folder, "second.csv", &leads_100()).await;
        choose(&browser, &folder, "third.csv", &many_leads(200)).await;
        browser.js("document.querySelector('#search').focus()").await;
        browser.until("return document.querySelectorAll('job-status').length >= 2").await;
        browser.until_shown("batches", |shown| shown.detail.contains(" batches")).await;
        browser.screenshot("page-processing").await;
        assert_eq!(browser.axe().await, Vec::<String>::new());
        // The focus is where it was; the page can be used, and what is used is not covered.
        assert_eq!(browser.js("return document.activeElement.id").await, "search");
        let covered = "document.querySelector('#next').scrollIntoView({block: 'nearest'});
            const there = document.querySelector('#next').getBoundingClientRect();
            return document.elementFromPoint(there.x + there.width / 2, there.y + there.height / 2)?.id";
        assert_eq!(browser.js(covered).await, "next");
        browser.find("#next").await.click().await.expect("clicked");
        browser.until("return document.querySelector('#page').textContent.startsWith('2 of')").await;
        // Collapsed it is a line.
        let height = "return document.querySelector('job-status-list').getBoundingClientRect().height";
        browser
            .js("document.querySelector('job-status-list').shadowRoot.querySelector('.toggle').click()")
            .await;
        assert!(browser.js(height).await.as_f64() < Some(60.0));
        browser
            .js("document.querySelector('job-status-list').shadowRoot.querySelector('.toggle').click()")
            .await;
        browser.size(360, 740).await;
        browser.screenshot("page-processing-phone").await;
        browser.prefers(&[("prefers-color-scheme", "dark")]).await;
        browser.desktop().await;
        browser.screenshot("page-processing-dark").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_in_processing_says_cancelling_then_cancelled() {
    let server = Server::start(&["--batch-delay", "400ms", "--workers", "2"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "many.csv", &many_leads(2_000)).await;
        browser
            .until_shown("some batches", |shown| shown.cancel && shown.detail.starts_with("2 of 200"))
            .await;
        browser.press("cancel").await;
        browser.until_shown("cancelled", |shown| shown.label == "Processing Cancelled").await;
        let seen = browser.js("return seen").await;
        assert_eq!(
            seen,
            json!([
                "File Uploading",
                "File Uploaded",
                "Leads Processing",
                "Cancelling…",
                "Processing Cancelled"
            ])
        );
        browser.screenshot("page-cancelled").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_refreshes_on_completion_keeps_page_order_filter_and_scroll_and_confirms_briefly() {
    let server = Server::start(&["--batch-delay", "200ms"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "first.csv", &many_leads(100)).await;
        browser.until("return document.querySelector('#total').textContent === '100'").await;
        browser.until_shown("hidden", |shown| !shown.there).await;
        browser.js("const s = document.querySelector('#search'); s.value = 'ann'; s.dispatchEvent(new Event('input'));
            document.querySelector('[data-field=email]').click();").await;
        browser.until("return location.search.includes('sort=email') && location.search.includes('q=ann')").await;
        browser.find("#next").await.click().await.expect("clicked");
        browser.until("return document.querySelector('#page').textContent === '2 of 5'").await;
        browser.js("scrollTo(0, 150)").await;
        choose(&browser, &folder, "more.csv", &many_leads(140)).await;
        browser.until("return document.querySelector('#toast.shown')?.textContent.includes('140 leads imported')").await;
        browser.until("return document.querySelector('#total').textContent === '140'").await;
        assert_eq!(browser.js("return document.querySelector('#page').textContent").await, "2 of 7");
        assert_eq!(browser.js("return [document.querySelector('#search').value, scrollY]").await, json!(["ann", 150]));
        assert_eq!(browser.js("return document.querySelector('th[aria-sort=ascending] button').dataset.field").await, "email");
        assert!(browser.js("return document.querySelectorAll('tr.new').length").await.as_u64() > Some(0), "new leads are not marked");
        browser.until("return !document.querySelector('#toast.shown')").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_is_called_is_text_everywhere() {
    let name = "<img src=x onerror=alert(1)>.csv";
    let server = Server::start(&["--batch-delay", "100ms"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        browser.js("window.alerted = 0; window.alert = () => alerted++;").await;
        let mut csv = many_leads(5);
        csv.extend_from_slice(b"<b>x</b>,=cmd(),<script>alert(1)</script>@example.com,<img src=x onerror=alert(1)>\n");
        choose(&browser, &folder, name, &csv).await;
        browser.until("return document.querySelector('#toast').textContent.includes('<img src=x onerror=alert(1)>.csv')").await;
        let file = browser.js("return document.querySelector('job-status').shadowRoot.querySelector('.file').textContent").await;
        assert_eq!(file, name);
        browser.until("return document.querySelector('#jobs .name')?.textContent === '<img src=x onerror=alert(1)>.csv'").await;
        browser.until("return [...document.querySelectorAll('td')].some((td) => td.textContent.includes('<img src=x onerror=alert(1)>'))").await;
        assert_eq!(browser.js("return [document.querySelectorAll('img, b, td script').length, alerted]").await, json!([0, 0]));
        browser.screenshot("page-file-name").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_says_so_and_another_can_be_tried() {
    let server = Server::start(&["--max-upload-bytes", "100000"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "picture.csv", b"\x89PNG\r\n").await;
        let failed = browser.until_shown("failed", |shown| shown.label == "Processing Failed").await;
        assert_eq!(failed.error, "While reading the file: The file is not a table: it is a PNG image. Please upload a CSV or Excel file.");
        browser.screenshot("page-failed").await;
        browser.press("dismiss").await;
        choose(&browser, &folder, "large.csv", &many_leads(10_000)).await;
        let problem = browser.until("return document.querySelector('#problem').textContent").await;
        let problem = problem.as_str().expect("text");
        assert!(problem.starts_with("large.csv: ") && problem.ends_with("Try again"), "{problem}");
        choose(&browser, &folder, "good.csv", &many_leads(10)).await;
        browser.until("return document.querySelector('#toast').textContent.includes('10 leads imported')").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_a_second_tab_and_a_tab_in_the_background_follow_the_same_job() {
    let server = Server::start(&["--batch-delay", "500ms", "--workers", "2"]).await;
    browse(async move |browser| {
        let folder = opened(&browser, &server).await;
        choose(&browser, &folder, "many.csv", &many_leads(240)).await;
        browser.until_shown("batches", |shown| shown.detail.contains(" of 24 batches")).await;
        browser.tab(&server.url()).await;
        browser.until_shown("it in another tab", |shown| shown.detail.contains(" of 24 batches")).await;
        browser.first_tab().await;
        browser.js("location.reload()").await;
        browser
            .until_shown("the job again", |shown| shown.there && shown.detail.contains(" of 24 batches"))
            .await;
        browser.until("return document.querySelectorAll('job-status').length === 1").await;
        browser.until_shown("completed", |shown| shown.label == "Completed").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(browser.js("return document.querySelector('#total').textContent").await, "240");
    })
    .await;
}

/// A frontend as a process of its own, since its normaliser is set up by the environment.
struct Process {
    child: std::process::Child,
    url: String,
}

impl Process {
    fn start(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let deps = std::env::current_exe().expect("this test");
        let frontend = deps.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("frontend");
        let mut command = std::process::Command::new(frontend);
        command.args(["--listen", "127.0.0.1:0"]).args(flags).envs(environment.iter().copied());
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the frontend is built with the tests");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("it says where it is");
        let url = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Self { child, url }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_left_comes_after_thirty_seconds_is_steady_and_is_on_hold_while_the_workers_pause() {
    let deepseek = DeepSeek::serve(Duration::from_millis(400), Upset::Never).await;
    let environment = [("DEEPSEEK_API_KEY", "sk-test"), ("DEEPSEEK_BASE_URL", deepseek.url.as_str())];
    let frontend =
        Process::start(&["--normaliser", "deepseek", "--workers", "1", "--stall-after", "15s"], &environment);
    browse(async move |browser| {
        browser.goto(&frontend.url).await;
        let folder = tempfile::tempdir().expect("a folder");
        choose(&browser, &folder, "many.csv", &many_leads(3_000)).await;
        browser.until_shown("batches", |shown| shown.detail.contains(" of 300 batches")).await;
        let begun = Instant::now();
        let left = |shown: &Shown| {
            shown.detail.rsplit(" · ").find(|part| part.ends_with(" left")).map(str::to_owned)
        };
        let first = browser.until_shown("the time left", |shown| left(shown).is_some()).await;
        assert!(begun.elapsed() > Duration::from_secs(28), "{first:?} after {:?}", begun.elapsed());
        // 300 batches of 0.4 s: an estimate that is steady changes its words twice at most in fifteen seconds.
        let mut texts = vec![left(&first)];
        while begun.elapsed() < Duration::from_secs(45) {
            texts.push(left(&browser.shown().await));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        texts.dedup();
        assert!(texts.len() <= 3, "{texts:?}");
        assert!(
            texts.iter().flatten().all(|text| text.starts_with("about ") && text.contains(" minute")),
            "{texts:?}"
        );

        deepseek.pause(true);
        let stalled =
            browser.until_shown("on hold", |shown| shown.note.starts_with("No progress for a while")).await;
        let at_first = stalled.detail.clone();
        browser.screenshot("page-on-hold").await;
        tokio::time::sleep(Duration::from_secs(45)).await;
        let still = browser.shown().await;
        assert_eq!((still.detail, still.note), (at_first, stalled.note), "it does not count down");
        deepseek.pause(false);
        let resumed = Instant::now();
        let again =
            browser.until_shown("again", |shown| shown.note.is_empty() && left(shown).is_some()).await;
        assert!(resumed.elapsed() < Duration::from_secs(3), "{:?}: {again:?}", resumed.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let text = left(&browser.shown().await).expect("the time left");
        println!("before {texts:?}, after the pause {text:?}");
        assert!(
            ["about a minute left", "about 2 minutes left", "about 3 minutes left"].contains(&text.as_str()),
            "{text}"
        );
    })
    .await;
}
