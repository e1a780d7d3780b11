//! What `personas.json` promises: ranks, names, minimum cells, sums.

mod common;

use std::collections::BTreeSet;

use clientele_personas::{
    Amount, Basis, Evidence, EvidenceError, Persona, Personas, RankedBy, Unit, personas,
};
use common::{cdnow, evidence, info, large};

fn check_names(evidence: &Evidence, expected: &[&str]) {
    let personas = personas(evidence).expect("evidence fits together");
    let mut by_id: Vec<&Persona> = personas.personas.iter().collect();
    by_id.sort_by_key(|persona| persona.persona_id);
    let names: Vec<&str> = by_id.iter().map(|persona| persona.name.as_str()).collect();
    assert_eq!(names, expected);
}

fn spend() -> clientele_personas::FeatureInfo {
    info("spend", Unit::Money, Some(("big-spending", "light")))
}

fn frequency() -> clientele_personas::FeatureInfo {
    info("frequency", Unit::Count, Some(("frequent", "occasional")))
}

#[test]
fn names_come_from_the_traits_that_set_a_group_apart_strongest_first() {
    let evidence = evidence(
        &[100, 100, 100],
        vec![
            (spend(), vec![1.0, -0.8, 0.1]),
            (frequency(), vec![1.5, -0.3, 0.0]),
        ],
    );
    check_names(
        &evidence,
        &[
            "Frequent, big-spending customers",
            "Light customers",
            "Typical customers",
        ],
    );
}

#[test]
fn real_customers_get_names_a_marketer_understands() {
    // Groups 0..3 of the fixture by their medians: 63 days and 6 purchases; $50 baskets; the early and the late of the one-time buyers.
    let personas = personas(&cdnow()).expect("evidence fits together");
    let names: Vec<&str> = personas
        .personas
        .iter()
        .map(|persona| persona.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "Recently active, frequent customers",
            "Big-basket customers",
            "Newer, light-spending customers",
            "Long-standing, light-spending customers",
        ]
    );
    assert_eq!(
        personas.takeaways[0],
        "21\u{a0}% of customers bring 62\u{a0}% of spend: “Recently active, frequent customers”."
    );
}

#[test]
fn one_time_buyers_are_called_so_only_if_three_quarters_bought_once() {
    let mut frequency = frequency();
    frequency.one_word = Some("one-time".to_owned());
    let lapsed = info("recency", Unit::Days, Some(("lapsed", "recent")));
    let mut evidence = evidence(
        &[100, 100],
        vec![(lapsed, vec![1.0, -1.0]), (frequency, vec![-0.6, 0.6])],
    );
    check_names(
        &evidence,
        &["Lapsed, occasional customers", "Recent, frequent customers"],
    );
    let group = &mut evidence.features[1].clusters[0];
    (group.q25, group.median, group.q75) = (1.0, 1.0, 1.0);
    check_names(
        &evidence,
        &["Lapsed one-time customers", "Recent, frequent customers"],
    );
}

#[test]
fn features_without_words_are_named_high_and_low() {
    let mut width = info("petal_width", Unit::Number, None);
    width.label = "Petal width".to_owned();
    let evidence = evidence(
        &[50, 50],
        vec![(width, vec![1.0, -1.0]), (spend(), vec![0.9, 0.0])],
    );
    check_names(
        &evidence,
        &[
            "Big-spending customers, high petal width",
            "Low petal width",
        ],
    );
}

#[test]
fn groups_of_one_name_are_told_apart_by_their_next_trait_and_numbered_only_then() {
    let recency = info("recency", Unit::Days, Some(("lapsed", "recent")));
    let apart = evidence(
        &[100, 100, 100],
        vec![
            (spend(), vec![1.0, 1.0, -1.0]),
            (recency, vec![0.3, -0.3, 0.0]),
        ],
    );
    check_names(
        &apart,
        &[
            "Big-spending customers, on the lapsed side",
            "Big-spending customers, on the recent side",
            "Light customers",
        ],
    );
    let same = evidence(&[100, 100, 100], vec![(spend(), vec![1.0, 1.0, 1.0])]);
    check_names(
        &same,
        &[
            "Big-spending customers",
            "Big-spending customers 2",
            "Big-spending customers 3",
        ],
    );
}

#[test]
fn every_name_is_unique_even_among_fifty() {
    for evidence in [large(50, 2), large(50, 30), large(3, 0)] {
        let personas = personas(&evidence).expect("evidence fits together");
        let names: BTreeSet<String> = personas
            .personas
            .iter()
            .map(|persona| persona.name.to_lowercase())
            .collect();
        assert_eq!(names.len(), evidence.clusters.len());
    }
}

#[test]
fn a_name_the_user_gave_is_kept_and_suggestions_make_room_for_it() {
    let mut evidence = evidence(&[100, 100], vec![(spend(), vec![1.0, -1.0])]);
    evidence.clusters[1].given_name = Some("Big-spending customers".to_owned());
    check_names(
        &evidence,
        &["Big-spending customers 2", "Big-spending customers"],
    );
    let personas = personas(&evidence).expect("evidence fits together");
    let basis: Vec<Basis> = personas
        .personas
        .iter()
        .map(|persona| persona.name_basis)
        .collect();
    assert_eq!(basis, [Basis::Modelled, Basis::ToldByYou]);
}

#[test]
fn one_cluster_is_all_customers() {
    check_names(
        &evidence(&[100], vec![(spend(), vec![0.0])]),
        &["All customers"],
    );
}

#[test]
fn rank_follows_value_and_ties_the_cluster_index() {
    let mut evidence = evidence(&[100, 50, 50, 100], vec![(spend(), vec![0.0; 4])]);
    evidence.clusters[2].value_total = Some(Amount::from_ten_thousandths(99_000_000));
    let ranked = personas(&evidence).expect("evidence fits together");
    let ids = |personas: &[Persona]| -> Vec<usize> {
        personas.iter().map(|persona| persona.persona_id).collect()
    };
    assert_eq!(ids(&ranked.personas), [2, 0, 3, 1]);
    assert_eq!(ranked.ranked_by, RankedBy::Value);
    assert_eq!(ranked.personas[0].value_total, Some(9_900.0));
    assert_eq!(ranked.personas[0].value_per_customer, Some(198.0));

    evidence.value = None;
    evidence
        .clusters
        .iter_mut()
        .for_each(|cluster| cluster.value_total = None);
    let ranked = personas(&evidence).expect("evidence fits together");
    assert_eq!(ids(&ranked.personas), [0, 3, 1, 2]);
    assert_eq!(ranked.ranked_by, RankedBy::Size);
    assert_eq!(ranked.personas[0].value_share, None);
}

#[test]
fn nothing_is_told_about_fewer_than_eleven_customers() {
    let of = |size: u64| {
        let evidence = evidence(&[size, 1000], vec![(spend(), vec![2.0, 0.0])]);
        let personas = personas(&evidence).expect("evidence fits together");
        personas
            .personas
            .into_iter()
            .find(|persona| persona.persona_id == 0)
            .expect("cluster 0 is there")
    };
    let small = of(10);
    assert!(small.below_minimum_cell);
    assert_eq!(small.name, "Small group");
    assert!(small.traits.is_empty() && small.typical.is_empty());
    assert_eq!(
        (
            small.value_total,
            small.value_share,
            small.value_per_customer
        ),
        (None, None, None)
    );
    assert_eq!((small.second_choice, small.clear_cut), (None, None));

    let enough = of(11);
    assert!(!enough.below_minimum_cell);
    assert_eq!(enough.traits.len(), 1);
    assert_eq!(
        enough.typical[0].q25, None,
        "half of 11 customers is fewer than 11"
    );
    assert!(enough.second_choice.is_some());
    assert_eq!(of(22).typical[0].q75, Some(8.0));
}

#[test]
fn border_shares_that_concern_a_few_are_not_told() {
    let mut evidence = evidence(&[100, 100], vec![(spend(), vec![1.0, -1.0])]);
    evidence.clusters[0].margin_histogram[1] = 0;
    evidence.clusters[0].margin_histogram[0] = 4;
    let personas = personas(&evidence).expect("evidence fits together");
    let clear_cut = personas.personas[0]
        .clear_cut
        .clone()
        .expect("100 customers have margins");
    assert_eq!(clear_cut.border_share, None);
    assert!(clear_cut.clear_share.is_some_and(|share| share > 0.9));
}

#[test]
fn shares_add_up_and_the_same_evidence_gives_the_same_bytes() {
    let evidence = cdnow();
    let first = personas(&evidence).expect("evidence fits together");
    let sum = |share: fn(&Persona) -> f64| first.personas.iter().map(share).sum::<f64>();
    assert!((sum(|persona| persona.share) - 1.0).abs() < 1e-12);
    assert!((sum(|persona| persona.value_share.unwrap_or(0.0)) - 1.0).abs() < 1e-12);
    let json = |personas: &Personas| {
        serde_json::to_string_pretty(personas).expect("personas are plain data")
    };
    let again: Evidence =
        serde_json::from_str(&serde_json::to_string(&evidence).expect("evidence is plain data"))
            .expect("evidence");
    assert_eq!(again, evidence);
    let bytes = json(&first);
    assert_eq!(
        bytes,
        json(&personas(&again).expect("evidence fits together"))
    );
    // The comparison sees one customer more.
    let mut changed = evidence;
    changed.clusters[0].size += 1;
    changed.n_customers += 1;
    assert_ne!(
        bytes,
        json(&personas(&changed).expect("evidence fits together"))
    );
}

#[test]
fn amounts_are_exact_decimals_in_json() {
    for (units, text) in [
        (24_976_178_200, "2497617.8200"),
        (-5, "-0.0005"),
        (0, "0.0000"),
        (i128::from(u64::MAX) * 7, "12912720851596686.1305"),
    ] {
        let amount = Amount::from_ten_thousandths(units);
        let json = serde_json::to_string(&amount).expect("an amount is a string");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(
            serde_json::from_str::<Amount>(&json).expect("it reads back"),
            amount
        );
    }
    assert_eq!(
        serde_json::from_str::<Amount>("\"12.5\"").expect("short"),
        Amount::from_ten_thousandths(125_000)
    );
    for wrong in [
        "\"\"",
        "\"1.23456\"",
        "\"1e5\"",
        "\"-\"",
        "\"1.-5\"",
        "\".\"",
        "12",
    ] {
        assert!(serde_json::from_str::<Amount>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn evidence_that_does_not_fit_together_is_refused_with_numbers() {
    let good = || evidence(&[100, 100], vec![(spend(), vec![1.0, -1.0])]);
    let check = |change: fn(&mut Evidence), message: &str| {
        let mut evidence = good();
        change(&mut evidence);
        let error: EvidenceError = personas(&evidence).expect_err(message);
        assert_eq!(error.to_string(), message);
    };
    check(
        |evidence| evidence.clusters.clear(),
        "there are no clusters to describe",
    );
    check(
        |evidence| evidence.n_customers = 201,
        "cluster sizes add up to 200, but n_customers=201",
    );
    check(
        |evidence| evidence.clusters[1].second_choice.push(0),
        "second_choice of cluster 1 has 3 entries, expected 2",
    );
    check(
        |evidence| evidence.clusters[0].value_total = None,
        "cluster 0 must have a value_total exactly when there is a value column",
    );
    check(
        |evidence| evidence.features[0].edges[1] = 9.0,
        "bin edges of feature `spend` are not ascending finite numbers",
    );
    check(
        |evidence| evidence.features[0].clusters[1].mean_z = f64::NAN,
        "feature `spend` has quartiles or a mean that are not finite and in order",
    );
    check(
        |evidence| drop(evidence.features[0].clusters.pop()),
        "clusters of feature `spend` has 1 entries, expected 2",
    );
}
