//! What `deploy/` describes in YAML.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::shell::Variables;
use crate::{files_below, root};

/// What a container's arguments may name.
pub fn variables(container: &Value, config: &Variables) -> Variables {
    let mut found = Variables::new();
    if !container["envFrom"].is_null() {
        found.extend(config.clone());
    }
    for entry in array(&container["env"]) {
        let from = &entry["valueFrom"];
        let value = if let Some(value) = entry["value"].as_str() {
            value.to_owned()
        } else if let Some(key) = from["configMapKeyRef"]["key"].as_str() {
            config[key].clone()
        } else if from["resourceFieldRef"].is_object() {
            "4096".into()
        } else {
            "a-name-28973".into()
        };
        found.insert(text(&entry["name"]).to_owned(), value);
    }
    found
}

pub fn config(files: &Yaml) -> Variables {
    let maps = files.of_kind("ConfigMap");
    let entries = maps.iter().flat_map(|map| object(&map["data"]));
    entries
        .map(|(name, value)| (name.clone(), text(value).to_owned()))
        .collect()
}

/// All pods that the manifests start, by the name of what starts them.
pub fn pods(files: &Yaml) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (kind, path) in [
        ("Deployment", "/spec/template/spec"),
        ("StatefulSet", "/spec/template/spec"),
        ("CronJob", "/spec/jobTemplate/spec/template/spec"),
    ] {
        for owner in files.of_kind(kind) {
            let pod = owner.pointer(path).expect("a pod").clone();
            found.insert(text(&owner["metadata"]["name"]).to_owned(), pod);
        }
    }
    found
}

pub fn services(files: &Yaml) -> Vec<(&String, &Value)> {
    let compose = files.0.get("deploy/compose.yaml");
    let services = compose.map(|documents| &documents[0]["services"]);
    object(services.expect("there is one")).iter().collect()
}

/// Everything below `deploy/` that is YAML, by its path.
pub struct Yaml(pub BTreeMap<String, Vec<Value>>);

impl Yaml {
    pub fn read() -> Option<Self> {
        const SCRIPT: &str = "import json, sys, yaml
print(json.dumps({p: list(yaml.safe_load_all(open(p))) for p in sys.argv[1:]}))";
        let paths = files_below(&root().join("deploy"));
        let paths = paths
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "yaml"));
        let paths = paths.map(|path| path.strip_prefix(root()).expect("below"));
        let mut python = Command::new("python3");
        python.current_dir(root()).args(["-c", SCRIPT]).args(paths);
        let has_yaml = Command::new("python3").args(["-c", "import yaml"]).output();
        if !has_yaml.is_ok_and(|output| output.status.success()) {
            let is_required = std::env::var_os("CLIENTELE_REQUIRE_YAML").is_some();
            assert!(!is_required, "there is no python3 with PyYAML");
            eprintln!("skipped: there is no python3 with PyYAML here");
            return None;
        }
        let output = python.output().expect("python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Some(Self(serde_json::from_slice(&output.stdout).expect("JSON")))
    }

    pub fn one(&self, path: &str) -> Value {
        self.0[path][0].clone()
    }

    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        let all = self.0.values().flatten();
        all.filter(|document| document["kind"] == kind).collect()
    }
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn object(value: &Value) -> &serde_json::Map<String, Value> {
    static NONE: std::sync::LazyLock<serde_json::Map<String, Value>> =
        std::sync::LazyLock::new(serde_json::Map::new);
    value.as_object().unwrap_or(&NONE)
}

#[track_caller]
pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

#[track_caller]
pub fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}
