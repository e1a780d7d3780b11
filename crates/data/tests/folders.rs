//! Folders and run directories promise the same on a disk and in an object store, also in one that fails.

#[expect(dead_code, reason = "calls are counted elsewhere")]
#[path = "support/flaky.rs"]
mod flaky;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clientele_data::run_dir::{self, COMMITTED, RunDir, WORK};
use clientele_data::{Created, DataError, ErrorKind, Folder, Location, Stores};
use flaky::Flaky;

fn in_flaky(store: &Flaky) -> Folder {
    let stores = Stores::default().with_object_store("lake", Arc::new(store.clone()), "team/a");
    let location: Location = "lake:runs/1".parse().unwrap();
    stores.unwrap().folder(&location).unwrap()
}

/// Calls `check` with a folder on a disk, one in a store on a disk, and one in an object store; and with a folder for spilling.
fn on_all_kinds(check: impl Fn(Folder, &Path)) {
    let disk = tempfile::tempdir().unwrap();
    check(Folder::local(disk.path().join("runs/1")), disk.path());
    let disk = tempfile::tempdir().unwrap();
    let stores = Stores::default().with_local("nfs", disk.path()).unwrap();
    let in_store = stores.folder(&"nfs:runs/1".parse().unwrap()).unwrap();
    check(in_store, disk.path());
    check(in_flaky(&Flaky::new(0)), disk.path());
}

/// As [`on_all_kinds`], and with an object store of whose calls 30 of 100 fail.
fn everywhere(check: impl Fn(Folder, &Path)) {
    on_all_kinds(&check);
    let disk = tempfile::tempdir().unwrap();
    let flaky = Flaky::new(30);
    check(in_flaky(&flaky), disk.path());
    assert!(flaky.n_failed() > 0, "no fault has fired");
}

#[test]
fn files_are_written_read_listed_and_removed() {
    everywhere(|folder, _| {
        assert_eq!(folder.list().unwrap(), Vec::<String>::new());
        assert_eq!(
            (folder.read("a").unwrap(), folder.size("a").unwrap()),
            (None, None)
        );
        folder.write("a", b"first").unwrap();
        folder.write("a", b"second").unwrap();
        let below = folder.child("x/y").unwrap();
        below.write("b", b"").unwrap();
        assert_eq!(folder.list().unwrap(), ["a", "x/y/b"]);
        assert_eq!(below.list().unwrap(), ["b"]);
        assert_eq!(folder.read("a").unwrap().unwrap(), b"second");
        assert_eq!(folder.read("x/y/b").unwrap().unwrap(), b"");
        assert_eq!(folder.size("a").unwrap(), Some(6));
        assert_eq!(folder.size("x").unwrap(), None, "a folder has no size");
        assert_eq!(folder.read_range("a", 2, 3).unwrap(), b"con");
        assert_eq!(folder.read_range("a", 2, 0).unwrap(), b"");
        assert!(folder.read_range("none", 0, 1).is_err());
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        assert_eq!(folder.list().unwrap(), ["x/y/b"]);
        folder.remove_all().unwrap();
        folder.remove_all().unwrap();
        assert_eq!(folder.list().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_range_beyond_the_end_is_an_error() {
    let disk = tempfile::tempdir().unwrap();
    for folder in [Folder::local(disk.path()), in_flaky(&Flaky::new(0))] {
        folder.write("a", b"abc").unwrap();
        let error = folder.read_range("a", 1, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    }
}

#[test]
fn large_files_arrive_whole() {
    // More than one request carries.
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|i| (i ^ (i >> 11)) as u8).collect();
    everywhere(|folder, spill_dir| {
        folder
            .write_with("big", spill_dir, |file| {
                file.write_all(&bytes)
                    .map_err(|e| DataError::io("write", "big", e))
            })
            .unwrap();
        assert_eq!(folder.size("big").unwrap(), Some(bytes.len() as u64));
        assert!(folder.read_range("big", 1, bytes.len() - 2).unwrap() == bytes[1..bytes.len() - 1]);
    });
}

#[test]
fn a_file_whose_writing_fails_is_not_there() {
    on_all_kinds(|folder, spill_dir| {
        let failed = folder.write_with("parts/a", spill_dir, |file| {
            file.write_all(b"half").unwrap();
            Err(DataError::NoInputs)
        });
        assert!(matches!(failed, Err(DataError::NoInputs)));
        assert_eq!(folder.list().unwrap(), Vec::<String>::new());
        if let Some(path) = folder.local_path() {
            assert_eq!(std::fs::read_dir(path.join("parts")).unwrap().count(), 0);
        }
    });
}

#[test]
fn of_many_that_create_a_file_one_finds_it_new() {
    everywhere(|folder, _| {
        for round in 0..10 {
            let name = format!("claims/{round}");
            let create = |who: u8| (who, folder.create_if_absent(&name, &[who]).unwrap());
            let answers: Vec<(u8, Created)> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|who| scope.spawn(move || create(who))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            let new = answers
                .iter()
                .filter(|(_, created)| *created == Created::New);
            let new: Vec<u8> = new.map(|(who, _)| *who).collect();
            assert_eq!(new.len(), 1, "{folder}: {answers:?}");
            assert_eq!(folder.read(&name).unwrap().unwrap(), new, "{folder}");
        }
    });
}

#[test]
fn a_creation_whose_answer_is_lost_is_known_by_its_bytes() {
    let flaky = Flaky::new(30);
    let folder = in_flaky(&flaky);
    for i in 0..100_u32 {
        let created = folder
            .create_if_absent(&i.to_string(), &i.to_le_bytes())
            .unwrap();
        assert_eq!(created, Created::New);
        let created = folder.create_if_absent(&i.to_string(), b"other").unwrap();
        assert_eq!(created, Created::There);
    }
}

#[test]
fn a_store_that_never_answers_is_transient_trouble_with_a_hint() {
    let error = in_flaky(&Flaky::new(100)).read("a").unwrap_err();
    assert_eq!(error.to_string(), "cannot read `lake:runs/1/a`");
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.hint().unwrap().contains("AWS_ENDPOINT_URL"));
}

#[test]
fn names_do_not_lead_out_of_the_folder() {
    on_all_kinds(|folder, _| {
        for name in [
            "../x",
            "/x",
            "",
            "a/../../x",
            "a//b",
            "./a",
            "a/.",
            "a\\b",
            "c:x",
        ] {
            let refused = folder.write(name, b"");
            assert!(matches!(refused, Err(DataError::BadName { .. })), "{name}");
            assert!(
                matches!(folder.child(name), Err(DataError::BadName { .. })),
                "{name}"
            );
            assert!(
                matches!(folder.read(name), Err(DataError::BadName { .. })),
                "{name}"
            );
        }
    });
}

fn begun(folder: &Folder) -> RunDir {
    let run = RunDir::create(folder.clone()).unwrap();
    run.write_file("model.json", b"{}").unwrap();
    run.write_file("assignments/part-00000.parquet", b"PAR1")
        .unwrap();
    run.work_dir().write("scratch", b"x").unwrap();
    run
}

#[test]
fn a_committed_run_names_every_file_and_can_be_verified() {
    everywhere(|folder, _| {
        let committed = begun(&folder).commit().unwrap();
        let names: Vec<&str> = committed.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["assignments/part-00000.parquet", "model.json"]);
        assert_eq!(run_dir::verify(folder.clone()).unwrap(), committed);
        let mut left = folder.list().unwrap();
        left.retain(|name| name != COMMITTED);
        assert_eq!(left, names, "work files and marker are gone");
        for open in [RunDir::create, RunDir::adopt, RunDir::resume] {
            let refused = open(folder.clone()).unwrap_err();
            assert!(matches!(refused, DataError::RunExists { .. }), "{refused}");
        }
        folder.write("model.json", b"[]").unwrap();
        let damaged = run_dir::verify(folder.clone()).unwrap_err();
        assert!(
            damaged.to_string().contains("its bytes are others"),
            "{damaged}"
        );
        folder.remove("model.json").unwrap();
        let damaged = run_dir::verify(folder).unwrap_err();
        assert!(damaged.to_string().contains("it is gone"), "{damaged}");
    });
}

#[test]
fn an_unfinished_run_is_cleaned_adopted_or_resumed() {
    everywhere(|folder, _| {
        drop(begun(&folder));
        assert!(matches!(
            run_dir::verify(folder.clone()),
            Err(DataError::NotCommitted { .. })
        ));
        for open in [RunDir::resume, RunDir::adopt] {
            let run = open(folder.clone()).unwrap();
            assert_eq!(folder.read("model.json").unwrap().unwrap(), b"{}");
            assert_eq!(run.work_dir().read("scratch").unwrap().unwrap(), b"x");
        }
        let run = RunDir::create(folder.clone()).unwrap();
        assert_eq!(folder.list().unwrap().len(), 1, "only the marker is left");
        assert_eq!(run.commit().unwrap().files.len(), 0);
    });
}

#[test]
fn a_run_that_is_none_is_not_resumed_and_other_files_are_left_alone() {
    everywhere(|folder, _| {
        let refused = RunDir::resume(folder.clone()).unwrap_err();
        assert!(matches!(refused, DataError::NoSuchFile { .. }), "{refused}");
        folder.write("thesis.txt", b"years of work").unwrap();
        for open in [RunDir::create, RunDir::adopt, RunDir::resume] {
            let refused = open(folder.clone()).unwrap_err();
            assert!(refused.to_string().contains("thesis.txt"), "{refused}");
            assert_eq!(refused.kind(), ErrorKind::Conflict);
        }
        assert_eq!(folder.list().unwrap(), ["thesis.txt"]);
    });
}

#[test]
fn two_that_commit_the_same_agree_and_others_are_told() {
    everywhere(|folder, _| {
        let first = begun(&folder);
        // Goes on though the first holds the lock: it cannot know whether that one is alive.
        let second = RunDir::resume(folder.clone()).unwrap();
        let committed = first.commit().unwrap();
        assert_eq!(second.commit().unwrap(), committed);
        assert_eq!(run_dir::verify(folder).unwrap(), committed);
    });
    everywhere(|folder, _| {
        let first = begun(&folder);
        let second = RunDir::resume(folder.clone()).unwrap();
        let committed = first.commit().unwrap();
        folder.write("late.json", b"{}").unwrap();
        let refused = second.commit().unwrap_err();
        assert!(matches!(refused, DataError::RunExists { .. }), "{refused}");
        assert_eq!(run_dir::verify(folder).unwrap(), committed);
    });
}

#[test]
fn a_commit_that_was_cut_short_leaves_a_committed_run() {
    everywhere(|folder, _| {
        let run = begun(&folder);
        let committed = run.commit().unwrap();
        // As if the process had died right after `_COMMITTED` was written.
        folder.child(WORK).unwrap().write("scratch", b"x").unwrap();
        folder.write("_UNFINISHED", b"").unwrap();
        assert_eq!(run_dir::verify(folder.clone()).unwrap(), committed);
        let refused = RunDir::create(folder).unwrap_err();
        assert!(matches!(refused, DataError::RunExists { .. }), "{refused}");
    });
}

#[test]
fn what_dead_writers_leave_behind_is_no_result() {
    let disk = tempfile::tempdir().unwrap();
    let folder = Folder::local(disk.path().join("run"));
    let run = begun(&folder);
    let mut half = run
        .folder()
        .begin("assignments/part-00001.parquet", disk.path())
        .unwrap();
    half.write_all(b"PA").unwrap();
    std::mem::forget(half);
    let committed = run.commit().unwrap();
    assert_eq!(committed.files.len(), 2);
    assert_eq!(
        std::fs::read_dir(disk.path().join("run/assignments"))
            .unwrap()
            .count(),
        1
    );
}
