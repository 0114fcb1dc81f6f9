//! The Lambdas' packages: `bootstrap` in a zip, as small as what is deployed should be; and the template that deploys them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    process::Command,
};

use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{cargo, root, run, skipped, target, tools};

const NAMES: [&str; 2] = ["splitter", "caller"];
/// A package is loaded at every cold start.
const MAX_PACKAGE_BYTES: u64 = 6_000_000;
/// The release whose caller works beside today's in the tests: its sources are in `tests/data/releases`.
const RELEASE: &str = "0.1.0";
/// The PyPI package that knows CloudFormation's rules.
const CFN_LINT: &str = "cfn-lint==1.58.0";

/// Where the packages are.
pub(crate) fn folder() -> PathBuf {
    target().join("lambdas")
}

/// Builds and packs both, and says how large they are.
pub(crate) fn build() -> bool {
    let packages = NAMES.iter().flat_map(|name| ["--package", name]);
    let mut building = cargo(&["build", "--profile", "lambda", "--bins"]);
    run("the Lambdas", building.args(packages)) && NAMES.into_iter().all(|name| pack(name, name))
}

/// Builds and packs the caller of an earlier release, `caller-0.1.0.zip`.
///
/// It shares our target folder, our versions and our profile, so that only its own crates are compiled. Its
/// splitter is named, and not built, since it brings in the features that our own build has.
pub(crate) fn build_release() -> bool {
    let program = format!("caller-{}", RELEASE.replace('.', "-"));
    let folder = match unpacked_release() {
        Ok(folder) => folder,
        Err(why) => {
            eprintln!("── release {RELEASE} could not be unpacked: {why}");
            return false;
        }
    };
    let mut building = cargo(&["build", "--profile", "lambda", "-p", "caller", "-p", "splitter", "--bin"]);
    building.arg(&program).current_dir(folder).env("CARGO_TARGET_DIR", root().join(target()));
    run(&format!("the caller of release {RELEASE}"), &mut building)
        && pack(&format!("caller-{RELEASE}"), &program)
}

fn unpacked_release() -> Result<PathBuf, String> {
    let archive = root().join(format!("tests/data/releases/{RELEASE}.tar.gz"));
    let releases = root().join(target()).join("releases");
    fs::create_dir_all(&releases).map_err(|error| error.to_string())?;
    tools::output(Command::new("tar").arg("xzf").arg(archive).current_dir(&releases))?;
    let folder = releases.join(RELEASE);
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).map_err(|error| error.to_string())?;
    Ok(folder)
}

fn pack(name: &str, program: &str) -> bool {
    match packed(name, program) {
        Ok(bytes) => {
            println!("── {}: {bytes} bytes", package(name).display());
            if bytes > MAX_PACKAGE_BYTES {
                eprintln!("── that is more than {MAX_PACKAGE_BYTES}");
            }
            bytes <= MAX_PACKAGE_BYTES
        }
        Err(error) => {
            eprintln!("── {name} could not be packed: {error}");
            false
        }
    }
}

fn packed(name: &str, program: &str) -> io::Result<u64> {
    fs::create_dir_all(folder())?;
    let mut zip = ZipWriter::new(File::create(package(name))?);
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(9));
    zip.start_file("bootstrap", options)?;
    zip.write_all(&fs::read(target().join("lambda").join(program))?)?;
    Ok(zip.finish()?.metadata()?.len())
}

fn package(name: &str) -> PathBuf {
    folder().join(format!("{name}.zip"))
}

/// Whether CloudFormation would take `examples/template.yaml`.
pub(crate) fn check_template() -> bool {
    match tools::python_program("cfn-lint", &[CFN_LINT]) {
        Ok(program) => run("the template", Command::new(program).arg(root().join("examples/template.yaml"))),
        Err(why) => skipped("the template's check", &why),
    }
}
