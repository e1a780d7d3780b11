//! What `proto/` promises of itself: everything has a comment, and no number ever changes its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clientele_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

const FILES: [&str; 3] = ["work.proto", "stage.proto", "jobs.proto"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto")
}

fn with_comments() -> FileDescriptorSet {
    let files = FILES.map(|file| format!("clientele/v1/{file}"));
    protox::compile(files, [root()]).unwrap()
}

#[test]
fn reflection_tells_what_is_in_the_files_without_their_comments() {
    let mut expected = with_comments();
    for file in &mut expected.file {
        file.source_code_info = None;
    }
    let found = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    assert_eq!(found, expected);
    assert_eq!(found.file.len(), 4, "answer.proto is imported");
    assert!(
        found
            .file
            .iter()
            .all(|file| file.package() == "clientele.v1")
    );
}

#[test]
fn everything_has_a_comment() {
    let bare: Vec<String> = with_comments().file.iter().flat_map(uncommented).collect();
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

#[test]
fn a_missing_comment_is_noticed() {
    let mut set = with_comments();
    let file = set
        .file
        .iter_mut()
        .find(|f| f.name().ends_with("work.proto"));
    let file = file.unwrap();
    let info = file.source_code_info.as_mut().unwrap();
    let field = info.location.iter_mut().find(|l| l.path == [4, 2, 2, 1]);
    field.unwrap().leading_comments = None;
    assert_eq!(uncommented(file), ["Frame.is_last"]);
}

/// Paths are those of `descriptor.proto`: 4 messages, 5 enums, 6 services; in a message 2 fields, 8 oneofs; then 2 values, 2 methods.
fn uncommented(file: &FileDescriptorProto) -> Vec<String> {
    let info = file.source_code_info.as_ref().unwrap();
    let commented: BTreeSet<&[i32]> = info
        .location
        .iter()
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| &*location.path)
        .collect();
    let mut things: Vec<(Vec<i32>, String)> = Vec::new();
    for (i, message) in (0..).zip(&file.message_type) {
        assert!(message.nested_type.is_empty() && message.enum_type.is_empty());
        things.push((vec![4, i], message.name().to_owned()));
        for (j, field) in (0..).zip(&message.field) {
            let name = format!("{}.{}", message.name(), field.name());
            things.push((vec![4, i, 2, j], name));
        }
        // Those of optional fields are made up by the compiler.
        let oneofs = message.oneof_decl.iter().map(|oneof| oneof.name());
        for (j, name) in (0..).zip(oneofs).filter(|(_, name)| !name.starts_with('_')) {
            things.push((vec![4, i, 8, j], format!("{}.{name}", message.name())));
        }
    }
    for (i, of) in (0..).zip(&file.enum_type) {
        things.push((vec![5, i], of.name().to_owned()));
        for (j, value) in (0..).zip(&of.value) {
            things.push((vec![5, i, 2, j], value.name().to_owned()));
        }
    }
    for (i, service) in (0..).zip(&file.service) {
        things.push((vec![6, i], service.name().to_owned()));
        for (j, method) in (0..).zip(&service.method) {
            things.push((vec![6, i, 2, j], method.name().to_owned()));
        }
    }
    things.retain(|(path, _)| !commented.contains(&**path));
    things.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn what_is_not_said_is_no_value_of_an_enum() {
    for of in with_comments().file.iter().flat_map(|file| &file.enum_type) {
        let zero = of.value.iter().find(|value| value.number() == 0).unwrap();
        assert!(zero.name().ends_with("_UNSPECIFIED"), "{}", zero.name());
    }
}

/// One line a field or value: what it is in, its name, its number, its type.
type Line = [String; 4];

#[test]
fn no_number_changes_its_meaning() {
    let text = std::fs::read_to_string(root().join("fields.txt")).unwrap();
    let complaints = complaints(&committed(&text), &current());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_changed_number_is_noticed() {
    let lines = |text: &str| committed(text);
    let check = |now: &str, n_complaints: usize| {
        let before = lines("M a 1 uint32\nM b 2 bytes\n");
        assert_eq!(
            complaints(&before, &lines(now)).len(),
            n_complaints,
            "{now}"
        );
    };
    check("M a 1 uint32\nM b 2 bytes", 0);
    // A field that is gone leaves its line, and its number stays taken.
    check("M a 1 uint32", 0);
    check("M a 1 uint64\nM b 2 bytes", 1);
    check("M a 1 uint32\nM c 2 bytes", 1);
    check("M a 3 uint32\nM b 2 bytes", 1);
    check("M a 1 uint32\nM b 2 bytes\nM c 3 bytes", 1);
}

/// What is not as it was promised, and what nobody has promised yet.
fn complaints(committed: &[Line], current: &[Line]) -> Vec<String> {
    let by = |key: fn(&Line) -> (&str, &str)| -> BTreeMap<(&str, &str), &Line> {
        committed.iter().map(|line| (key(line), line)).collect()
    };
    let by_number = by(|[of, _, number, _]| (of, number));
    let by_name = by(|[of, name, ..]| (of, name));
    let mut complaints = Vec::new();
    for line in current {
        let [of, name, number, _] = line;
        let known = by_number
            .get(&(&**of, &**number))
            .or_else(|| by_name.get(&(&**of, &**name)));
        match known {
            Some(known) if *known == line => {}
            Some(known) => complaints.push(format!(
                "`{}` was promised, and now it is `{}`",
                known.join(" "),
                line.join(" ")
            )),
            None => complaints.push(format!("add to proto/fields.txt: {}", line.join(" "))),
        }
    }
    complaints
}

fn committed(text: &str) -> Vec<Line> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words.try_into().expect("four words a line")
        })
        .collect()
}

fn current() -> Vec<Line> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let of_files = set.file.iter().flat_map(|file| {
        let messages = file.message_type.iter().flat_map(fields);
        messages.chain(file.enum_type.iter().flat_map(values))
    });
    of_files.collect()
}

fn fields(message: &DescriptorProto) -> impl Iterator<Item = Line> {
    message.field.iter().map(|field| {
        let kind = match field.type_name() {
            "" => field
                .r#type()
                .as_str_name()
                .trim_start_matches("TYPE_")
                .to_lowercase(),
            name => name.trim_start_matches(".clientele.v1.").to_owned(),
        };
        let label = match field.label().as_str_name() {
            "LABEL_REPEATED" => "repeated:",
            _ => "",
        };
        [
            message.name().to_owned(),
            field.name().to_owned(),
            field.number().to_string(),
            format!("{label}{kind}"),
        ]
    })
}

fn values(of: &EnumDescriptorProto) -> impl Iterator<Item = Line> {
    of.value.iter().map(|value| {
        [
            of.name().to_owned(),
            value.name().to_owned(),
            value.number().to_string(),
            "value".to_owned(),
        ]
    })
}
