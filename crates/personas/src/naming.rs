//! Suggested names, built from the dictionary's words for the traits that set a group apart; the user renames them.

use std::collections::{BTreeMap, BTreeSet};

use crate::traits::{Direction, TRAIT_THRESHOLD, by_distance, is_one};
use crate::{Evidence, MINIMUM_CELL};

/// Differences too small for a trait but large enough to tell two groups of the same name apart.
const LEAN_THRESHOLD: f64 = 0.2;

/// Traits in a name, unless more are needed to tell two groups apart.
const USUAL_WORDS: usize = 2;

/// Traits in a name at most; after that names are numbered.
const MAX_WORDS: usize = 4;

/// Labels and names from outside are cut here, so that a name stays a name.
const MAX_LABEL_CHARS: usize = 32;

/// Two traits share a name only if the second is at least this fraction of the first.
const SECOND_TO_FIRST: f64 = 0.5;

/// A word or phrase for one trait of one group.
struct Phrase {
    text: String,
    kind: Kind,
    /// Too weak for a trait; said as "on the ... side".
    lean: bool,
    strength: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// "frequent": stands before "customers".
    Adjective,
    /// "one-time": an adjective that stands next to "customers", without a comma.
    Classifier,
    /// "high petal width": for features without words.
    Noun,
}

/// One name a cluster, unique without regard to case and order of words; `order` lists cluster indices by rank and decides who is numbered.
pub(crate) fn names(evidence: &Evidence, order: &[usize]) -> Vec<String> {
    let phrases: Vec<Vec<Phrase>> = (0..evidence.clusters.len())
        .map(|idx| phrases(evidence, idx))
        .collect();
    let mut n_words: Vec<usize> = phrases.iter().map(|list| usual_words(list)).collect();
    loop {
        let names: Vec<String> = (0..phrases.len())
            .map(|idx| name(evidence, idx, &phrases[idx][..n_words[idx]]))
            .collect();
        if !lengthen_equal_names(&names, &phrases, &mut n_words) {
            return number_equal_names(evidence, names, order);
        }
    }
}

/// Gives groups of equal names one more word each; false when nobody can have more.
fn lengthen_equal_names(names: &[String], phrases: &[Vec<Phrase>], n_words: &mut [usize]) -> bool {
    let mut by_name: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (idx, name) in names.iter().enumerate() {
        by_name.entry(words(name)).or_default().push(idx);
    }
    let mut changed = false;
    for idx in by_name
        .into_values()
        .filter(|group| group.len() > 1)
        .flatten()
    {
        if n_words[idx] < phrases[idx].len().min(MAX_WORDS) {
            n_words[idx] += 1;
            changed = true;
        }
    }
    changed
}

fn number_equal_names(evidence: &Evidence, mut names: Vec<String>, order: &[usize]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    // Names the user gave come first: a suggestion makes room for them, not the reverse.
    let given = |idx: &&usize| evidence.clusters[**idx].given_name.is_some();
    let first = order.iter().filter(given);
    let then = order.iter().filter(|idx| !given(idx));
    for &idx in first.chain(then) {
        let base = names[idx].clone();
        let mut number = 2;
        while !taken.insert(words(&names[idx])) {
            names[idx] = format!("{base} {number}");
            number += 1;
        }
    }
    names
}

/// What names are compared by: "frequent, recent" and "recent, frequent" are one name to a reader.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = name
        .to_lowercase()
        .split([',', ' '])
        .map(str::to_owned)
        .collect();
    words.sort_unstable();
    words.retain(|word| !word.is_empty());
    words
}

/// What can be said about a group, strongest first, each word once; nothing for groups under the minimum cell.
fn phrases(evidence: &Evidence, cluster_idx: usize) -> Vec<Phrase> {
    let cluster = &evidence.clusters[cluster_idx];
    if cluster.size < MINIMUM_CELL || cluster.given_name.is_some() {
        return Vec::new();
    }
    let mut said = BTreeSet::new();
    let mut list = Vec::new();
    for feature_idx in by_distance(evidence, cluster_idx) {
        let phrase = phrase(evidence, feature_idx, cluster_idx);
        if phrase.strength >= LEAN_THRESHOLD && said.insert(phrase.text.to_lowercase()) {
            list.push(phrase);
        }
    }
    // That three quarters bought exactly once says more than any difference of means.
    if let Some(position) = list
        .iter()
        .position(|phrase| phrase.kind == Kind::Classifier && !phrase.lean)
    {
        let classifier = list.remove(position);
        list.insert(position.min(1), classifier);
    }
    list
}

fn phrase(evidence: &Evidence, feature_idx: usize, cluster_idx: usize) -> Phrase {
    let feature = &evidence.features[feature_idx];
    let group = &feature.clusters[cluster_idx];
    let info = &feature.info;
    let direction = Direction::of(group.mean_z);
    let one = info
        .one_word
        .as_ref()
        .filter(|_| direction == Direction::Lower && is_one(info, group));
    let (word, level) = match direction {
        Direction::Higher => (&info.high_word, "high"),
        Direction::Lower => (&info.low_word, "low"),
    };
    let (text, kind) = match (one, word) {
        (Some(one), _) => (one.clone(), Kind::Classifier),
        (None, Some(word)) if !word.trim().is_empty() => (word.clone(), Kind::Adjective),
        _ => (
            format!("{level} {}", cut(&lower_first(info.label()))),
            Kind::Noun,
        ),
    };
    let strength = group.mean_z.abs();
    Phrase {
        text: cut(&text),
        kind,
        lean: strength < TRAIT_THRESHOLD,
        strength,
    }
}

fn usual_words(phrases: &[Phrase]) -> usize {
    let first = phrases.first().map_or(0.0, |phrase| phrase.strength);
    let near_first = |phrase: &Phrase| {
        phrase.kind == Kind::Classifier || phrase.strength >= SECOND_TO_FIRST * first
    };
    let worth_saying = |phrase: &&Phrase| !phrase.lean && near_first(phrase);
    phrases
        .iter()
        .take(USUAL_WORDS)
        .take_while(worth_saying)
        .count()
}

fn name(evidence: &Evidence, cluster_idx: usize, phrases: &[Phrase]) -> String {
    let cluster = &evidence.clusters[cluster_idx];
    if let Some(given) = &cluster.given_name {
        return given.clone();
    }
    if evidence.clusters.len() == 1 {
        return "All customers".to_owned();
    }
    if cluster.size < MINIMUM_CELL {
        return "Small group".to_owned();
    }
    let traits = |kind: Kind| {
        phrases
            .iter()
            .filter(move |phrase| !phrase.lean && phrase.kind == kind)
    };
    let texts = |kind: Kind| {
        traits(kind)
            .map(|phrase| phrase.text.as_str())
            .collect::<Vec<_>>()
    };
    let (adjectives, classifiers) = (
        texts(Kind::Adjective).join(", "),
        texts(Kind::Classifier).join(" "),
    );
    let mut parts = Vec::new();
    let before: Vec<&str> = [adjectives.as_str(), classifiers.as_str()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let nouns = texts(Kind::Noun);
    match (before.is_empty(), nouns.is_empty()) {
        (true, true) => parts.push("Typical customers".to_owned()),
        (true, false) => {}
        (false, _) => parts.push(format!("{} customers", before.join(" "))),
    }
    parts.extend(nouns.into_iter().map(str::to_owned));
    parts.extend(phrases.iter().filter(|phrase| phrase.lean).map(lean));
    upper_first(&parts.join(", "))
}

fn lean(phrase: &Phrase) -> String {
    match phrase.kind {
        Kind::Noun => format!("somewhat {}", phrase.text),
        Kind::Adjective | Kind::Classifier => format!("on the {} side", phrase.text),
    }
}

/// Lower-cases the first letter unless the second is upper case too (an acronym).
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(_), Some(second)) if second.is_uppercase() => text.to_owned(),
        (Some(first), _) => first.to_lowercase().chain(text.chars().skip(1)).collect(),
        _ => String::new(),
    }
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_LABEL_CHARS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MAX_LABEL_CHARS - 1).collect();
    format!("{}…", kept.trim_end())
}
