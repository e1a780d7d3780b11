//! What `deploy/` and `docs/cluster.md` promise: their command lines are ones that the program takes, their containers can do little,
//! and what they probe is served.
//!
//! YAML is read by `python3` with PyYAML, so that the program's dependencies stay as they are. Without it those tests say so and
//! skip; with `CLIENTELE_REQUIRE_YAML=1` they fail.

mod common;
#[path = "deployment/coordinator.rs"]
mod coordinator;
#[path = "deployment/shell.rs"]
mod shell;
#[path = "deployment/yaml.rs"]
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use common::{clientele, run};
use coordinator::Coordinator;
use shell::{assignments, expand, fenced, shell_commands};
use yaml::{Yaml, array, config, number, object, pods, services, text, variables};

#[test]
fn the_command_lines_of_the_docs_are_taken() {
    for name in ["README.md", "docs/cluster.md"] {
        let lines = fenced(&read(name));
        let commands = shell_commands(&lines);
        assert!(commands.len() >= 3, "{name}: {commands:?}");
        for command in commands {
            check_taken(name, &command);
        }
    }
}

#[test]
fn the_command_lines_of_the_units_are_taken() {
    for role in ["coordinator", "worker"] {
        let mut variables = assignments(&read(&format!("deploy/systemd/{role}.env")));
        for folder in ["CREDENTIALS_DIRECTORY", "CACHE_DIRECTORY"] {
            variables.insert(folder.into(), format!("/run/{folder}"));
        }
        let unit = read(&format!("deploy/systemd/clientele-{role}.service"));
        let start = unit.lines().find_map(|l| l.strip_prefix("ExecStart="));
        let words = start.expect("it starts something").split_whitespace();
        let words: Vec<String> = words
            .map(|word| expand(word, '{', '}', &variables))
            .collect();
        assert_eq!(words[0], "/usr/local/bin/clientele");
        check_taken(role, &words[1..]);
    }
}

#[test]
fn the_command_lines_of_the_containers_are_taken() {
    let Some(files) = Yaml::read() else { return };
    let config = config(&files);
    let mut n_commands = 0;
    for (name, pod) in pods(&files) {
        for container in array(&pod["containers"]) {
            let variables = variables(container, &config);
            let args = array(&container["args"]).iter();
            let args: Vec<String> = args
                .map(|arg| expand(text(arg), '(', ')', &variables))
                .collect();
            check_taken(&name, &args);
            n_commands += 1;
        }
    }
    for (name, service) in services(&files) {
        if !text(&service["image"]).starts_with("clientele:") {
            continue;
        }
        let words: Vec<String> = array(&service["command"])
            .iter()
            .map(|word| text(word).to_owned())
            .collect();
        let entrypoint = array(&service["entrypoint"]);
        let commands = match entrypoint.last().map(text) {
            None | Some("clientele") => vec![words],
            Some(_) => shell_commands(&words.join("\n")),
        };
        for command in commands {
            check_taken(name, &command);
            n_commands += 1;
        }
    }
    assert_eq!(n_commands, 8, "containers whose command lines are checked");
}

#[test]
fn a_command_line_that_is_wrong_is_noticed() {
    for wrong in [
        "worker --cordinator https://alpha:7070",
        "worker --memory many",
        "coordinator --listen alpha",
        "fit a.parquet --k 8..2 --out x",
        "fit a.parquet --backend tpu",
        "coordinate",
        "status one two",
        "fit a.parquet --out",
        "fit a.parquet",
        "status --tls-cert worker.pem",
    ] {
        let command = &shell_commands(&format!("clientele {wrong}"))[0];
        assert!(complaint(command).is_some(), "{wrong}");
    }
    assert_eq!(
        shell_commands(
            "F=\"--tls-ca a --tls-cert b\"\nclientele status $F \\\n  --format json 2> x & # why\nx\n"
        ),
        [[
            "status",
            "--tls-ca",
            "a",
            "--tls-cert",
            "b",
            "--format",
            "json"
        ]]
    );
}

#[test]
fn pods_can_do_little() {
    let Some(files) = Yaml::read() else { return };
    let pods = pods(&files);
    assert_eq!(pods.len(), 3);
    for (name, pod) in &pods {
        assert_eq!(liberties(pod), Vec::<String>::new(), "{name}");
    }
    let strict = &pods["clientele-worker"];
    for (pointer, value) in [
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/automountServiceAccountToken", json!(true)),
        ("/terminationGracePeriodSeconds", json!(5)),
        (
            "/containers/0/securityContext/allowPrivilegeEscalation",
            Value::Null,
        ),
        (
            "/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        (
            "/containers/0/securityContext/capabilities/drop",
            json!(["NET_RAW"]),
        ),
        ("/containers/0/resources/limits/memory", Value::Null),
        (
            "/volumes/0",
            json!({"name": "tls", "hostPath": {"path": "/"}}),
        ),
    ] {
        let mut loose = strict.clone();
        *loose.pointer_mut(pointer).expect(pointer) = value;
        assert_eq!(liberties(&loose).len(), 1, "{pointer}");
    }
}

#[test]
fn services_of_compose_can_do_little() {
    let Some(files) = Yaml::read() else { return };
    let compose = &files.one("deploy/compose.yaml");
    for (name, service) in services(&files) {
        assert_eq!(service["read_only"], json!(true), "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        let options = &service["security_opt"];
        assert_eq!(options, &json!(["no-new-privileges:true"]), "{name}");
        let image = text(&service["image"]);
        let (_, tag) = image.rsplit_once(':').expect("every image has a tag");
        assert_ne!(tag, "latest", "{name}");
        for needed in object(&service["depends_on"]).keys() {
            assert!(!compose["services"][needed].is_null(), "{name}: {needed}");
        }
        let is_long_lived = !service["restart"].is_null();
        let memory = &service["deploy"]["resources"]["limits"]["memory"];
        assert!(!is_long_lived || memory.is_string(), "{name}");
    }
}

#[test]
fn what_is_probed_is_served_where_it_is_probed() {
    let Some(files) = Yaml::read() else { return };
    let pods = pods(&files);
    let coordinator = &pods["clientele-coordinator"]["containers"][0];
    let ports: BTreeMap<&str, u64> = array(&coordinator["ports"])
        .iter()
        .map(|port| (text(&port["name"]), number(&port["containerPort"])))
        .collect();
    let args: Vec<&str> = array(&coordinator["args"]).iter().map(text).collect();
    for (port, flag) in [("grpc", "--listen"), ("metrics", "--metrics-listen")] {
        let arg = format!("{flag}=0.0.0.0:{}", ports[port]);
        assert!(args.contains(&&*arg), "{arg} in {args:?}");
    }
    let server = Coordinator::start();
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &coordinator[probe]["httpGet"];
        assert_eq!(get["port"], "metrics", "{probe}");
        assert_eq!(get["path"], path, "{probe}");
        server.wait_for_200(path);
    }
    assert!(!server.is_200("/healthz"));
    let services = files.of_kind("Service");
    for port in services
        .iter()
        .flat_map(|service| array(&service["spec"]["ports"]))
    {
        let target = text(&port["targetPort"]);
        assert_eq!(number(&port["port"]), ports[target], "{target}");
    }
    let compose = files.one("deploy/compose.yaml");
    let health = compose["services"]["coordinator"]["healthcheck"]["test"].to_string();
    assert!(health.contains("/dev/tcp/127.0.0.1/9090") && health.contains("GET /readyz "));
}

#[test]
fn the_network_is_closed_but_for_what_is_needed() {
    let Some(files) = Yaml::read() else { return };
    let policies: BTreeMap<String, Value> = files
        .of_kind("NetworkPolicy")
        .into_iter()
        .map(|policy| {
            (
                text(&policy["metadata"]["name"]).to_owned(),
                policy["spec"].clone(),
            )
        })
        .collect();
    let closed = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    assert_eq!(policies["default-deny"], closed);
    let into: Vec<&String> = policies
        .iter()
        .filter(|(_, policy)| !policy["ingress"].is_null())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(into, ["coordinator"], "only the coordinator is dialled");
    for rule in array(&policies["coordinator"]["ingress"]) {
        let from = &rule["from"][0];
        match text(&rule["ports"][0]["port"]) {
            "grpc" => assert_eq!(
                from["podSelector"]["matchExpressions"][0]["values"],
                json!(["worker", "client"])
            ),
            "metrics" => assert_eq!(
                from["namespaceSelector"]["matchLabels"],
                json!({"kubernetes.io/metadata.name": "monitoring"})
            ),
            port => panic!("nobody needs port {port}"),
        }
    }
}

#[test]
fn manifests_name_files_that_exist_and_hold_no_secret() {
    let Some(files) = Yaml::read() else { return };
    assert!(files.of_kind("Secret").is_empty());
    let kustomization = files.one("deploy/kubernetes/kustomization.yaml");
    for resource in array(&kustomization["resources"]) {
        assert!(
            root()
                .join("deploy/kubernetes")
                .join(text(resource))
                .is_file()
        );
    }
    let cron = &files.of_kind("CronJob")[0]["spec"];
    assert_eq!(cron["concurrencyPolicy"], "Forbid");
    let budgets = files.of_kind("PodDisruptionBudget");
    assert_eq!(budgets.len(), 1);
}

#[test]
fn certificates_are_called_what_certs_init_calls_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = run(clientele()
        .args(["certs", "init", "--out"])
        .arg(folder.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut named = BTreeSet::new();
    for path in files_below(&root().join("deploy")) {
        let content = std::fs::read_to_string(&path).expect("text");
        let words = content.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)));
        named.extend(words.filter(|w| w.ends_with(".pem")).map(str::to_owned));
    }
    assert!(named.len() >= 7, "{named:?}");
    for name in &named {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn the_image_is_built_from_what_it_is_given() {
    let dockerfile = read("deploy/Dockerfile");
    let has = |line: &str| dockerfile.lines().any(|l| l == line);
    for line in [
        "USER 65532:65532",
        "HEALTHCHECK NONE",
        "ENTRYPOINT [\"clientele\"]",
        "STOPSIGNAL SIGTERM",
    ] {
        assert!(has(line), "{line}");
    }
    let cargo = read("Cargo.toml");
    let rust = cargo
        .lines()
        .find_map(|l| l.strip_prefix("rust-version = \""))
        .expect("a version of Rust")
        .trim_end_matches('"');
    assert!(
        has(&format!("FROM rust:{rust}-bookworm AS build")),
        "{rust}"
    );
    // Everything is left out of the build but what begins with `!`.
    let ignored = read(".dockerignore");
    assert!(ignored.lines().any(|line| line == "*"));
    let copies = dockerfile.lines().filter_map(|l| l.strip_prefix("COPY "));
    for copy in copies.filter(|copy| !copy.starts_with("--from")) {
        let words: Vec<&str> = copy.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            let is_let_in = |line: &str| {
                line.strip_prefix('!')
                    .is_some_and(|kept| kept == *source || kept.starts_with(&format!("{source}/")))
            };
            assert!(ignored.lines().any(is_let_in), "{source}");
        }
    }
}

#[test]
fn units_are_hardened_and_systemd_understands_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for role in ["coordinator", "worker"] {
        let unit = read(&format!("deploy/systemd/clientele-{role}.service"));
        for line in [
            "User=clientele",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "PrivateTmp=yes",
            "StateDirectory=clientele",
            "Restart=on-failure",
            "KillSignal=SIGTERM",
            "TimeoutStopSec=30",
        ] {
            assert!(unit.lines().any(|l| l == line), "{role}: {line}");
        }
        let unit = unit.replace("/usr/local/bin/clientele", env!("CARGO_BIN_EXE_clientele"));
        let Some(said) = verified(folder.path(), role, &unit) else {
            eprintln!("skipped: there is no systemd-analyze here");
            return;
        };
        assert_eq!(said, "", "{role}");
        let misspelt = unit.replace("ProtectSystem=strict", "ProtectSystem=strickt");
        let said = verified(folder.path(), role, &misspelt);
        assert!(said.is_some_and(|said| said.contains("strickt")));
    }
}

/// What `systemd-analyze verify` says of a unit of ours.
fn verified(folder: &Path, role: &str, unit: &str) -> Option<String> {
    let path = folder.join(format!("clientele-{role}.service"));
    std::fs::write(&path, unit).expect("written");
    let mut command = Command::new("systemd-analyze");
    let output = command.arg("verify").arg(&path).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|l| l.contains("clientele")).collect();
    Some(ours.join("\n"))
}

/// What a pod may do that it need not.
fn liberties(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |is_so: bool, what: &str| {
        if !is_so {
            found.push(what.to_owned());
        }
    };
    let own = &pod["securityContext"];
    expect(own["runAsNonRoot"] == true, "run as root");
    expect(
        own["runAsUser"].as_u64().is_some_and(|id| id > 0),
        "be root",
    );
    expect(
        own["seccompProfile"]["type"] == "RuntimeDefault",
        "call anything",
    );
    expect(pod["automountServiceAccountToken"] == false, "ask the API");
    expect(pod["terminationGracePeriodSeconds"] == 30, "end too soon");
    let has_host_path = array(&pod["volumes"])
        .iter()
        .any(|v| !v["hostPath"].is_null());
    expect(!has_host_path, "see the node's files");
    for container in array(&pod["containers"]) {
        let own = &container["securityContext"];
        expect(own["allowPrivilegeEscalation"] == false, "gain privileges");
        expect(own["readOnlyRootFilesystem"] == true, "change its image");
        expect(
            own["capabilities"]["drop"] == json!(["ALL"]),
            "keep capabilities",
        );
        expect(
            container["resources"]["limits"]["memory"].is_string(),
            "take all memory",
        );
    }
    found
}

#[track_caller]
fn check_taken(origin: &str, args: &[String]) {
    if let Some(complaint) = complaint(args) {
        panic!("{origin}: clientele {}\n{complaint}", args.join(" "));
    }
}

/// What the program does not understand about `args`: names, values, and what is missing behind a name. A `--help` at the end keeps it
/// from being run, and from asking for what is required, which is looked for here.
fn complaint(args: &[String]) -> Option<String> {
    let ran = run(clientele().args(args).arg("--help"));
    if ran.code != Some(0) {
        return Some(ran.stderr);
    }
    let is_given = |flag: &str| {
        args.iter()
            .any(|arg| arg == flag || arg.starts_with(&format!("{flag}=")))
    };
    let needs_out = matches!(&*args[0], "fit" | "submit" | "run");
    let cert_alone = is_given("--tls-cert") != is_given("--tls-key");
    match (needs_out && !is_given("--out"), cert_alone) {
        (true, _) => Some("it needs --out".into()),
        (_, true) => Some("--tls-cert and --tls-key belong together".into()),
        _ => None,
    }
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}
