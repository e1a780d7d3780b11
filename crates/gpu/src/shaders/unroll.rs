//! The unrolled pieces of `shaders/assign.wgsl` and `shaders/remember.wgsl`.

use std::fmt::{self, Write};

use super::assign::CLUSTER_TILE;

/// Features that are read and used together: the sums of a window are a multiple of them.
pub const FEATURE_CHUNK: usize = 8;

/// Where an invocation has the values of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// In `x0`, `x1`, ...
    InRegisters,
    /// In `rows`, from `first_vector`.
    InStorage,
}

/// What is kept of the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracked {
    /// The best, and whether another comes near.
    Doubt,
    /// The best two.
    Second,
}

/// What the text is unrolled for.
pub(super) struct Unrolled {
    pub n_features: usize,
    /// Rows of an invocation.
    pub lanes: usize,
    /// Vectors of one feature of a tile.
    pub line: usize,
    pub rows: Rows,
    pub wants_labels: bool,
    /// Each invocation reads the biases for itself, into registers of its own.
    pub reads_own_biases: bool,
    /// What is made of scores.
    pub tracked: Tracked,
    /// Scores are squares of differences, to see that this is noticed.
    pub is_difference: bool,
}

impl Unrolled {
    /// The text that replaces `//@ what`.
    ///
    /// # Panics
    /// When the template asks for something else.
    pub fn text(&self, what: &str) -> String {
        let mut text = String::new();
        let written = match what {
            "label binding" => self.label_binding(&mut text),
            "value of a lane" => self.value_of_a_lane(&mut text),
            "is_row" => self.is_row(&mut text),
            "rows" => self.rows(&mut text),
            "square" => self.square(&mut text),
            "tile of 8" => self.tile(&mut text, 8),
            "tile of 4" => self.tile(&mut text, 4),
            "write labels" => self.write_labels(&mut text),
            "count uncertain" => self.each_lane(&mut text, "unsettled", |lane| {
                format!("label{lane} = atomicAdd(&n_uncertain, 1u);")
            }),
            "list uncertain" => self.each_lane(&mut text, "unsettled", |lane| {
                let idx = self.lane_idx(lane);
                format!(
                    "list_uncertain(candidate_idx, group.first_row + first_row + {idx}u, first_vector, {idx}u, \
                     reserved_entry + label{lane});"
                )
            }),
            "count certain" => self.each_lane(&mut text, "certain", |lane| {
                format!("atomicAdd(&slab_counts[label{lane}], 1u);")
            }),
            "sum" => self.sum(&mut text),
            "sum straight" => self.each_lane(&mut text, "certain", |lane| {
                let idx = self.lane_idx(lane);
                format!("sum_one(candidate, first_vector, {idx}u, label{lane});")
            }),
            other => unreachable!("a template asks for `{other}`"),
        };
        // Writing to a string does not fail.
        written.unwrap_or_default();
        text
    }

    fn label_binding(&self, out: &mut String) -> fmt::Result {
        if self.wants_labels {
            writeln!(
                out,
                "// [n_candidates x label_stride]; those of uncertain rows mean nothing."
            )?;
            writeln!(
                out,
                "@group(0) @binding(8) var<storage, read_write> labels: array<u32>;"
            )?;
        }
        Ok(())
    }

    fn value_of_a_lane(&self, out: &mut String) -> fmt::Result {
        let component = if self.lanes == 1 { "" } else { "[lane]" };
        writeln!(
            out,
            "fn value(vector: u32, lane: u32) -> f32 {{ return rows[vector]{component}; }}"
        )
    }

    fn is_row(&self, out: &mut String) -> fmt::Result {
        let own: Vec<String> = (0..self.lanes).map(|lane| format!("{lane}u")).collect();
        let own = own.join(", ");
        writeln!(
            out,
            "let is_row = Indices(first_row) + Indices({own}) < Indices(group.n_rows);"
        )
    }

    fn rows(&self, out: &mut String) -> fmt::Result {
        if self.rows == Rows::InRegisters {
            for f in 0..self.n_features {
                writeln!(out, "let x{f} = rows[first_vector + {}u];", f * self.line)?;
            }
        }
        Ok(())
    }

    /// The square of a row's norm.
    fn square(&self, out: &mut String) -> fmt::Result {
        match self.rows {
            Rows::InRegisters => {
                writeln!(out, "var square = x0 * x0;")?;
                for f in 1..self.n_features {
                    writeln!(out, "square += x{f} * x{f};")?;
                }
                Ok(())
            }
            Rows::InStorage => {
                writeln!(out, "var square = 0.0;")?;
                writeln!(out, "for (var f = 0u; f < params.n_features; f += 1u) {{")?;
                writeln!(out, "    let x = rows[first_vector + f * LINE];")?;
                writeln!(out, "    square += x * x;")?;
                writeln!(out, "}}")
            }
        }
    }

    /// Scores of `width` clusters, then what they change about the best.
    fn tile(&self, out: &mut String, width: usize) -> fmt::Result {
        let vectors = width / 4;
        for v in 0..vectors {
            let own = if self.reads_own_biases { " + zero" } else { "" };
            writeln!(out, "let bias{v} = centroids[at + {v}u{own}];")?;
        }
        for j in 0..width {
            match self.is_difference {
                false => writeln!(out, "var s{j} = Rows(bias{}.{});", j / 4, component(j % 4))?,
                true => writeln!(
                    out,
                    "var s{j} = Rows(0.0 * bias{}.{});",
                    j / 4,
                    component(j % 4)
                )?,
            }
        }
        match self.rows {
            Rows::InRegisters => {
                for f in 0..self.n_features {
                    self.feature(
                        out,
                        "",
                        width,
                        &format!("x{f}"),
                        f,
                        &format!("at + {}u", vectors * (f + 1)),
                    )?;
                }
                writeln!(out, "at += {}u;", vectors * (self.n_features + 1))?;
            }
            Rows::InStorage => self.features_from_storage(out, width)?,
        }
        match self.tracked {
            Tracked::Doubt => self.track_doubt(out, width),
            Tracked::Second => self.track_second(out, width),
        }
    }

    fn features_from_storage(&self, out: &mut String, width: usize) -> fmt::Result {
        let vectors = width / 4;
        let n_unrolled = self.n_features / FEATURE_CHUNK * FEATURE_CHUNK;
        writeln!(out, "at += {vectors}u;")?;
        writeln!(out, "var vector = first_vector;")?;
        writeln!(
            out,
            "for (var f = 0u; f < {n_unrolled}u; f += {FEATURE_CHUNK}u) {{"
        )?;
        self.chunk_from_storage(out, "    ", width, FEATURE_CHUNK)?;
        writeln!(out, "}}")?;
        if self.n_features > n_unrolled {
            self.chunk_from_storage(out, "", width, self.n_features - n_unrolled)?;
        }
        Ok(())
    }

    fn chunk_from_storage(
        &self,
        out: &mut String,
        indent: &str,
        width: usize,
        n: usize,
    ) -> fmt::Result {
        let vectors = width / 4;
        for f in 0..n {
            writeln!(out, "{indent}let x{f} = rows[vector + {}u];", f * self.line)?;
        }
        for f in 0..n {
            self.feature(
                out,
                indent,
                width,
                &format!("x{f}"),
                f,
                &format!("at + {}u", vectors * f),
            )?;
        }
        writeln!(out, "{indent}vector += {}u;", n * self.line)?;
        writeln!(out, "{indent}at += {}u;", n * vectors)
    }

    /// Adds one feature to the scores; its centroid values begin at `at`.
    fn feature(
        &self,
        out: &mut String,
        indent: &str,
        width: usize,
        x: &str,
        f: usize,
        at: &str,
    ) -> fmt::Result {
        for v in 0..width / 4 {
            let offset = if v == 0 {
                String::new()
            } else {
                format!(" + {v}u")
            };
            writeln!(out, "{indent}let c{f}_{v} = centroids[{at}{offset}];")?;
        }
        for j in 0..width {
            let c = format!("Rows(c{f}_{}.{})", j / 4, component(j % 4));
            match self.is_difference {
                false => writeln!(out, "{indent}s{j} = fma({x}, {c}, s{j});")?,
                true => writeln!(out, "{indent}s{j} = fma({x} + {c}, {x} + {c}, s{j});")?,
            }
        }
        Ok(())
    }

    /// Best score, its tile, which of the tile's clusters it is, and whether another comes near, a row at a time. The place in the tile
    /// is three conditions: these live in scalar registers on much hardware, and logic on them costs no vector instruction. Two clusters
    /// that are near spoil them, but then the row is in doubt and its label means nothing.
    fn track_doubt(&self, out: &mut String, width: usize) -> fmt::Result {
        for lane in self.lane_names() {
            let least = (0..width).fold(format!("best{lane}"), |least, j| {
                format!("min({least}, s{j}{lane})")
            });
            writeln!(out, "{{")?;
            writeln!(out, "    let least = {least};")?;
            writeln!(out, "    let near = least + bound;")?;
            writeln!(out, "    var seen = best{lane} <= near;")?;
            writeln!(out, "    var twice = doubt{lane} & seen;")?;
            for j in 0..width {
                writeln!(out, "    let n{j} = s{j}{lane} <= near;")?;
                writeln!(out, "    twice = twice | (seen & n{j});")?;
                writeln!(out, "    seen = seen | n{j};")?;
            }
            let any = |is_wanted: &dyn Fn(usize) -> bool| {
                let near = (0..width)
                    .filter(|&j| is_wanted(j))
                    .map(|j| format!("n{j}"));
                near.collect::<Vec<_>>().join(" | ")
            };
            writeln!(out, "    let any = {};", any(&|_| true))?;
            for bit in 0..CLUSTER_TILE.ilog2() {
                let own = any(&|j| j >> bit & 1 == 1);
                let own = if own.is_empty() { "false" } else { &own };
                writeln!(
                    out,
                    "    bit{bit}{lane} = ({own}) | (bit{bit}{lane} & !any);"
                )?;
            }
            writeln!(out, "    tile{lane} = select(tile{lane}, tile_idx, any);")?;
            writeln!(out, "    best{lane} = least;")?;
            writeln!(out, "    doubt{lane} = twice;")?;
            writeln!(out, "}}")?;
        }
        Ok(())
    }

    /// The best two scores of one row, the tile of the best, and which of the tile's clusters it is. Equal scores spoil the last, but then
    /// the row is in doubt.
    fn track_second(&self, out: &mut String, width: usize) -> fmt::Result {
        writeln!(out, "{{")?;
        writeln!(out, "    let before = best;")?;
        for j in (0..width).step_by(2) {
            let (a, b) = (format!("s{j}"), format!("s{}", j + 1));
            writeln!(
                out,
                "    second = min(second, min(max({a}, {b}), max(best, min({a}, {b}))));"
            )?;
            writeln!(out, "    best = min(best, min({a}, {b}));")?;
        }
        writeln!(out, "    let is_better = best < before;")?;
        for bit in 0..CLUSTER_TILE.ilog2() {
            let own = (0..width).filter(|j| j >> bit & 1 == 1);
            let own: Vec<String> = own.map(|j| format!("(s{j} <= best)")).collect();
            let own = if own.is_empty() {
                "false".to_owned()
            } else {
                own.join(" | ")
            };
            writeln!(
                out,
                "    bit{bit} = (is_better & ({own})) | (bit{bit} & !is_better);"
            )?;
        }
        writeln!(out, "    tile = select(tile, tile_idx, is_better);")?;
        writeln!(out, "}}")
    }

    fn write_labels(&self, out: &mut String) -> fmt::Result {
        if !self.wants_labels {
            return Ok(());
        }
        writeln!(
            out,
            "let first_label = candidate_idx * params.label_stride + group.first_row + first_row;"
        )?;
        self.each_lane(out, "is_row", |lane| {
            format!(
                "labels[first_label + {}u] = label{lane};",
                self.lane_idx(lane)
            )
        })
    }

    /// Adds the certain rows to the sums of the window from `first`.
    fn sum(&self, out: &mut String) -> fmt::Result {
        match self.rows {
            Rows::InRegisters => {
                for begin in (0..self.n_features).step_by(FEATURE_CHUNK) {
                    let end = (begin + FEATURE_CHUNK).min(self.n_features);
                    let is_only = self.n_features <= FEATURE_CHUNK;
                    if !is_only {
                        writeln!(
                            out,
                            "if (first <= {begin}u && {begin}u < first + candidate.window) {{"
                        )?;
                    }
                    let indent = if is_only { "" } else { "    " };
                    self.add_chunk(out, indent, begin..end, &format!("{begin}u - first"))?;
                    if !is_only {
                        writeln!(out, "}}")?;
                    }
                }
                Ok(())
            }
            Rows::InStorage => {
                let rest = self.n_features % FEATURE_CHUNK;
                writeln!(
                    out,
                    "let last = min(first + candidate.window, {}u);",
                    self.n_features - rest
                )?;
                writeln!(
                    out,
                    "for (var f = first; f < last; f += {FEATURE_CHUNK}u) {{"
                )?;
                writeln!(out, "    let vector = first_vector + f * LINE;")?;
                self.load_chunk(out, "    ", FEATURE_CHUNK)?;
                self.add_chunk(out, "    ", 0..FEATURE_CHUNK, "f - first")?;
                writeln!(out, "}}")?;
                if rest > 0 {
                    writeln!(
                        out,
                        "if (first + candidate.window > {}u) {{",
                        self.n_features - rest
                    )?;
                    writeln!(
                        out,
                        "    let vector = first_vector + {}u;",
                        (self.n_features - rest) * self.line
                    )?;
                    self.load_chunk(out, "    ", rest)?;
                    self.add_chunk(
                        out,
                        "    ",
                        0..rest,
                        &format!("{}u - first", self.n_features - rest),
                    )?;
                    writeln!(out, "}}")?;
                }
                Ok(())
            }
        }
    }

    fn load_chunk(&self, out: &mut String, indent: &str, n: usize) -> fmt::Result {
        for f in 0..n {
            writeln!(out, "{indent}let x{f} = rows[vector + {}u];", f * self.line)?;
        }
        Ok(())
    }

    /// `offset`: where in the slab's row of a cluster the first of `features` goes.
    fn add_chunk(
        &self,
        out: &mut String,
        indent: &str,
        features: std::ops::Range<usize>,
        offset: &str,
    ) -> fmt::Result {
        for lane in self.lane_names() {
            writeln!(out, "{indent}if (certain{lane}) {{")?;
            writeln!(out, "{indent}    let cell = cells{lane} + {offset};")?;
            for (i, f) in features.clone().enumerate() {
                writeln!(
                    out,
                    "{indent}    atomicAdd(&slab[cell + {i}u], bitcast<u32>(x{f}{lane} + ROUNDER));"
                )?;
            }
            writeln!(out, "{indent}}}")?;
        }
        Ok(())
    }

    fn each_lane(
        &self,
        out: &mut String,
        condition: &str,
        action: impl Fn(&str) -> String,
    ) -> fmt::Result {
        for lane in self.lane_names() {
            writeln!(out, "if ({condition}{lane}) {{ {} }}", action(lane))?;
        }
        Ok(())
    }

    /// How the rows of an invocation are named after a vector of them.
    fn lane_names(&self) -> &'static [&'static str] {
        match self.lanes {
            1 => &[""],
            2 => &[".x", ".y"],
            _ => &[".x", ".y", ".z", ".w"],
        }
    }

    fn lane_idx(&self, name: &str) -> usize {
        self.lane_names()
            .iter()
            .position(|&n| n == name)
            .unwrap_or(0)
    }
}

fn component(idx: usize) -> char {
    ['x', 'y', 'z', 'w'][idx]
}
