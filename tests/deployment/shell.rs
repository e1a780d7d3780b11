//! Command lines and variables, as a shell, systemd or Kubernetes would read them.

use std::collections::BTreeMap;

/// Values by name.
pub type Variables = BTreeMap<String, String>;

/// What stands in the ```sh blocks.
pub fn fenced(markdown: &str) -> String {
    let mut lines = Vec::new();
    let mut is_shell = false;
    for line in markdown.lines() {
        match line.strip_prefix("```") {
            Some(kind) => is_shell = kind == "sh",
            None if is_shell => lines.push(line),
            None => {}
        }
    }
    lines.join("\n")
}

/// Arguments of each `clientele ...`, as a shell would part them; what follows `&`, `|`, `>` or `#` is not of them.
pub fn shell_commands(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let variables = assignments(&script);
    let mut commands = Vec::new();
    for line in script.lines() {
        let Some(rest) = line.trim().strip_prefix("clientele ") else {
            continue;
        };
        let mut args = Vec::new();
        for word in rest.split_whitespace() {
            if ["&", "|", ">", "2>", "#"].contains(&word) {
                break;
            }
            match word.strip_prefix('$').and_then(|name| variables.get(name)) {
                Some(value) => args.extend(value.split_whitespace().map(str::to_owned)),
                None => args.push(word.trim_matches('\'').to_owned()),
            }
        }
        commands.push(args);
    }
    commands
}

/// `NAME=value` lines, `export` or not, quoted or not.
pub fn assignments(text: &str) -> Variables {
    let mut found = Variables::new();
    for line in text.lines() {
        let line = line.strip_prefix("export ").unwrap_or(line);
        if let Some((name, value)) = line.split_once('=')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        {
            found.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    found
}

/// Replaces `$(NAME)` or `${NAME}`; a name that nobody sets is a mistake.
pub fn expand(text: &str, open: char, close: char, variables: &Variables) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(&format!("${open}")) {
        let (name, after) = after.split_once(close).expect("it is closed");
        let value = variables.get(name);
        expanded.push_str(before);
        expanded.push_str(value.unwrap_or_else(|| panic!("nobody sets {name} of {text}")));
        rest = after;
    }
    expanded + rest
}
