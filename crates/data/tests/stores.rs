//! Files by alias and key: what can be named, what is found, and that a table is the same wherever it lies.

#[path = "support/flaky.rs"]
mod flaky;
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use clientele_data::duplicates::{Fingerprints, find_duplicates};
use clientele_data::input::{expand as expand_paths, expand_in};
use clientele_data::manifest::SHARD_ROWS;
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::{
    Change, DataError, ErrorKind, Folder, Location, Manifest, ShardId, Stores, TableSpec,
};
use flaky::Flaky;
use support::*;

fn location(text: &str) -> Location {
    text.parse().unwrap()
}

fn with_object_store(store: &Flaky) -> Stores {
    let stores = Stores::default();
    stores
        .with_object_store("data", Arc::new(store.clone()), "team/a")
        .unwrap()
}

/// Calls `check` with stores called `data` on a disk, in memory, and in memory where 30 of 100 calls fail.
fn everywhere(check: impl Fn(&Stores)) {
    let disk = tempfile::tempdir().unwrap();
    check(&Stores::default().with_local("data", disk.path()).unwrap());
    check(&with_object_store(&Flaky::new(0)));
    let flaky = Flaky::new(30);
    check(&with_object_store(&flaky));
    assert!(flaky.n_failed() > 0, "no fault has fired");
}

fn root(stores: &Stores) -> Folder {
    stores.folder(&location("data:")).unwrap()
}

#[test]
fn stores_are_parsed_or_refused_with_a_reason() {
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().display();
    let parse = |texts: &[String]| Stores::parse(texts);
    let stores = parse(&[format!("local={path}"), format!("b-2={path}")]).unwrap();
    assert_eq!(stores.aliases().collect::<Vec<_>>(), ["b-2", "local"]);
    assert_eq!(parse(&[]).unwrap().aliases().collect::<Vec<_>>(), ["local"]);
    for (texts, reason) in [
        (vec![format!("{path}")], "it has no `=`"),
        (
            vec![format!("Lake={path}")],
            "names are 1 to 64 lowercase letters",
        ),
        (
            vec![format!("a={path}"), format!("a={path}")],
            "given twice",
        ),
        (vec![format!("a={path}/none")], "No such file"),
        (
            vec!["a=gs://bucket".to_owned()],
            "only local folders and s3://",
        ),
        (vec!["a=s3://".to_owned()], "names no bucket"),
        (vec!["a=s3:///x".to_owned()], "names no bucket"),
    ] {
        let refused = parse(&texts).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Usage);
    }
}

#[test]
fn paths_below_the_local_store_have_a_location_and_others_a_way_out() {
    let disk = tempfile::tempdir().unwrap();
    let folder = disk.path().canonicalize().unwrap();
    fs::create_dir_all(folder.join("in/tables")).unwrap();
    let stores = Stores::default()
        .with_local("local", &folder.join("in"))
        .unwrap();
    let stores = with_alias(&stores, "lake");
    let locate = |text: &str| stores.locate(text).map(|found| found.to_string());
    let path = |below: &str| folder.join(below).display().to_string();
    for (text, found) in [
        (path("in"), "local:"),
        (path("in/tables"), "local:tables"),
        (path("in/tables/*.parquet"), "local:tables/*.parquet"),
        (path("in/new/run"), "local:new/run"),
        (path("in/tables/../new"), "local:new"),
        ("lake:a/*.parquet".to_owned(), "lake:a/*.parquet"),
        ("local:tables".to_owned(), "local:tables"),
    ] {
        assert_eq!(locate(&text).unwrap(), found, "{text}");
    }
    for text in [
        path("out.parquet"),
        path("in/../out"),
        path("in/none/../../../x"),
        "/".to_owned(),
    ] {
        let refused = locate(&text).unwrap_err();
        assert!(
            matches!(refused, DataError::OutsideStores { .. }),
            "{refused}"
        );
        assert!(
            refused.hint().unwrap().contains("--store local="),
            "{refused}"
        );
    }
    let refused = locate("laek:a").unwrap_err();
    assert_eq!(refused.to_string(), "there is no store `laek`");
    assert!(refused.hint().unwrap().contains("there is lake, local"));
    let none = Stores::default().locate("x.parquet").unwrap_err();
    assert!(none.hint().unwrap().contains("alias:key"));
}

fn with_alias(stores: &Stores, alias: &str) -> Stores {
    stores
        .with_object_store(alias, Arc::new(Flaky::new(0)), "")
        .unwrap()
}

#[test]
fn names_are_expanded_alike_in_every_store() {
    everywhere(|stores| {
        let folder = root(stores);
        for name in [
            "t/b.parquet",
            "t/a.parquet",
            "t/x/bucket=3/c.PARQUET",
            "t/notes.txt",
            "t/_SUCCESS.parquet",
            "t/.hidden/d.parquet",
            "t/_work/e.parquet",
            "tt/z.parquet",
            "odd/a[1].parquet",
            "empty/notes.txt",
        ] {
            folder.write(name, b"").unwrap();
        }
        let expand = |inputs: &[&str]| {
            let inputs: Vec<Location> = inputs.iter().map(|text| location(text)).collect();
            let found = expand_in(stores, &inputs)?;
            Ok::<_, DataError>(
                found
                    .iter()
                    .map(|file| file.key().to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let of_t = ["t/a.parquet", "t/b.parquet", "t/x/bucket=3/c.PARQUET"];
        let found = |inputs: &[&str]| {
            let found = expand(inputs).unwrap();
            if let Some(root) = folder.local_path() {
                let below = |key: &&str| format!("{}/{}", root.display(), &key["data:".len()..]);
                let paths: Vec<String> = inputs.iter().map(below).collect();
                let expected: Vec<_> = found.iter().map(|key| root.join(key)).collect();
                assert_eq!(
                    expand_paths(&paths).unwrap(),
                    expected,
                    "as for plain paths"
                );
            }
            found
        };
        assert_eq!(found(&["data:t"]), of_t);
        assert_eq!(expand(&["data:t/**"]).unwrap(), of_t, "the folder");
        assert_eq!(found(&["data:t/?.parquet"]), of_t[..2]);
        assert_eq!(found(&["data:t/[ab]*"]), of_t[..2]);
        assert_eq!(found(&["data:t/x*"]), of_t[2..], "a folder that matches");
        assert_eq!(found(&["data:t/**/c.*"]), of_t[2..]);
        assert_eq!(
            found(&["data:t*/[az].parquet"]),
            ["t/a.parquet", "tt/z.parquet"]
        );
        assert_eq!(
            found(&["data:t/*.txt"]),
            ["t/notes.txt"],
            "a pattern says what it means"
        );
        assert_eq!(found(&["data:odd/a[1].parquet"]), ["odd/a[1].parquet"]);
        let thrice = found(&["data:t/b.parquet", "data:t/*.parquet", "data:t"]);
        assert_eq!(
            thrice[0], "t/_SUCCESS.parquet",
            "a pattern says what it means"
        );
        assert_eq!(thrice[1..], of_t, "each once");
        assert_eq!(found(&["data:"]).len(), 5);
        assert!(matches!(
            expand(&["data:no.parquet"]),
            Err(DataError::NoSuchFile { .. })
        ));
        assert!(matches!(
            expand(&["data:empty"]),
            Err(DataError::EmptyFolder { .. })
        ));
        assert!(matches!(
            expand(&["data:*.parquet"]),
            Err(DataError::GlobWithoutMatch { .. })
        ));
        assert!(matches!(
            expand(&["data:t/a["]),
            Err(DataError::BadGlob { .. })
        ));
        assert!(matches!(
            expand(&["else:t"]),
            Err(DataError::UnknownStore { .. })
        ));
        assert!(matches!(expand(&[]), Err(DataError::NoInputs)));
    });
}

fn customers(n_rows: i64) -> Table {
    vec![
        ("id", ints(0..n_rows)),
        (
            "spend",
            floats((0..n_rows).map(|i| (i % 7 != 0).then_some((i as f64).sqrt()))),
        ),
        ("visits", ints((0..n_rows).map(|i| i * i % 1_000))),
    ]
}

fn spec_of(inputs: &[&str]) -> TableSpec {
    TableSpec {
        inputs: inputs.iter().map(ToString::to_string).collect(),
        value: Some("spend".to_owned()),
        ..spec(Path::new(""))
    }
}

fn upload(stores: &Stores, path: &Path, name: &str) {
    root(stores).write(name, &fs::read(path).unwrap()).unwrap();
}

fn all_blocks(manifest: &Manifest) -> Result<Vec<String>, DataError> {
    let mut blocks = Vec::new();
    for shard in (0..manifest.n_shards()).map(ShardId) {
        let all = Projection::all(manifest);
        read_shard(manifest, shard, &all, &mut |raw: &mut RawBlock| {
            let hash = blake3::hash(format!("{raw:?}").as_bytes());
            blocks.push(format!("{:?} {} {hash}", raw.id, raw.n_rows));
            Ok::<_, DataError>(())
        })?;
    }
    Ok(blocks)
}

#[test]
fn a_table_is_the_same_wherever_it_lies() {
    let disk = tempfile::tempdir().unwrap();
    let (a, b) = (disk.path().join("a.parquet"), disk.path().join("b.parquet"));
    write(&a, &customers(200_000), 70_000);
    write(&b, &customers(3_000), 1_000);
    let mut local = spec_of(&[]);
    local.inputs = vec![disk.path().display().to_string()];
    let local = Manifest::plan(&local).unwrap();
    let expected = all_blocks(&local).unwrap();
    everywhere(|stores| {
        upload(stores, &a, "t/a.parquet");
        upload(stores, &b, "t/b.parquet");
        let manifest = Manifest::plan_in(&spec_of(&["data:t"]), stores).unwrap();
        assert_eq!(all_blocks(&manifest).unwrap(), expected);
        assert_eq!(
            manifest.describe_shard(ShardId(0)),
            "row group 0 of `data:t/a.parquet`"
        );
        // As it comes to a worker.
        let json = serde_json::to_string(&manifest).unwrap();
        assert!(json.contains(r#""location":"data:t/a.parquet""#), "{json}");
        let there: Manifest = serde_json::from_str(&json).unwrap();
        assert_eq!(there, manifest);
        assert!(matches!(
            all_blocks(&there),
            Err(DataError::UnknownStore { .. })
        ));
        assert_eq!(
            all_blocks(&there.attach(stores).unwrap()).unwrap(),
            expected
        );
    });
    let json = serde_json::to_string(&local).unwrap();
    assert!(
        json.contains(r#""path":""#) && !json.contains("etag"),
        "{json}"
    );
}

#[test]
fn a_manifest_from_elsewhere_names_no_paths() {
    let (_folder, manifest) = plan(&customers(10), |_| {});
    let refused = manifest
        .unwrap()
        .attach(&Stores::parse(&[]).unwrap())
        .unwrap_err();
    assert!(
        matches!(refused, DataError::OutsideStores { .. }),
        "{refused}"
    );
}

#[test]
fn few_questions_are_asked_of_a_store() {
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("a.parquet");
    // Two shards in one row group of 10 MiB or so, and a footer beyond the first 64 KiB.
    let n_rows = SHARD_ROWS as i64 + 100_000;
    let mut table = customers(n_rows);
    let mixed = |seed: u64| move |i: i64| Some((i as u64).wrapping_mul(seed) as f64);
    table.push((
        "noise",
        floats((0..n_rows).map(mixed(0x9e37_79b9_7f4a_7c15))),
    ));
    write(&path, &table, n_rows as usize);
    let store = Flaky::new(0);
    let stores = with_object_store(&store);
    upload(&stores, &path, "a.parquet");
    let before = store.n_gets();
    let manifest = Manifest::plan_in(&spec_of(&["data:a.parquet"]), &stores).unwrap();
    assert_eq!(store.n_gets() - before, 2, "its size, and its end");
    assert_eq!(manifest.n_shards(), 2);
    let before = store.n_gets();
    let blocks = all_blocks(&manifest).unwrap();
    assert_eq!(blocks.len(), 6);
    let size_bytes = fs::metadata(&path).unwrap().len();
    let n_parts = size_bytes.div_ceil(8 << 20);
    assert!(n_parts > 1, "pages lie across parts");
    assert!(
        store.n_gets() - before <= 2 * (1 + n_parts),
        "{}",
        store.n_gets() - before
    );
}

#[test]
fn a_footer_larger_than_the_first_guess_is_read() {
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("a.parquet");
    write(&path, &customers(3_000), 3);
    let store = Flaky::new(0);
    let stores = with_object_store(&store);
    upload(&stores, &path, "a.parquet");
    let before = store.n_gets();
    let manifest = Manifest::plan_in(&spec_of(&["data:a.parquet"]), &stores).unwrap();
    assert_eq!((manifest.n_rows(), store.n_gets() - before), (3_000, 3));
}

#[test]
fn an_object_that_was_replaced_ends_the_run() {
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("a.parquet");
    write(&path, &customers(1_000), 1_000);
    let stores = with_object_store(&Flaky::new(0));
    upload(&stores, &path, "a.parquet");
    let manifest = Manifest::plan_in(&spec_of(&["data:a.parquet"]), &stores).unwrap();
    all_blocks(&manifest).unwrap();
    // The same bytes: only the version differs.
    upload(&stores, &path, "a.parquet");
    let changed = |change| {
        let error = all_blocks(&manifest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
        let found = matches!(&error, DataError::InputChanged { source, .. } if *source == change);
        assert!(found, "{error}: {:?}", std::error::Error::source(&error));
    };
    changed(Change::Replaced);
    root(&stores).remove("a.parquet").unwrap();
    changed(Change::Gone);
}

#[test]
fn an_object_replaced_while_it_is_read_ends_the_run() {
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("a.parquet");
    write(&path, &customers(1_000), 500);
    let stores = with_object_store(&Flaky::new(0));
    upload(&stores, &path, "a.parquet");
    let manifest = Manifest::plan_in(&spec_of(&["data:a.parquet"]), &stores).unwrap();
    let all = Projection::all(&manifest);
    let error = read_shard(&manifest, ShardId(0), &all, &mut |_: &mut RawBlock| {
        upload(&stores, &path, "a.parquet");
        Ok::<_, DataError>(())
    });
    let error = error.unwrap_err();
    assert!(matches!(error, DataError::InputChanged { .. }), "{error}");
}

#[test]
fn bad_objects_are_listed_and_silent_stores_are_not_bad_files() {
    let store = Flaky::new(0);
    let stores = with_object_store(&store);
    root(&stores).write("t/empty.parquet", b"").unwrap();
    root(&stores)
        .write("t/text.parquet", b"this is no parquet file")
        .unwrap();
    let error = Manifest::plan_in(&spec_of(&["data:t"]), &stores).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("`data:t/empty.parquet`: size_bytes=0 is too small"),
        "{words}"
    );
    assert!(
        words.contains("`data:t/text.parquet`: it is not Parquet"),
        "{words}"
    );
    let silent = with_object_store(&Flaky::new(100));
    let error = Manifest::plan_in(&spec_of(&["data:t"]), &silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[test]
fn duplicates_are_found_in_every_store() {
    let spill = tempfile::tempdir().unwrap();
    let print = |i: u64| {
        let hash = blake3::hash(&i.to_le_bytes());
        u128::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
    };
    let mut answers = Vec::new();
    let answers_cell = std::sync::Mutex::new(&mut answers);
    everywhere(|stores| {
        let work_dir = root(stores);
        for (shard, ids) in [(0, 0..500), (1, 490..700), (2, 0..0)] {
            let prints: Vec<u128> = ids.map(print).collect();
            let prints = Fingerprints::of_blocks(&[prints]);
            let written = prints.write(&work_dir, spill.path(), ShardId(shard));
            written.unwrap();
        }
        for n_ranges in [1, 3, 100] {
            let mut found = clientele_data::duplicates::Duplicates::default();
            for range_idx in 0..n_ranges {
                found.merge(find_duplicates(&work_dir, 3, range_idx, n_ranges).unwrap());
            }
            assert_eq!(found.n_surplus, 10);
            answers_cell.lock().unwrap().push(found.examples);
        }
    });
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_out_of_a_store_is_refused() {
    use std::os::unix::fs::symlink;
    let disk = tempfile::tempdir().unwrap();
    let (inside, outside) = (disk.path().join("in"), disk.path().join("out"));
    fs::create_dir_all(inside.join("t")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    write(&outside.join("a.parquet"), &customers(10), 10);
    write(&inside.join("t/own.parquet"), &customers(10), 10);
    let stores = Stores::default().with_local("data", &inside).unwrap();
    let plan = |input: &str| Manifest::plan_in(&spec_of(&[input]), &stores);
    symlink(inside.join("t/own.parquet"), inside.join("alias.parquet")).unwrap();
    plan("data:alias.parquet").expect("a link within the store is none out of it");
    symlink(outside.join("a.parquet"), inside.join("t/link.parquet")).unwrap();
    symlink(&outside, inside.join("folder")).unwrap();
    for input in [
        "data:t/link.parquet",
        "data:t",
        "data:folder",
        "data:folder/a.parquet",
    ] {
        let refused = plan(input).unwrap_err();
        assert!(
            matches!(refused, DataError::LeavesStore { .. }),
            "{input}: {refused}"
        );
        assert_eq!(refused.kind(), ErrorKind::Auth);
    }
    let run = stores.folder(&location("data:run")).unwrap();
    symlink(&outside, inside.join("run")).unwrap();
    assert!(matches!(
        run.write("x", b""),
        Err(DataError::LeavesStore { .. })
    ));
    assert!(matches!(
        run.read("a.parquet"),
        Err(DataError::LeavesStore { .. })
    ));
    let refused = stores.folder(&location("data:run/new"));
    assert!(matches!(refused, Err(DataError::LeavesStore { .. })));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A file that becomes a link after it was planned.
    let manifest = plan("data:t/own.parquet").unwrap();
    fs::remove_file(inside.join("t/own.parquet")).unwrap();
    symlink(outside.join("a.parquet"), inside.join("t/own.parquet")).unwrap();
    assert!(matches!(
        all_blocks(&manifest),
        Err(DataError::LeavesStore { .. })
    ));
}
