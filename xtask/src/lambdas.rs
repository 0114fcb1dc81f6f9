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
    run("the Lambdas", building.args(packages)) && NAMES.into_iter().all(pack)
}

fn pack(name: &str) -> bool {
    match packed(name) {
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

fn packed(name: &str) -> io::Result<u64> {
    fs::create_dir_all(folder())?;
    let mut zip = ZipWriter::new(File::create(package(name))?);
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(9));
    zip.start_file("bootstrap", options)?;
    zip.write_all(&fs::read(target().join("lambda").join(name))?)?;
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
