//! What the instructions of AMD's compiler (ACO) say about a kernel.

use std::collections::HashMap;

use clientele_gpu::shaders::{AssignShape, CLUSTER_TILE, FEATURE_CHUNK};

/// A kernel's instructions in order, without operands except where they jump to.
pub struct Program<'a> {
    instructions: Vec<Instruction<'a>>,
    /// First and last instruction of each loop.
    loops: Vec<(usize, usize)>,
}

struct Instruction<'a> {
    name: &'a str,
    /// Of the basic block it is in.
    block_idx: usize,
}

impl<'a> Program<'a> {
    /// Reads the text that RADV gives: labels `BB3:` in front of basic blocks, and instructions after a tab.
    pub fn parse(assembly: &'a str) -> Self {
        let mut instructions = Vec::new();
        let mut jumps = Vec::new();
        let mut labels = HashMap::new();
        let mut block_idx = 0;
        for line in assembly.lines() {
            if let Some(text) = line.strip_prefix('\t') {
                let mut words = text.split_whitespace();
                let name = words.next().unwrap_or("");
                if name.starts_with("s_cbranch") || name.starts_with("s_branch") {
                    jumps.push((instructions.len(), words.next().unwrap_or("")));
                }
                instructions.push(Instruction { name, block_idx });
            } else if let Some(label) = line.trim_end().strip_suffix(':') {
                block_idx += 1;
                labels.insert(label, instructions.len());
            }
        }
        let loops = jumps
            .into_iter()
            .filter_map(|(from, label)| {
                let to = *labels.get(label)?;
                (to <= from).then_some((to, from))
            })
            .collect();
        Self {
            instructions,
            loops,
        }
    }

    /// Vector instructions of the loop over tiles of 8 centroids, for each row, centroid and feature that it goes over. Ideal is
    /// 1: the multiply-add.
    ///
    /// # Errors
    /// When the loop is not found.
    pub fn vector_a_term(&self, shape: &AssignShape) -> Result<f64, String> {
        let n_tile_terms = shape.lanes() * CLUSTER_TILE * shape.n_features;
        let inner = self
            .loops
            .iter()
            .filter(|inner| !self.loops.iter().any(|other| is_inside(other, inner)))
            .max_by_key(|inner| self.count(inner, is_multiply_add))
            .ok_or("no loop")?;
        let n_inner = self.count(inner, is_vector);
        let n_inner_terms = self.count(inner, is_multiply_add);
        if n_inner_terms >= n_tile_terms {
            return Ok(n_inner as f64 / n_tile_terms as f64);
        }
        // Rows in storage: the loop over chunks of features lies in that over tiles.
        let n_chunk_terms = shape.lanes() * CLUSTER_TILE * FEATURE_CHUNK;
        if n_inner_terms != n_chunk_terms {
            return Err(format!(
                "the inner loop has {n_inner_terms} multiply-adds and not {n_chunk_terms}"
            ));
        }
        let outer = self
            .loops
            .iter()
            .filter(|outer| is_inside(inner, outer))
            .min_by_key(|outer| outer.1 - outer.0)
            .ok_or("no loop over tiles")?;
        let n_once = self.count(outer, is_vector) - n_inner;
        let n_chunks = shape.n_features / FEATURE_CHUNK;
        Ok((n_once + n_inner * n_chunks) as f64 / n_tile_terms as f64)
    }

    /// Vector instructions for each value that is added to a sum in workgroup memory: those of the basic blocks that add.
    pub fn vector_a_sum(&self) -> f64 {
        let mut blocks: HashMap<usize, (usize, usize)> = HashMap::new();
        for instruction in &self.instructions {
            let (n_adds, n_vector) = blocks.entry(instruction.block_idx).or_default();
            *n_adds += usize::from(instruction.name.starts_with("ds_add_u32"));
            *n_vector += usize::from(is_vector(instruction.name));
        }
        // A block that adds one or two counts rows.
        let summing = blocks.values().filter(|(n_adds, _)| *n_adds > 0);
        let (n_adds, n_vector) =
            summing.fold((0, 0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
        n_vector as f64 / f64::from(u32::try_from(n_adds.max(1)).unwrap_or(u32::MAX))
    }

    fn count(&self, range: &(usize, usize), is_counted: fn(&str) -> bool) -> usize {
        self.instructions[range.0..=range.1]
            .iter()
            .filter(|instruction| is_counted(instruction.name))
            .count()
    }
}

fn is_inside(inner: &(usize, usize), outer: &(usize, usize)) -> bool {
    inner != outer && inner.0 >= outer.0 && inner.1 <= outer.1
}

fn is_vector(name: &str) -> bool {
    name.starts_with("v_")
}

fn is_multiply_add(name: &str) -> bool {
    [
        "v_fma_f32",
        "v_fmac_f32",
        "v_mac_f32",
        "v_mad_f32",
        "v_fmaak_f32",
        "v_fmamk_f32",
    ]
    .iter()
    .any(|known| name.starts_with(known))
}
