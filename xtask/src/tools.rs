//! What tests need beyond cargo: fetched into `target/tools`, once.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::root;

/// The npm package that carries AWS's DynamoDB Local.
const PACKAGE: &str = "amplify-dynamodb-simulator@2.9.30";

/// The PyPI packages that stand in for S3, SQS, Lambda and CloudFormation, with AWS's own translator of SAM templates.
const MINISTACK: [&str; 2] = ["ministack==1.5.33", "aws-sam-translator==1.115.0"];

/// The npm package that knows what is wrong with a page for those who cannot see it.
const AXE: &str = "axe-core@4.14.1";

/// A server that tests need; ends when dropped.
pub(crate) struct Running {
    child: Child,
    port: u16,
}

/// AWS's DynamoDB Local, in memory.
pub(crate) struct DynamoDbLocal;

/// MiniStack: functions run as plain processes, without Docker.
pub(crate) struct MiniStack;

impl MiniStack {
    /// Fetches it into an environment of its own if need be, and starts it.
    pub(crate) fn start() -> Result<Running, String> {
        let program = python_program("ministack", &MINISTACK)?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.env("GATEWAY_PORT", port.to_string()).env("BIND_HOST", "127.0.0.1");
        // Where the functions find what they call AWS.
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
        command.current_dir(root().join("target/tools"));
        Running::start("MiniStack", port, &mut command)
    }
}

/// Chromium's driver, from Debian's packages.
pub(crate) struct Chromedriver;

impl Chromedriver {
    /// Installs both if need be, and starts the driver.
    pub(crate) fn start() -> Result<Running, String> {
        have("chromium", &["--version"], "chromium")?;
        have("chromedriver", &["--version"], "chromium-driver")?;
        let port = free_port()?;
        Running::start("chromedriver", port, Command::new("chromedriver").arg(format!("--port={port}")))
    }
}

/// The script of axe-core, fetched if need be.
pub(crate) fn axe() -> Result<PathBuf, String> {
    Ok(npm_package("axe-core", AXE)?.join("axe.min.js"))
}

/// The folder of an npm package, fetched if need be.
fn npm_package(name: &str, package: &str) -> Result<PathBuf, String> {
    let folder = root().join("target/tools").join(name);
    let unpacked = folder.join("package");
    if !unpacked.exists() {
        have("npm", &["--version"], "npm")?;
        println!("── fetching {package} from npm");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let packed = output(Command::new("npm").args(["pack", "--silent", package]).current_dir(&folder))?;
        output(Command::new("tar").args(["xzf", packed.trim()]).current_dir(&folder))?;
    }
    Ok(unpacked)
}

impl Running {
    fn start(name: &str, port: u16, command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { child: child.map_err(|error| format!("{name}: {error}"))?, port };
        for _ in 0..300 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                println!("── {name} listens on {}", server.url());
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err(format!("{name} does not listen after 30 s"))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl DynamoDbLocal {
    /// Fetches it if need be, and starts it.
    pub(crate) fn start() -> Result<Running, String> {
        have("java", &["-version"], "default-jre-headless")?;
        let emulator = npm_package("dynamodb-local", PACKAGE)?.join("emulator");
        let port = free_port()?;
        let mut command = Command::new("java");
        command
            .args([
                "-Djava.library.path=DynamoDBLocal_lib",
                "-jar",
                "DynamoDBLocal.jar",
                "-inMemory",
                // One set of tables for all credentials: the functions have a role's, the tests their own.
                "-sharedDb",
                "-port",
            ])
            .arg(port.to_string())
            .current_dir(&emulator);
        Running::start("DynamoDB Local", port, &mut command)
    }
}

/// A program of PyPI packages, fetched into an environment of its own if need be.
pub(crate) fn python_program(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = root().join("target/tools").join(name);
    let program = folder.join("bin").join(name);
    if !program.exists() {
        have("python3", &["-c", "import venv, ensurepip"], "python3-venv")?;
        println!("── fetching {} from PyPI", packages.join(" and "));
        output(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        output(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(packages))?;
    }
    Ok(program)
}

fn free_port() -> Result<u16, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| error.to_string())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sees to it that a program is there; Debian's package is installed where that is possible.
pub(crate) fn have(program: &str, version: &[&str], package: &str) -> Result<(), String> {
    let works = || output(Command::new(program).args(version)).is_ok();
    if works() {
        return Ok(());
    }
    println!("── installing {package} with apt-get, for {program}");
    let _ = output(Command::new("apt-get").args(["update", "-qq"]));
    let installed =
        output(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]));
    if works() {
        Ok(())
    } else {
        Err(format!("there is no {program}: {}", installed.err().unwrap_or_default()))
    }
}

/// What a program prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
