//! The residuals of pairs of sections, and the verdict on a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::matches::Matches;
use super::rounds::{Relaxation, Relaxed};
use super::run::MeshCounts;
use super::ties;
use super::{Error, Options};
use crate::blocks::{self, Context};
use crate::geom::Grid;
use crate::quote::ranges;
use crate::volume::FieldOutput;

/// A pair of sections is connected if most of its matches fit, and if their weights add up to this
/// fraction of the nodes, or more. The few matches that chance finds on a blank section have small weights.
const LEAST_MATCHED: f64 = 0.01;
/// A match whose weight its residual has reduced below this fraction counts as one that does not
/// fit.
const FITS: f32 = 0.25;

/// The matches of a pair of sections; the residuals are in micrometres.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PairCounts {
    pub(super) section: u64,
    pub(super) distance: i64,
    /// The number of the field, from 1.
    pub(super) field: u64,
    pub(super) nodes: u64,
    pub(super) matched: u64,
    /// Those that do not fit to the other matches.
    pub(super) outliers: u64,
    /// The sum of the weights of the others.
    pub(super) weight: f64,
    /// The root of the mean square of the residuals of the others.
    pub(super) rms_um: f64,
    /// The root of the mean square of the residuals of matches that were left out, and their number.
    pub(super) held_out: u64,
    pub(super) held_out_rms_um: f64,
}

impl PairCounts {
    /// The pairs of a task.
    ///
    /// * `asked`: the matches that were left out, field by field
    /// * `first`: the section of the stack that is the first of the task
    /// * `is_own`: whether a node, z, y, x from the first of the meshes, is one of the task
    pub(super) fn of<const C: usize>(
        relaxed: &Relaxed<C>,
        relaxation: &Relaxation<C>,
        asked: &[Matches<C>],
        first: usize,
        is_own: impl Fn([usize; 3]) -> bool,
    ) -> Vec<Self> {
        let (layout, u) = (relaxed.layout, &relaxed.u);
        let mut pairs = Vec::new();
        for (field, (used, asked)) in relaxation.matches.iter().zip(asked).enumerate() {
            let all = used.ties(&layout, &relaxation.grid, u);
            let residuals = all.residuals(&layout, u);
            let weights = &relaxed.ties[field].weights;
            let left_out = asked.ties(&layout, &relaxation.grid, u);
            let unseen = left_out.residuals(&layout, u);
            for section in 0..layout.sections {
                if ties::partner(section, used.distance, layout.sections).is_none() {
                    continue;
                }
                let mut nodes: Vec<usize> = nodes_of(&layout, section);
                nodes.retain(|i| is_own(layout.position(*i).1));
                let is_matched = |i: &&usize| residuals[**i].is_finite();
                let fits = |i: &&usize| weights[**i] >= FITS * all.weights[**i];
                let matched: Vec<&usize> = nodes.iter().filter(is_matched).collect();
                let fitting: Vec<&usize> = matched.iter().copied().filter(fits).collect();
                let inliers: Vec<f64> = fitting.iter().map(|i| residuals[**i]).collect();
                let weight = fitting.iter().map(|i| f64::from(all.weights[**i])).sum();
                let seen: Vec<f64> =
                    nodes.iter().map(|i| unseen[*i]).filter(|r| r.is_finite()).collect();
                pairs.push(Self {
                    section: (first + section) as u64,
                    distance: used.distance as i64,
                    field: field as u64 + 1,
                    nodes: nodes.len() as u64,
                    matched: matched.len() as u64,
                    outliers: (matched.len() - inliers.len()) as u64,
                    weight,
                    rms_um: rms(&inliers),
                    held_out: seen.len() as u64,
                    held_out_rms_um: rms(&seen),
                });
            }
        }
        pairs
    }

    /// The counts of each pair of sections in each field, of all of its nodes.
    pub(super) fn joined(pairs: Vec<Self>) -> Vec<Self> {
        let mut joined: BTreeMap<(u64, u64, i64), Self> = BTreeMap::new();
        for pair in pairs {
            joined
                .entry((pair.field, pair.section, pair.distance))
                .and_modify(|own| own.add(&pair))
                .or_insert(pair);
        }
        joined.into_values().collect()
    }

    /// Adds the counts of other nodes of the same pair.
    fn add(&mut self, other: &Self) {
        let fitting = |pair: &Self| (pair.matched - pair.outliers, pair.rms_um);
        let unseen = |pair: &Self| (pair.held_out, pair.held_out_rms_um);
        (_, self.rms_um) = total([fitting(self), fitting(other)].into_iter());
        (self.held_out, self.held_out_rms_um) = total([unseen(self), unseen(other)].into_iter());
        self.nodes += other.nodes;
        self.matched += other.matched;
        self.outliers += other.outliers;
        self.weight += other.weight;
    }

    fn is_connected(&self) -> bool {
        let fit = self.matched - self.outliers;
        fit >= self.outliers && self.weight >= LEAST_MATCHED * self.nodes as f64
    }
}

fn nodes_of(layout: &super::layout::Layout, section: usize) -> Vec<usize> {
    let [nz, ny, nx] = layout.shape;
    (0..nz * ny * nx).map(|i| layout.index(section, [i / (ny * nx), i / nx % ny, i % nx])).collect()
}

fn rms(values: &[f64]) -> f64 {
    // the sum of nothing is -0
    let sum = values.iter().fold(0.0, |sum, v| sum + v * v);
    (sum / values.len().max(1) as f64).sqrt()
}

/// The root of the mean square of all residuals, from those of the pairs and their numbers.
fn total(parts: impl Iterator<Item = (u64, f64)>) -> (u64, f64) {
    let (count, sum) =
        parts.fold((0, 0.0), |(count, sum), (n, rms)| (count + n, sum + n as f64 * rms * rms));
    (count, (sum / count.max(1) as f64).sqrt())
}

/// Records and judges the whole run.
pub(super) fn conclude(
    counts: &MeshCounts,
    grid: &Grid,
    out: &FieldOutput,
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    record(counts, options, ctx);
    if counts.nodes == 0 {
        return Ok(()); // all blocks failed, which was allowed
    }
    out.set_attribute("reach", json!(counts.reach))?;
    let verdict = || blocks::ExitReason::TooManyFailed;
    let (matched, outliers, rms) = residuals(&counts.pairs);
    if matched == 0 {
        return Err(Error::NoMatch { verdict: verdict() });
    }
    let [at_first, at_end] = counts.folded;
    if at_end > 0 {
        return Err(Error::Folds { nodes: at_end, verdict: verdict() });
    }
    let unseen = if options.hold_out > 0.0 {
        let (count, rms) = held_out(&counts.pairs);
        format!(", and by {rms:.4} um from {count} that were left out")
    } else {
        String::new()
    };
    tracing::info!(
        "the mesh differs by {rms:.4} um (root mean square) from {} of {matched} matches{unseen}; {outliers} do \
         not fit",
        matched - outliers
    );
    if at_first > 0 {
        tracing::warn!(
            "the mesh folded at {at_first} nodes, and the matches there were weakened until it did not"
        );
    }
    name_unmatched(&counts.pairs, options, ctx);
    if options.stack {
        let groups = groups(&counts.pairs, grid.shape[0], &options.fixed);
        ctx.record("groups", json!(groups));
        let placed = groups.first().map_or(0, Vec::len);
        if groups.len() > 1 || 2 * placed < grid.shape[0] {
            let named: Vec<String> = groups.iter().map(|group| ranges(group)).collect();
            let groups = match named.join(" | ") {
                none if none.is_empty() => "no sections".to_owned(),
                named => format!("only sections {named}"),
            };
            let output = output.to_owned();
            return Err(Error::NotConnected { groups, output, verdict: verdict() });
        }
    }
    Ok(())
}

/// The numbers of matches and of outliers, and the residual of the others.
fn residuals(pairs: &[PairCounts]) -> (u64, u64, f64) {
    let matched = pairs.iter().map(|pair| pair.matched).sum();
    let outliers = pairs.iter().map(|pair| pair.outliers).sum();
    let (_, rms) = total(pairs.iter().map(|pair| (pair.matched - pair.outliers, pair.rms_um)));
    (matched, outliers, rms)
}

/// The number of matches that were left out, and their residual.
fn held_out(pairs: &[PairCounts]) -> (u64, f64) {
    total(pairs.iter().map(|pair| (pair.held_out, pair.held_out_rms_um)))
}

fn record(counts: &MeshCounts, options: &Options, ctx: &Context) {
    let (matched, outliers, rms) = residuals(&counts.pairs);
    ctx.record("nodes", counts.nodes);
    ctx.record("matched", matched);
    ctx.record("outliers", outliers);
    ctx.record("rms_um", rms);
    if options.hold_out > 0.0 {
        let (count, rms) = held_out(&counts.pairs);
        ctx.record("held_out", count);
        ctx.record("held_out_rms_um", rms);
    }
    ctx.record("rounds", counts.rounds);
    ctx.record("folded", json!(counts.folded));
    ctx.record("least_area", counts.least_area);
    ctx.record("longest_um", json!(counts.reach));
    ctx.record("pairs", serde_json::to_value(&counts.pairs).unwrap_or_default());
}

/// Warns of the sections that no match places.
fn name_unmatched(pairs: &[PairCounts], options: &Options, ctx: &Context) {
    let mut sections: Vec<u64> = Vec::new();
    for pair in pairs {
        let other = pair.section as i64 - pair.distance;
        sections.push(pair.section);
        sections.extend(u64::try_from(other).ok());
    }
    sections.sort_unstable();
    sections.dedup();
    let is_matched = |section: &u64| {
        pairs.iter().filter(|pair| pair.is_connected()).any(|pair| {
            pair.section == *section || pair.section as i64 - pair.distance == *section as i64
        })
    };
    sections.retain(|section| !is_matched(section));
    if sections.is_empty() {
        return;
    }
    let names: Vec<usize> = sections.iter().map(|s| *s as usize).collect();
    let names = ranges(&names);
    ctx.record("not_placed", names.clone());
    if options.stack {
        tracing::warn!("too few matches place sections {names}; they follow their neighbours");
    } else {
        tracing::warn!("too few matches place planes {names}");
    }
}

/// The groups of sections that matches connect, the largest first, without sections that have no
/// match at all. Fixed sections are connected to each other.
pub(super) fn groups(pairs: &[PairCounts], sections: usize, fixed: &[usize]) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..sections).collect();
    let join = |group: &mut Vec<usize>, a: usize, b: usize| {
        let (from, to) = (group[a], group[b]);
        group.iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
    };
    for pair in fixed.windows(2) {
        join(&mut group, pair[0], pair[1]);
    }
    let mut is_placed = vec![false; sections];
    for pair in pairs.iter().filter(|pair| pair.is_connected()) {
        let own = pair.section as usize;
        let Some(other) = ties::partner(own, pair.distance as isize, sections) else { continue };
        join(&mut group, own, other);
        (is_placed[own], is_placed[other]) = (true, true);
    }
    let mut groups: Vec<Vec<usize>> = (0..sections)
        .map(|g| (0..sections).filter(|s| group[*s] == g && is_placed[*s]).collect())
        .filter(|group: &Vec<usize>| !group.is_empty())
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}
