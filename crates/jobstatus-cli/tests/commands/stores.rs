//! What is particular to one kind of store.

use std::{fs, process::Command};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::operator::{Operator, Ran, engine, program};

fn with(arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments);
    command
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_made_by_reading_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("status.db");
    let store = format!("sqlite:{}", file.display());
    let id = "0".repeat(36);
    let backup = folder.path().join("copy.db").display().to_string();
    for command in [
        &["list"][..],
        &["show", &id],
        &["watch", &id],
        &["cancel", &id],
        &["history", &id],
        &["errors", &id],
        &["missing", &id],
        &["sweep"],
        &["backup", &backup],
    ] {
        let ran = Ran::of(with(&[command, &["--store", &store]].concat())).await;
        assert!(ran.code == 6 && ran.err.contains("does not exist; name the file"), "{command:?}: {ran:?}");
        assert!(ran.err.contains(&format!("create-table --store {store}")), "{ran:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "{command:?}");
    }
    fs::write(&file, "").expect("written");
    let ran = Ran::of(with(&["list", "--store", &store])).await;
    assert!(ran.code == 6 && ran.err.contains("is empty"), "{ran:?}");
    assert_eq!(fs::read(&file).expect("readable"), b"");
    fs::write(&file, "nothing of ours").expect("written");
    let ran = Ran::of(with(&["list", "--store", &store, "--json"])).await;
    let error = ran.error();
    assert!(error["message"].as_str().expect("text").contains("is not a job status database"), "{error}");
    assert_eq!(fs::read(&file).expect("readable"), b"nothing of ours");
}

#[tokio::test]
async fn a_file_is_copied_while_it_is_in_use() {
    let operator = Operator::on_sqlite().await;
    let id = operator.job("leads.csv", 5).await;
    operator.complete(id, [0, 2]).await;
    let copy = operator.file.as_ref().expect("a file").with_file_name("copy.db").display().to_string();
    assert_eq!(operator.json(&["backup", &copy]).await, json!({"file": operator.name, "backup": copy}));
    operator.complete(id, [1]).await;
    let store = format!("sqlite:{copy}");
    let ran = Ran::of(with(&["missing", &id.to_string(), "--store", &store])).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "1\n3\n4\n"), "as it was when it was copied: {}", ran.err);
    let again = operator.run(&["backup", &copy]).await;
    assert!(again.code == 1 && again.err.contains("exists; name a file that does not"), "{again:?}");
    let refused = Operator::on_dynamodb().await.run(&["backup", &copy]).await;
    assert!(refused.code == 2 && refused.err.contains("point-in-time recovery"), "{refused:?}");
}

#[tokio::test]
async fn the_store_is_named_by_a_flag_or_by_the_environment() {
    let (file, table) = (Operator::on_sqlite().await, Operator::on_dynamodb().await);
    let on_file = file.job("file.csv", 1).await.to_string();
    let on_table = table.job("table.csv", 1).await.to_string();
    let store = format!("sqlite:{}", file.name);
    let endpoint = &table.flags[3];
    let run = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = with(&[&["list", "--endpoint-url", endpoint.as_str()], arguments].concat());
        command.envs(environment.iter().copied());
        Ran::of(command).await
    };
    for (arguments, environment, id) in [
        (&["--store", "dynamodb:jobs"][..], &[][..], &on_table),
        (&["--table", "jobs"], &[("STATUS_STORE", store.as_str())], &on_table),
        (&["--store", &store], &[("STATUS_TABLE", "jobs")], &on_file),
        (&[], &[("STATUS_STORE", store.as_str()), ("STATUS_TABLE", "jobs")], &on_file),
        (&[], &[("STATUS_TABLE", "jobs")], &on_table),
    ] {
        let ran = run(arguments, environment).await;
        assert!(ran.code == 0 && ran.out.starts_with(id), "{arguments:?} {environment:?}: {ran:?}");
    }
    for (arguments, environment, said) in [
        (&[][..], &[][..], "add --store sqlite:FILE or --table NAME"),
        (&["--store", "jobs.db"], &[], "a store is sqlite:FILE or dynamodb:TABLE"),
        (&[], &[("STATUS_STORE", "jobs.db")], "STATUS_STORE is \"jobs.db\""),
        (&["--store", &store, "--table", "jobs"], &[], "cannot be used with"),
    ] {
        let ran = run(arguments, environment).await;
        assert!(ran.code == 2 && ran.err.contains(said), "{arguments:?} {environment:?}: {ran:?}");
    }
}

#[tokio::test]
async fn what_dynamodb_lacks_is_named_with_a_remedy() {
    let endpoint = engine().await;
    let list = ["list", "--table", "none", "--endpoint-url", &endpoint];
    let ran = Ran::of(with(&list)).await;
    assert_eq!(ran.code, 6);
    for part in [
        "there is no DynamoDB table none in eu-central-1",
        &endpoint,
        "create-table --table none",
        "--region",
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    let elsewhere = Ran::of(with(&[&list[..], &["--region", "eu-west-1"]].concat())).await;
    assert!(elsewhere.err.contains("in eu-west-1"), "{elsewhere:?}");
    let mut command = with(&list);
    command.env_remove("AWS_REGION").env("AWS_CONFIG_FILE", "/dev/null");
    let ran = Ran::of(command).await;
    assert!(ran.code == 2 && ran.err.contains("add --region REGION or set AWS_REGION"), "{ran:?}");
    let mut command = with(&list);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("HOME", "/nowhere");
    let ran = Ran::of(command).await;
    assert!(ran.code == 6 && ran.err.contains("no AWS credentials were found"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_job_is_named_and_hides_no_other() {
    let operator = Operator::on_dynamodb().await;
    let (damaged, sound) = (operator.job("a.csv", 2).await, operator.job("b.csv", 2).await);
    let text = |text: &str| AttributeValue::S(text.into());
    let client = operator.client.as_ref().expect("a client");
    let harm = client.update_item().table_name("jobs").update_expression("SET job = :job");
    let harm = harm.key("pk", text(&damaged.to_string())).key("sk", text("job"));
    harm.expression_attribute_values(":job", text("nonsense")).send().await.expect("written");
    for owner in [&["--owner", "alice"][..], &[]] {
        let listed = operator.json(&[&["list"], owner].concat()).await;
        let ids: Vec<_> = listed["jobs"].as_array().expect("a list").iter().map(|job| &job["id"]).collect();
        assert_eq!(ids, [&json!(sound)], "{owner:?}");
        let named = listed["damaged"][0]["subject"].as_str().expect("text");
        assert!(named.contains(&damaged.to_string()), "{owner:?}: {listed}");
        let ran = operator.run(&[&["list"], owner].concat()).await;
        assert!(ran.code == 0 && ran.out.contains("b.csv") && !ran.out.contains("nonsense"), "{ran:?}");
        assert!(ran.err.contains(&damaged.to_string()) && ran.err.contains("cannot be read"), "{ran:?}");
    }
    let ran = operator.run(&["show", &damaged.to_string()]).await;
    assert!(ran.code == 1 && ran.err.contains("is damaged"), "{ran:?}");
}
