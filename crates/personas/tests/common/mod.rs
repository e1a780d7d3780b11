//! Evidence for tests: a real one from a file, and small ones made up of the few numbers a test is about.
#![allow(dead_code, reason = "each test file uses its part")]

use clientele_personas::{
    Amount, ClusterEvidence, Distribution, Evidence, FeatureEvidence, FeatureInfo, MARGIN_BINS,
    RunFacts, Unit, ValueInfo,
};

/// CDNOW, 23,570 customers, k = 4 by scikit-learn 1.9 on log1p and z (tests/data/README.md).
pub fn cdnow() -> Evidence {
    serde_json::from_str(include_str!("../data/cdnow_k4.json")).expect("the fixture is evidence")
}

/// A feature with words.
pub fn info(name: &str, unit: Unit, words: Option<(&str, &str)>) -> FeatureInfo {
    FeatureInfo {
        name: name.to_owned(),
        label: String::new(),
        unit,
        high_word: words.map(|words| words.0.to_owned()),
        low_word: words.map(|words| words.1.to_owned()),
        one_word: None,
        description: String::new(),
    }
}

pub fn distribution(n: u64, median: f64, mean_z: f64) -> Distribution {
    let histogram = vec![n / 2, n - n / 2, 0, 0];
    Distribution {
        n,
        q25: median / 2.0,
        median,
        q75: median * 2.0,
        mean_z,
        histogram,
    }
}

/// Clusters of `sizes`; one row of `mean_z` a feature, one entry a cluster. Value is 10 a customer.
pub fn evidence(sizes: &[u64], features: Vec<(FeatureInfo, Vec<f64>)>) -> Evidence {
    let n_customers = sizes.iter().sum();
    let feature = |(info, mean_z): (FeatureInfo, Vec<f64>)| FeatureEvidence {
        info,
        transform: "z".to_owned(),
        edges: vec![0.0, 1.0, 2.0, 3.0, 4.0],
        n_imputed: 3,
        n_clipped: 200,
        overall: distribution(n_customers, 2.0, 0.0),
        clusters: sizes
            .iter()
            .zip(mean_z)
            .map(|(&size, z)| distribution(size, 2.0 + z, z))
            .collect(),
    };
    let cluster = |(idx, &size): (usize, &u64)| ClusterEvidence {
        size,
        value_total: Some(Amount::from_ten_thousandths(i128::from(size) * 100_000)),
        second_choice: second_choice(idx, size, sizes.len()),
        margin_histogram: if sizes.len() > 1 {
            margins(size)
        } else {
            Vec::new()
        },
        given_name: None,
        notes: Vec::new(),
    };
    Evidence {
        title: "Test".to_owned(),
        n_customers,
        currency: "$".to_owned(),
        value: Some(ValueInfo {
            name: "spend".to_owned(),
            label: "Spend".to_owned(),
            unit: Unit::Money,
        }),
        features: features.into_iter().map(feature).collect(),
        clusters: sizes.iter().enumerate().map(cluster).collect(),
        run: RunFacts::default(),
    }
}

/// Everyone's second choice is the next cluster.
fn second_choice(idx: usize, size: u64, n_clusters: usize) -> Vec<u64> {
    let mut counts = vec![0; n_clusters];
    if n_clusters > 1 {
        counts[(idx + 1) % n_clusters] = size;
    }
    counts
}

fn margins(size: u64) -> Vec<u64> {
    let mut bins = vec![0; MARGIN_BINS];
    bins[0] = size / 4;
    bins[MARGIN_BINS - 1] = size - size / 4;
    bins
}

/// Evidence of `n_clusters` clusters and `n_features` features with differences that vary from cluster to cluster.
pub fn large(n_clusters: usize, n_features: usize) -> Evidence {
    let sizes: Vec<u64> = (0..n_clusters as u64).map(|idx| 40 + idx).collect();
    let z =
        |feature: usize, cluster: usize| ((feature * 7 + cluster * 13) % 31) as f64 / 10.0 - 1.5;
    let feature = |feature: usize| {
        let mean_z = (0..n_clusters).map(|cluster| z(feature, cluster)).collect();
        (
            info(&format!("feature_{feature}"), Unit::Number, None),
            mean_z,
        )
    };
    evidence(&sizes, (0..n_features).map(feature).collect())
}
