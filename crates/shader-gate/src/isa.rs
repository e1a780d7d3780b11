//! What the instructions of AMD's compiler (ACO) say about a kernel.

use std::collections::HashMap;

use clientele_gpu::shaders::{AssignShape, CLUSTER_TILE, FEATURE_CHUNK, RememberShape};

/// The model whose sums are judged: 8 clusters, of whose sums a workgroup keeps 4 copies.
const N_CLUSTERS: usize = 8;
const N_COPIES: usize = 4;

/// How a kernel goes over rows and features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    pub n_features: usize,
    /// Rows of an invocation.
    pub lanes: usize,
    pub is_in_registers: bool,
}

impl From<&AssignShape> for Sweep {
    fn from(shape: &AssignShape) -> Self {
        Self {
            n_features: shape.n_features,
            lanes: shape.lanes(),
            is_in_registers: shape.is_in_registers(),
        }
    }
}

impl From<&RememberShape> for Sweep {
    fn from(shape: &RememberShape) -> Self {
        Self {
            n_features: shape.n_features,
            lanes: 1,
            is_in_registers: shape.is_in_registers(),
        }
    }
}

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
    pub fn vector_a_term(&self, sweep: &Sweep) -> Result<f64, String> {
        let n_tile_terms = sweep.lanes * CLUSTER_TILE * sweep.n_features;
        let inner = self
            .innermost()
            .max_by_key(|inner| self.count(inner, is_product))
            .ok_or("no loop")?;
        let n_inner = self.count(inner, is_vector);
        let n_products = self.count(inner, is_product);
        // All of a tile: rows in registers, or a compiler that has unrolled the loop over chunks of features.
        if n_products == n_tile_terms {
            return Ok(n_inner as f64 / n_tile_terms as f64);
        }
        let n_expected = sweep.lanes * CLUSTER_TILE * FEATURE_CHUNK;
        if sweep.is_in_registers || n_products != n_expected {
            return Err(format!(
                "{n_products} products in the inner loop, not {n_expected}"
            ));
        }
        // The loop over chunks of features lies in that over tiles.
        let outer = self.around(inner).ok_or("no loop over tiles")?;
        let n_once = self.count(outer, is_vector) - n_inner;
        let n_chunks = sweep.n_features / FEATURE_CHUNK;
        Ok((n_once + n_inner * n_chunks) as f64 / n_tile_terms as f64)
    }

    /// Vector instructions for each value that is added to a sum in workgroup memory, and its share of handing the sums of a group
    /// of rows over when there are 8 clusters: the basic blocks that add, and the loops over cells and their copies.
    ///
    /// # Errors
    /// When the loops are not found.
    pub fn vector_a_sum(&self, shape: &AssignShape) -> Result<f64, String> {
        let mut blocks: HashMap<usize, (usize, usize)> = HashMap::new();
        for instruction in &self.instructions {
            let (n_adds, n_vector) = blocks.entry(instruction.block_idx).or_default();
            *n_adds += usize::from(instruction.name.starts_with("ds_add_u32"));
            *n_vector += usize::from(is_vector(instruction.name));
        }
        let summing = blocks.values().filter(|(n_adds, _)| *n_adds > 0);
        let (n_adds, n_vector) =
            summing.fold((0, 0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
        if n_adds == 0 {
            return Err("nothing is added in workgroup memory".to_owned());
        }
        let copies = self
            .innermost()
            .find(|range| self.count(range, is_exchange) > 0)
            .ok_or("no loop over copies of sums")?;
        let cells = self.around(copies).ok_or("no loop over cells")?;
        let n_a_cell =
            self.count(cells, is_vector) + (N_COPIES - 1) * self.count(copies, is_vector);
        let cells_a_value = N_CLUSTERS as f64 / shape.group_rows() as f64;
        Ok(n_vector as f64 / n_adds as f64 + n_a_cell as f64 * cells_a_value)
    }

    /// Loops with no loop in them.
    fn innermost(&self) -> impl Iterator<Item = &(usize, usize)> {
        let has_none =
            |range: &&(usize, usize)| !self.loops.iter().any(|other| is_inside(other, range));
        self.loops.iter().filter(has_none)
    }

    /// The smallest loop around another.
    fn around(&self, inner: &(usize, usize)) -> Option<&(usize, usize)> {
        let outer = self.loops.iter().filter(|outer| is_inside(inner, outer));
        outer.min_by_key(|outer| outer.1 - outer.0)
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

fn is_exchange(name: &str) -> bool {
    name.starts_with("ds_wrxchg") || name.starts_with("ds_storexchg")
}

/// A multiplication of floats, fused with an addition or not: one a term.
fn is_product(name: &str) -> bool {
    let known = [
        "v_fma_f32",
        "v_fmac_f32",
        "v_mac_f32",
        "v_mad_f32",
        "v_fmaak_f32",
        "v_fmamk_f32",
        "v_madak_f32",
        "v_madmk_f32",
        "v_mul_f32",
    ];
    known.iter().any(|known| name.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tile of 8 centroids and 1 feature, for the one shape with two rows an invocation and one feature.
    fn assembly() -> String {
        let tile = "\tv_fma_f32 v1, v2, s3, s4\n".repeat(16);
        format!(
            "BB0:\n\ts_mov_b32 s0, 1\nBB1:\n\tv_mov_b32 v0, 0\nBB2:\n{tile}\tv_min3_f32 v1, v2, v3\n\ts_add_u32 s0, s1\n\
             \ts_cbranch_scc1 BB2\nBB3:\n\tv_add_f32 v1, v2, v3\n\tds_add_u32 v1, v2\n\tv_add_f32 v1, v2, v3\n\
             \tds_add_u32 v1, v2 offset:4\n\tv_mov_b32 v1, v2\nBB4:\n\tv_mov_b32 v1, 0\nBB5:\n\tds_wrxchg_rtn_b32 v1, v2, v3\n\tv_add_u32 v1, v2\n\ts_branch BB5\nBB6:\n\t\
             s_cbranch_scc1 BB4\n\ts_branch BB1\nBB7:\n\ts_endpgm\n"
        )
    }

    #[test]
    fn vector_instructions_of_the_inner_loop_are_counted() {
        let text = assembly();
        let program = Program::parse(&text);
        let shape = AssignShape {
            n_features: 1,
            wants_labels: false,
        };
        assert_eq!(program.vector_a_term(&Sweep::from(&shape)), Ok(17.0 / 16.0));
        // 3 for 2 values; 1 a copy and 1 besides, for 8 cells of 512 rows.
        assert_eq!(program.vector_a_sum(&shape), Ok(1.5 + 5.0 * 8.0 / 512.0));
        let other = AssignShape {
            n_features: 2,
            wants_labels: false,
        };
        assert!(program.vector_a_term(&Sweep::from(&other)).is_err());
        assert!(
            Program::parse("BB0:\n\ts_endpgm\n")
                .vector_a_term(&Sweep::from(&shape))
                .is_err()
        );
    }
}
