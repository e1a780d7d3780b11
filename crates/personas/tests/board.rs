//! What `board.html` promises: it opens anywhere, says everything as text, and holds for one persona and for fifty.

mod common;

use clientele_personas::{Amount, BoardError, Evidence, Unit, board, personas};
use common::{cdnow, evidence, info, large};

fn render(evidence: &Evidence) -> String {
    let personas = personas(evidence).expect("evidence fits together");
    board(evidence, &personas).expect("the board renders")
}

/// Elements that have no end tag, and SVG elements written as `<.../>`.
const VOID: [&str; 3] = ["meta", "br", "!doctype"];

/// Checks that tags are balanced, attributes quoted and no reserved character stands alone.
fn check_html(html: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        if open.last() != Some(&"style") && text.contains('>') {
            return Err(format!("a bare > in {text:?}"));
        }
        let end = tag
            .find('>')
            .ok_or_else(|| format!("no end of tag in {tag:.40}"))?;
        let inside = &tag[1..end];
        rest = &tag[end + 1..];
        if !inside.matches('"').count().is_multiple_of(2) || inside.contains('<') {
            return Err(format!("quotes in <{inside}>"));
        }
        let name = inside.split_whitespace().next().unwrap_or("");
        if let Some(closing) = name.strip_prefix('/') {
            let opened = open.pop();
            if opened != Some(closing) {
                return Err(format!("</{closing}> closes {opened:?}"));
            }
        } else if !inside.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("never closed: {open:?}"))
    }
}

/// A page that opens from disk: balanced, no script, nothing fetched.
fn check_self_contained(html: &str) {
    check_html(html).expect("the page is well-formed");
    for forbidden in [
        "<script",
        "http:",
        "https:",
        "@import",
        "url(",
        "src=",
        "<link",
        "javascript:",
        "NaN",
        "inf%",
    ] {
        assert!(!html.contains(forbidden), "the page contains {forbidden}");
    }
}

#[test]
fn the_checker_notices_a_missing_tag_and_a_loose_bracket() {
    assert_eq!(check_html("<p>a<br>b</p>"), Ok(()));
    for wrong in [
        "<p>",
        "<b><i></b></i>",
        "<p>a > b</p>",
        "<p class=\"a>b</p>",
        "<p",
    ] {
        assert!(check_html(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_board_of_real_customers_opens_from_disk_and_says_the_headline() {
    let html = render(&cdnow());
    check_self_contained(&html);
    for expected in [
        "23,570",
        "$2,500,316",
        "21\u{a0}% of customers bring 62\u{a0}% of spend",
        "typically 6, against 1 for everyone",
        "What this does not tell you",
        "role=\"img\" aria-label=\"Purchases: typically 6 in this persona, 1 for everyone\"",
    ] {
        assert!(
            html.contains(expected),
            "the board does not say {expected:?}"
        );
    }
    assert_eq!(html.matches("<article").count(), 4);
    assert_eq!(html.matches("<figure>").count(), 4 * 5);
}

#[test]
fn the_same_evidence_gives_the_same_page_and_other_evidence_another() {
    let evidence = cdnow();
    assert_eq!(render(&evidence), render(&evidence.clone()));
    let mut other = evidence.clone();
    other.clusters[0].value_total = Some(Amount::default());
    assert_ne!(render(&evidence), render(&other));
}

#[test]
fn hostile_names_are_text_everywhere() {
    let hostile = "<script>alert(1)</script>\"'&<svg onload=x>";
    let mut evidence = cdnow();
    evidence.title = hostile.to_owned();
    evidence.currency = "<b>&\"".to_owned();
    let value = evidence.value.as_mut().expect("CDNOW has a value column");
    (value.name, value.label) = (hostile.to_owned(), hostile.to_owned());
    for feature in &mut evidence.features {
        let info = &mut feature.info;
        (info.name, info.label, info.description) =
            (hostile.to_owned(), hostile.to_owned(), hostile.to_owned());
        (info.high_word, info.low_word, info.one_word) =
            (None, Some(hostile.to_owned()), Some(hostile.to_owned()));
        feature.transform = hostile.to_owned();
    }
    evidence.clusters[0].given_name = Some(hostile.to_owned());
    evidence.clusters[0].notes.push(hostile.to_owned());
    let run = &mut evidence.run;
    (run.model_hash, run.stop_reason, run.k_reason) =
        (hostile.to_owned(), hostile.to_owned(), hostile.to_owned());
    run.sources.push(hostile.to_owned());
    run.warnings.push(hostile.to_owned());
    run.dropped.push(clientele_personas::Counted {
        what: hostile.to_owned(),
        count: 99,
    });
    let html = render(&evidence);
    check_self_contained(&html);
    assert!(html.matches("&lt;script&gt;alert(1)").count() > 20);
    assert!(!html.to_lowercase().contains("<svg onload"));
}

#[test]
fn one_persona_fifty_personas_and_three_hundred_features_are_pages_too() {
    for (n_clusters, n_features) in [(1, 1), (1, 0), (2, 300), (50, 3), (50, 300), (70, 2)] {
        let html = render(&large(n_clusters, n_features));
        check_self_contained(&html);
        assert_eq!(html.matches("<article").count(), n_clusters.min(60));
        assert!(
            html.len() < 3_000_000,
            "{n_clusters} x {n_features}: {} bytes",
            html.len()
        );
    }
}

#[test]
fn a_small_group_is_shown_as_fewer_than_eleven_and_not_described() {
    let spend = info("spend", Unit::Money, Some(("big-spending", "light")));
    let html = render(&evidence(&[7, 1000], vec![(spend, vec![2.0, 0.0])]));
    check_self_contained(&html);
    assert!(html.contains("fewer than 11"));
    assert!(!html.contains("Big-spending"));
    assert!(!html.contains("$70"), "the value of 7 customers at $10");
    assert_eq!(html.matches("<figure>").count(), 1);
}

#[test]
fn a_board_without_values_ranks_by_size_and_says_so() {
    let mut evidence = cdnow();
    evidence.value = None;
    evidence
        .clusters
        .iter_mut()
        .for_each(|cluster| cluster.value_total = None);
    let html = render(&evidence);
    check_self_contained(&html);
    assert!(html.contains("Ranked by number of customers"));
    assert!(!html.contains("per customer"));
}

#[test]
fn returns_constants_and_gaps_do_not_break_the_page() {
    let mut evidence = cdnow();
    // A group that cost more than it brought, a constant feature, and one that nobody in a group has.
    evidence.clusters[1].value_total = Some(Amount::from_ten_thousandths(-50_000_000));
    evidence.features[0]
        .edges
        .iter_mut()
        .for_each(|edge| *edge = 5.0);
    evidence.features[1].clusters[2].n = 0;
    evidence.features[2].edges.clear();
    evidence.features[2].overall.histogram.clear();
    evidence.features[2]
        .clusters
        .iter_mut()
        .for_each(|group| group.histogram.clear());
    let html = render(&evidence);
    check_self_contained(&html);
    assert!(html.contains("−$5,000"));
}

#[test]
fn personas_of_another_model_are_refused() {
    let personas = personas(&large(3, 1)).expect("evidence fits together");
    let error = board(&cdnow(), &personas).expect_err("3 personas, 4 clusters");
    assert!(
        matches!(
            error,
            BoardError::Mismatch {
                n_personas: 3,
                n_clusters: 4
            }
        ),
        "{error}"
    );
}
