//! The best partner of each context by Pearson correlation, without correlating every pair.
//!
//! One matrix product of low-frequency coefficients gives a coarse correlation of every pair and,
//! together with the norms of the remainders, an upper bound of the true correlation (see `basis`).
//! Only pairs whose bound exceeds the best correlation so far are correlated voxel by voxel: one or
//! two per spot instead of thousands. The result equals that of correlating every pair.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use super::contexts::Contexts;
use super::cpu::dot;
use super::neighbours::NeighbourGrid;
use super::threading::Threading;
use crate::volume::Voxel;

/// An upper bound of the rounding error of a coarse correlation; the largest measured is 2e-6.
const ROUNDING: f32 = 2e-5;

/// The number of rows and columns of one block of coarse correlations, which takes 8 MB. With
/// smaller blocks, the matrix product spends most of its time packing its operands.
const TILE: [usize; 2] = [512, 4096];

/// The best partner of a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BestColumn {
    /// The index of the partner among the columns.
    pub(super) column: usize,
    /// The correlation with the partner.
    pub(super) correlation: f32,
}

/// A query for the column that correlates best with `row`, above `floor`.
#[derive(Clone, Copy, Debug)]
pub(super) struct BestColumnQuery {
    pub(super) row: usize,
    /// Columns whose correlation is not above this value are ignored.
    pub(super) floor: f32,
    /// A column to ignore.
    pub(super) except: Option<usize>,
}

/// For each of `questions`, the column that correlates best with the row (the first of equal
/// columns); `None` if no correlation is above the floor.
///
/// * `near`: the positions of the columns, if only columns near the row are considered
/// * `near`: the columns' positions, if only columns near a row are considered
pub(super) fn best<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[BestColumnQuery],
    near: Option<&NeighbourGrid>,
    share: Threading,
) -> Vec<Option<BestColumn>> {
    if columns.len() == 0 {
        return vec![None; questions.len()];
    }
    let batches: Vec<&[BestColumnQuery]> = questions.chunks(TILE[0]).collect();
    // transposed: the matrix product packs this layout in half the time
    let table = ArrayView2::from_shape((columns.len(), columns.width), &columns.coefficients);
    let turned = match (near, table) {
        (None, Ok(table)) => table.reversed_axes().as_standard_layout().into_owned(),
        _ => Array2::default((0, 0)),
    };
    let answer = |scratch: &mut Scratch, i: usize| match near {
        Some(near) => by_neighbours(rows, columns, batches[i], near, scratch),
        None => by_product(rows, columns, batches[i], &turned, scratch),
    };
    share.map(batches.len(), Scratch::default, answer).concat()
}

/// A column that can be the best one: the upper bound of its correlation, and its index.
type Candidate = (f32, u32);

/// The scratch memory of one thread.
#[derive(Default)]
struct Scratch {
    packed: Vec<f32>,
    product: Vec<f32>,
    members: Vec<u32>,
    candidates: Vec<Candidate>,
    unit: Vec<f32>,
    other: Vec<f32>,
}

fn by_product<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[BestColumnQuery],
    turned: &Array2<f32>,
    scratch: &mut Scratch,
) -> Vec<Option<BestColumn>> {
    let Scratch { packed, product, .. } = scratch;
    packed.clear();
    for question in questions {
        packed.extend_from_slice(rows.row(question.row));
    }
    let mut candidates: Vec<Vec<Candidate>> = vec![Vec::new(); questions.len()];
    // blocks of equal size
    let size = columns.len().div_ceil(columns.len().div_ceil(TILE[1]));
    for (t, rests) in columns.rests.chunks(size).enumerate() {
        let first = t * size;
        product.resize(questions.len() * rests.len(), 0.0);
        let some = turned.slice(s![.., first..first + rests.len()]);
        multiply(packed, &some, product);
        for ((question, coarse), out) in
            questions.iter().zip(product.chunks(rests.len())).zip(&mut candidates)
        {
            let rest = rows.rests[question.row];
            candidates_above(coarse, rests, rest, question.floor, first, out);
        }
    }
    let choose = |(question, candidates): (&BestColumnQuery, Vec<Candidate>)| {
        scratch.candidates = candidates;
        choose(rows, columns, question, scratch)
    };
    questions.iter().zip(candidates).map(choose).collect()
}

/// `out = a * b`; `a` and `out` are in row-major order.
fn multiply(a: &[f32], b: &ArrayView2<'_, f32>, out: &mut [f32]) {
    let (width, columns) = b.dim();
    let a = ArrayView2::from_shape((a.len() / width, width), a);
    let out = ArrayViewMut2::from_shape((out.len() / columns, columns), out);
    if let (Ok(a), Ok(mut out)) = (a, out) {
        general_mat_mul(1.0, &a, b, 0.0, &mut out);
    }
}

/// Adds the columns whose bound exceeds `floor` to `out`; `first` is the index of the first column.
fn candidates_above(
    coarse: &[f32],
    rests: &[f32],
    rest: f32,
    floor: f32,
    first: usize,
    out: &mut Vec<Candidate>,
) {
    const CHUNK: usize = 16;
    for (c, (coarse, rests)) in coarse.chunks(CHUNK).zip(rests.chunks(CHUNK)).enumerate() {
        let bound = |i: usize| coarse[i] + rest * rests[i] + ROUNDING;
        // almost all chunks have no candidate; this vectorised test skips them
        if (0..coarse.len()).fold(f32::MIN, |most, i| most.max(bound(i))) <= floor {
            continue;
        }
        let over = (0..coarse.len()).filter(|&i| bound(i) > floor);
        out.extend(over.map(|i| (bound(i), (first + c * CHUNK + i) as u32)));
    }
}

fn by_neighbours<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[BestColumnQuery],
    near: &NeighbourGrid,
    scratch: &mut Scratch,
) -> Vec<Option<BestColumn>> {
    let mut members = std::mem::take(&mut scratch.members);
    let answers = questions
        .iter()
        .map(|question| {
            near.within(rows.places[question.row].position, &mut members);
            let (row, rest) = (rows.row(question.row), rows.rests[question.row]);
            scratch.candidates.clear();
            scratch.candidates.extend(members.iter().filter_map(|&j| {
                let coarse = dot(row, columns.row(j as usize));
                let bound = coarse + rest * columns.rests[j as usize] + ROUNDING;
                (bound > question.floor).then_some((bound, j))
            }));
            choose(rows, columns, question, scratch)
        })
        .collect();
    scratch.members = members;
    answers
}

/// Correlates the candidates in order of decreasing bound until no remaining candidate can be
/// better.
fn choose<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    question: &BestColumnQuery,
    scratch: &mut Scratch,
) -> Option<BestColumn> {
    let Scratch { candidates, unit, other, .. } = scratch;
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut best: Option<BestColumn> = None;
    for (i, &(bound, column)) in candidates.iter().enumerate() {
        let column = column as usize;
        if best.is_some_and(|b| bound < b.correlation) {
            break;
        }
        if i == 0 {
            rows.unit(question.row, unit);
        }
        if question.except == Some(column) {
            continue;
        }
        let correlation = columns.correlation(column, unit, other);
        let better = best.is_none_or(|b| {
            (correlation, b.column) > (b.correlation, column) // of equal columns, the first
        });
        if correlation > question.floor && better {
            best = Some(BestColumn { column, correlation });
        }
    }
    best
}
