//! The best partner of each context by Pearson correlation, without correlating every pair.
//!
//! One matrix product of low-frequency coefficients gives every pair a coarse correlation and,
//! with the lengths of what was left out, a bound that the true one cannot exceed (see `basis`).
//! Only pairs whose bound beats the best so far are correlated voxel by voxel: some four for each
//! spot instead of thousands. The result is that of the full product.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::contexts::Contexts;
use super::cpu::dot;
use super::near::Near;
use super::share::Share;
use crate::volume::Voxel;

/// What rounding can add to a coarse correlation; measured 2e-6 at most.
const ROUNDING: f32 = 2e-5;

/// Coarse correlations computed at once, in elements: 4 MB, which stays in the cache.
const PRODUCT: usize = 1 << 20;

/// The partner of a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Partner {
    /// Its number among the columns.
    pub(super) column: usize,
    /// The correlation with it.
    pub(super) correlation: f32,
}

/// One question: the best column for `row`, above `floor`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) row: usize,
    /// Only correlations above it count.
    pub(super) floor: f32,
    /// A column that does not count.
    pub(super) except: Option<usize>,
}

/// Answers every question: the column that correlates best with its row (the first of equals).
///
/// * `near`: the columns' positions, where only columns near a row compete
pub(super) fn best<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[Question],
    near: Option<&Near>,
    share: Share,
) -> Vec<Option<Partner>> {
    if columns.len() == 0 {
        return vec![None; questions.len()];
    }
    let many = (PRODUCT / columns.len()).clamp(1, 256);
    let batches: Vec<&[Question]> = questions.chunks(many).collect();
    let answer = |scratch: &mut Scratch, i: usize| match near {
        Some(near) => by_neighbours(rows, columns, batches[i], near, scratch),
        None => by_product(rows, columns, batches[i], scratch),
    };
    share.map(batches.len(), Scratch::default, answer).concat()
}

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    packed: Vec<f32>,
    product: Vec<f32>,
    members: Vec<u32>,
    candidates: Vec<(f32, u32)>,
    unit: Vec<f32>,
    other: Vec<f32>,
}

fn by_product<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[Question],
    scratch: &mut Scratch,
) -> Vec<Option<Partner>> {
    let (width, count) = (rows.width, columns.len());
    let mut packed = std::mem::take(&mut scratch.packed);
    packed.clear();
    questions.iter().for_each(|q| packed.extend_from_slice(rows.row(q.row)));
    let mut product = std::mem::take(&mut scratch.product);
    product.clear();
    product.resize(questions.len() * count, 0.0);
    multiply([questions.len(), width, count], &packed, &columns.coefficients, &mut product);
    let answers = questions
        .iter()
        .zip(product.chunks(count))
        .map(|(question, coarse)| {
            let rest = rows.rests[question.row];
            promising(coarse, &columns.rests, rest, question.floor, &mut scratch.candidates);
            choose(rows, columns, question, scratch)
        })
        .collect();
    (scratch.packed, scratch.product) = (packed, product);
    answers
}

/// `out = a * bᵀ`, both with rows of `width`.
fn multiply([m, width, n]: [usize; 3], a: &[f32], b: &[f32], out: &mut [f32]) {
    let views = (
        ArrayView2::from_shape((m, width), a),
        ArrayView2::from_shape((n, width), b),
        ArrayViewMut2::from_shape((m, n), out),
    );
    let (Ok(a), Ok(b), Ok(mut out)) = views else {
        unreachable!("the slices were cut to these shapes");
    };
    general_mat_mul(1.0, &a, &b.t(), 0.0, &mut out);
}

/// Lists the columns whose bound exceeds `floor`.
fn promising(coarse: &[f32], rests: &[f32], rest: f32, floor: f32, out: &mut Vec<(f32, u32)>) {
    const CHUNK: usize = 16;
    out.clear();
    for (c, (coarse, rests)) in coarse.chunks(CHUNK).zip(rests.chunks(CHUNK)).enumerate() {
        let bound = |i: usize| coarse[i] + rest * rests[i] + ROUNDING;
        // almost every chunk ends here, and this test takes whole registers
        if (0..coarse.len()).fold(f32::MIN, |most, i| most.max(bound(i))) <= floor {
            continue;
        }
        let over = (0..coarse.len()).filter(|&i| bound(i) > floor);
        out.extend(over.map(|i| (bound(i), (c * CHUNK + i) as u32)));
    }
}

fn by_neighbours<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    questions: &[Question],
    near: &Near,
    scratch: &mut Scratch,
) -> Vec<Option<Partner>> {
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

/// Correlates the candidates, most promising first, until no other can be better.
fn choose<T: Voxel, U: Voxel>(
    rows: &Contexts<'_, T>,
    columns: &Contexts<'_, U>,
    question: &Question,
    scratch: &mut Scratch,
) -> Option<Partner> {
    let Scratch { candidates, unit, other, .. } = scratch;
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut best: Option<Partner> = None;
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
            (correlation, b.column) > (b.correlation, column) // the first of equals
        });
        if correlation > question.floor && better {
            best = Some(Partner { column, correlation });
        }
    }
    best
}
