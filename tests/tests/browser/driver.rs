//! A browser of a test's own.

use std::{
    env, fs,
    future::Future,
    panic,
    path::PathBuf,
    time::{Duration, Instant},
};

use e2e::PATIENCE;
use serde_json::{Value, json};
use thirtyfour::{By, ChromiumLikeCapabilities, DesiredCapabilities, WebDriver, WebElement};

/// A window of Chromium.
#[derive(Clone)]
pub(crate) struct Browser {
    driver: WebDriver,
}

/// Runs a test in a browser that ends with it, whatever becomes of the test.
pub(crate) async fn browse<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Browser) -> F) {
    let mut capabilities = DesiredCapabilities::chrome();
    capabilities
        .set_binary(&env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into()))
        .expect("set");
    for argument in [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-quic",
        "--enable-precise-memory-info",
        "--force-color-profile=srgb",
        "--lang=en-US",
    ] {
        capabilities.add_arg(argument).expect("set");
    }
    let url = env::var("CHROMEDRIVER_URL").expect("CHROMEDRIVER_URL: run this by cargo xtask test");
    let driver = WebDriver::new(url, capabilities).await.expect("a browser");
    let browser = Browser { driver: driver.clone() };
    browser.desktop().await;
    let ended = tokio::spawn(test(browser)).await;
    let _ = driver.quit().await;
    if let Err(error) = ended {
        panic::resume_unwind(error.into_panic());
    }
}

impl Browser {
    pub(crate) async fn goto(&self, url: &str) {
        self.driver.goto(url).await.expect("a page");
    }

    /// Another tab with this page; the others are in the background then.
    pub(crate) async fn tab(&self, url: &str) {
        let tab = self.driver.new_tab().await.expect("a tab");
        self.driver.switch_to_window(tab).await.expect("switched");
        self.goto(url).await;
    }

    /// Back to the first tab.
    pub(crate) async fn first_tab(&self) {
        let first = self.driver.windows().await.expect("tabs").remove(0);
        self.driver.switch_to_window(first).await.expect("switched");
    }

    /// What a script returns.
    pub(crate) async fn js(&self, script: &str) -> Value {
        let returned = self.driver.execute(script, Vec::new()).await;
        returned.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Waits until the script returns something true; that.
    pub(crate) async fn until(&self, script: &str) -> Value {
        let begun = Instant::now();
        loop {
            let value = self.js(script).await;
            if !matches!(value, Value::Null | Value::Bool(false)) && value != 0 && value != "" {
                return value;
            }
            if begun.elapsed() > PATIENCE {
                self.screenshot("stuck").await;
                panic!("never: {script}\n{}", self.js("return document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) async fn find(&self, css: &str) -> WebElement {
        self.driver.find(By::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// A command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver
            .cdp()
            .send_raw(command, parameters)
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// With these media features, such as `prefers-color-scheme`.
    pub(crate) async fn prefers(&self, features: &[(&str, &str)]) {
        let features: Vec<_> =
            features.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    pub(crate) async fn desktop(&self) {
        self.size(1_280, 800).await;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Writes `target/screenshots/NAME.png`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        let png = self.driver.screenshot_as_png().await.expect("a picture");
        fs::write(folder.join(format!("{name}.png")), png).expect("written");
    }

    /// What axe-core finds wrong with the page: rule and place.
    pub(crate) async fn axe(&self) -> Vec<String> {
        let script = fs::read_to_string(env::var("AXE").expect("AXE: run this by cargo xtask test"))
            .expect("axe-core");
        self.js(&format!(
            "{script}; window.found = null; axe.run().then((r) => (window.found = r.violations));"
        ))
        .await;
        let found = self.until("return window.found && {violations: window.found.map((v) => v.id + ' ' + v.nodes.map((n) => n.target.join(' ') + ': ' + n.failureSummary).join(' | '))}").await;
        found["violations"].as_array().expect("a list").iter().map(ToString::to_string).collect()
    }

    /// What the first indicator of the page shows.
    pub(crate) async fn shown(&self) -> Shown {
        let value = self.js(SHOWN).await;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Shown {
            there: value["there"] == true,
            label: text("label"),
            detail: text("detail"),
            error: text("error"),
            note: text("note"),
            share: text("share"),
            spoken: text("spoken"),
            cancel: value["cancel"] == true,
            dismiss: value["dismiss"] == true,
        }
    }

    /// Waits until the first indicator shows this; what it shows then.
    pub(crate) async fn until_shown(&self, what: &str, wanted: impl Fn(&Shown) -> bool) -> Shown {
        let begun = Instant::now();
        loop {
            let shown = self.shown().await;
            if wanted(&shown) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {shown:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses a button of the first indicator as a mouse does.
    pub(crate) async fn press(&self, part: &str) {
        self.js(&format!("document.querySelector('job-status').shadowRoot.querySelector('.{part}').click()"))
            .await;
    }

    /// Moves the mouse onto the first indicator, or away.
    pub(crate) async fn hover(&self, on: bool) {
        let place = if on {
            self.js("const r = document.querySelector('job-status').getBoundingClientRect(); return [r.x + 20, r.y + 20]").await
        } else {
            json!([1, 1])
        };
        self.devtools(
            "Input.dispatchMouseEvent",
            json!({"type": "mouseMoved", "x": place[0], "y": place[1]}),
        )
        .await;
    }
}

const SHOWN: &str = "
    const job = document.querySelector('job-status');
    if (!job?.shadowRoot) return {there: false}; // Not there, or its script has not come yet.
    const of = (part) => job.shadowRoot.querySelector('.' + part);
    const text = (part) => of(part).textContent;
    return {there: !job.hidden, label: text('label'), detail: text('detail'), error: text('error'), note: text('note'), share: text('share'),
        spoken: of('track').getAttribute('aria-valuetext'), cancel: !of('cancel').hidden, dismiss: !of('dismiss').hidden};";

/// What an indicator shows.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Shown {
    pub(crate) there: bool,
    pub(crate) label: String,
    pub(crate) detail: String,
    pub(crate) error: String,
    pub(crate) note: String,
    pub(crate) share: String,
    pub(crate) spoken: String,
    pub(crate) cancel: bool,
    pub(crate) dismiss: bool,
}
