//! Token files: one token a line, with the role that it gives.

use std::path::Path;

use super::error::SecurityError;
use super::pem::read;
use super::roles::{Role, Roles};

const FLAG: &str = "--token-file";

/// Shorter ones can be guessed.
const MIN_CHARS: usize = 16;

/// One line of a token file. Not `Debug`, so that it cannot be logged.
pub(super) struct Token {
    pub(super) role: Role,
    pub(super) secret: String,
}

/// The tokens of a coordinator: only their hashes stay in memory.
pub(super) struct TokenTable(Vec<(Role, blake3::Hash)>);

impl TokenTable {
    pub(super) fn new(tokens: &[Token]) -> Self {
        let hashed = |token: &Token| (token.role, blake3::hash(token.secret.as_bytes()));
        Self(tokens.iter().map(hashed).collect())
    }

    /// What the token gives; none if it is unknown.
    pub(super) fn roles(&self, secret: &[u8]) -> Option<Roles> {
        let asked = blake3::hash(secret);
        let mut found = None;
        // All are compared, and hashes compare in constant time: how long it takes says nothing about the tokens.
        for (role, hash) in &self.0 {
            if *hash == asked {
                found.get_or_insert_with(Roles::default).add(*role);
            }
        }
        found
    }
}

/// All tokens of a file, at least one.
pub(super) fn read_tokens(path: &Path) -> Result<Vec<Token>, SecurityError> {
    let text = read(FLAG, path)?;
    let bad = |line: usize, reason: String| SecurityError::BadToken {
        path: path.to_owned(),
        line,
        reason,
    };
    let text = String::from_utf8(text).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        bad(line, "is not text".into())
    })?;
    let mut tokens = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        tokens.push(parse(line).map_err(|reason| bad(nth + 1, reason))?);
    }
    if tokens.is_empty() {
        return Err(SecurityError::NoTokens {
            path: path.to_owned(),
        });
    }
    Ok(tokens)
}

/// `TOKEN`, `client TOKEN` or `worker TOKEN`.
fn parse(line: &str) -> Result<Token, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (role, secret) = match words.as_slice() {
        [secret] => (Role::Client, *secret),
        ["client", secret] => (Role::Client, *secret),
        ["worker", secret] => (Role::Worker, *secret),
        [_, _] => return Err("begins with neither `client` nor `worker`".into()),
        words => return Err(format!("has {} words, not a role and a token", words.len())),
    };
    let n_chars = secret.chars().count();
    if n_chars < MIN_CHARS {
        return Err(format!(
            "has a token of {n_chars} characters; it needs at least {MIN_CHARS}"
        ));
    }
    // It travels in a header.
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a token with characters that are not printable ASCII".into());
    }
    Ok(Token {
        role,
        secret: secret.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";

    fn parsed(text: &str) -> Result<Vec<Token>, SecurityError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).expect("written");
        read_tokens(&path)
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let Err(error) = parsed(text) else {
            panic!("{text:?} is accepted");
        };
        let message = error.to_string();
        assert!(message.ends_with(reason), "{message}");
        assert!(!message.contains(A), "a token is in the message: {message}");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("worker TOKEN"))
        );
    }

    #[test]
    fn tokens_have_roles_and_comments_are_left_out() {
        let tokens = parsed(&format!("# who\n\n  worker {A}\r\nclient\t{B}\n{B}{A}\n"))
            .unwrap_or_else(|error| panic!("{error}"));
        let found: Vec<(Role, &str)> = tokens.iter().map(|t| (t.role, &*t.secret)).collect();
        let both = format!("{B}{A}");
        assert_eq!(
            found,
            [(Role::Worker, A), (Role::Client, B), (Role::Client, &*both)]
        );
    }

    #[test]
    fn lines_that_are_no_tokens_are_refused_without_being_shown() {
        check_refused(
            "client",
            "has a token of 6 characters; it needs at least 16",
        );
        check_refused(
            "\nworker fifteen-letters",
            "has a token of 15 characters; it needs at least 16",
        );
        check_refused(
            &format!("{A} admin"),
            "begins with neither `client` nor `worker`",
        );
        check_refused(
            &format!("client {A} {A}"),
            "has 3 words, not a role and a token",
        );
        check_refused(
            &format!("client {A}é"),
            "has a token with characters that are not printable ASCII",
        );
        check_refused("# none\n", "holds no token");
    }

    #[test]
    fn the_line_is_named() {
        let error = parsed(&format!("# first\nclient {A}\nclient short\n")).err();
        let message = error.expect("refused").to_string();
        assert!(message.starts_with("line 3 of token file `"), "{message}");
    }

    #[test]
    fn a_token_of_both_roles_has_both() {
        let tokens = parsed(&format!("worker {A}\nclient {A}\nclient {B}")).unwrap_or_default();
        let table = TokenTable::new(&tokens);
        assert_eq!(table.roles(A.as_bytes()), Some(Roles::EVERY));
        let client = table.roles(B.as_bytes()).expect("known");
        assert!(client.has(Role::Client) && !client.has(Role::Worker));
        assert_eq!(table.roles(&A.as_bytes()[1..]), None);
        assert_eq!(table.roles(b""), None);
    }
}
