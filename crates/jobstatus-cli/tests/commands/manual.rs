//! Help, completions, manual pages, and what is built.

use std::process::Command;

use crate::operator::{Ran, program};

async fn run(arguments: &[&str]) -> Ran {
    let mut command = program();
    command.args(arguments);
    Ran::of(command).await
}

#[tokio::test]
async fn help_tells_the_exit_codes() {
    let help = run(&["--help"]).await;
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    for line in [
        "1  Any other error",
        "2  Wrong usage",
        "3  `watch`: the job failed",
        "4  `watch`: the job was cancelled",
        "5  There is no such job",
        "6  The store cannot be reached",
    ] {
        assert!(help.out.contains(line), "{line}");
    }
    assert_eq!(run(&["nonsense"]).await.code, 2);
}

#[tokio::test]
async fn shells_complete_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).await;
        assert_eq!((script.code, script.err.as_str()), (0, ""), "{shell}");
        assert!(script.out.contains("missing") && script.out.contains("endpoint-url"), "{shell}");
    }
    assert_eq!(run(&["completions", "nonsense"]).await.code, 2);
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_command() {
    let page = run(&["man"]).await;
    assert!(page.code == 0 && page.out.contains(".TH jobstatus 1"), "{page:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    assert_eq!(run(&["man", &path]).await.code, 0);
    for name in ["jobstatus.1", "jobstatus-list.1", "jobstatus-watch.1"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let refused = run(&["man", &folder.path().join("none").display().to_string()]).await;
    assert!(refused.code == 2 && refused.err.contains("cannot be written"), "{refused:?}");
}

/// The tests have the feature `aws`; whoever runs the program without it builds none of this.
#[tokio::test]
async fn without_its_feature_the_program_has_no_aws_in_it() {
    let built_by = async |features: &[&str]| {
        let mut tree = Command::new(env!("CARGO"));
        tree.args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "jobstatus-cli",
            "-e",
            "normal",
            "--prefix",
            "none",
        ]);
        tree.args(features).current_dir(env!("CARGO_MANIFEST_DIR"));
        let ran = Ran::of(tree).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let is_of_aws = |line: &str| line.starts_with("aws-") || line.starts_with("status-dynamo ");
    assert!(!built_by(&[]).await.lines().any(is_of_aws));
    assert!(built_by(&["--features", "aws"]).await.lines().any(is_of_aws), "the names are right");
}
