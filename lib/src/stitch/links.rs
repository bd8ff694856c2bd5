//! Which links between tiles are believed.

use serde::Serialize;
use serde_json::{Value, json};

use super::measure::Link;
use super::solve::{Basis, Row, Rows, median, solve};
use crate::tiles::Project;

/// A link is believed if its correlation exceeds the mean of those by chance by this many of their
/// standard deviations.
const DEVIATIONS: f64 = 5.0;
/// The least standard deviation that is assumed of correlations by chance.
const LEAST_DEVIATION: f64 = 0.03;
/// A link contradicts the others if its residual is above this, pixels, and above a multiple of the
/// median residual.
const CONTRADICTION: [f64; 2] = [3.0, 6.0];
/// The least number of matches of a link.
const LEAST_MATCHES: usize = 1;
/// The number of times that links are weighted by their residuals, and the multiple of the median
/// residual at which they count a quarter.
const ROUNDS: usize = 4;
const OUTLIER: f64 = 3.0;
/// The weight of the positions of the stage, relative to that of a link.
const STAGE: f64 = 1e-6;

/// A link as the receipt states it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Verdict {
    /// The link is used.
    Believed,
    /// The correlation may be chance.
    Chance,
    /// The link does not fit to the others.
    Contradiction,
    /// There is no offset, for the reason that the link states.
    Refused,
}

/// The links of a project, and what is thought of them.
pub(super) struct Links {
    pub(super) links: Vec<Link>,
    pub(super) verdicts: Vec<Verdict>,
    /// The least correlation that is believed.
    pub(super) threshold: f64,
    /// The residual of each link when each tile is only shifted, pixels; NaN for links that are not
    /// used.
    pub(super) residuals: Vec<f64>,
}

impl Links {
    /// Judges links.
    ///
    /// * `min_correlation`: the least correlation that is asked for
    pub(super) fn judge(links: Vec<Link>, project: &Project, min_correlation: f64) -> Self {
        let threshold = threshold(&links, min_correlation);
        let verdict = |link: &Link| match link.refusal {
            Some(_) => Verdict::Refused,
            None if link.correlation < threshold || link.matches.len() < LEAST_MATCHES => {
                Verdict::Chance
            }
            None => Verdict::Believed,
        };
        let verdicts = links.iter().map(verdict).collect();
        let residuals = vec![f64::NAN; links.len()];
        let mut judged = Self { links, verdicts, threshold, residuals };
        judged.remove_contradictions(project);
        judged
    }

    /// The links that are used.
    pub(super) fn believed(&self) -> impl Iterator<Item = &Link> {
        let used = self.links.iter().zip(&self.verdicts);
        used.filter(|(_, verdict)| **verdict == Verdict::Believed).map(|(link, _)| link)
    }

    /// Shifts tiles to fit to the links, and removes the links that do not fit: in each round those
    /// that fit worst of all links of both tiles.
    fn remove_contradictions(&mut self, project: &Project) {
        let tiles = project.tiles.len();
        loop {
            self.residuals = self.shifted_residuals(project);
            let bound = CONTRADICTION[0].max(CONTRADICTION[1] * median(&self.residuals));
            let mut worst = vec![0.0_f64; tiles];
            for (link, residual) in self.links.iter().zip(&self.residuals) {
                for tile in [link.a, link.b] {
                    worst[tile] = worst[tile].max(*residual);
                }
            }
            let mut removed = 0;
            for i in 0..self.links.len() {
                let (link, residual) = (&self.links[i], self.residuals[i]);
                if residual > bound && residual >= worst[link.a] && residual >= worst[link.b] {
                    self.verdicts[i] = Verdict::Contradiction;
                    removed += 1;
                }
            }
            if removed == 0 {
                return;
            }
        }
    }

    /// The distance of each link from the shifts that fit best to all.
    fn shifted_residuals(&self, project: &Project) -> Vec<f64> {
        let tiles = &project.tiles;
        let wanted = |link: &Link| -> [f64; 2] {
            std::array::from_fn(|c| {
                link.offset[c] - (tiles[link.b].position[c] - tiles[link.a].position[c])
            })
        };
        let is_used = |i: usize| self.verdicts[i] == Verdict::Believed;
        let mut residuals = vec![f64::NAN; self.links.len()];
        for _ in 0..ROUNDS {
            let scale = (OUTLIER * median(&residuals)).max(1.0);
            let mut rows = Rows::default();
            for (i, link) in self.links.iter().enumerate().filter(|(i, _)| is_used(*i)) {
                let weight = (link.matches.len() as f64).sqrt();
                // the square root of the factor of Geman and McClure; 1 in the first round
                let away = if residuals[i].is_finite() { residuals[i] / scale } else { 0.0 };
                let row = [(link.b, 1.0), (link.a, -1.0)];
                rows.push(&row, wanted(link), weight / (1.0 + away * away));
            }
            for tile in 0..tiles.len() {
                rows.push(&[(tile, 1.0)], [0.0; 2], STAGE);
            }
            let shifts = solve(&rows, tiles.len());
            for (i, link) in self.links.iter().enumerate() {
                let wanted = wanted(link);
                let by = |c: usize| shifts[link.b][c] - shifts[link.a][c] - wanted[c];
                residuals[i] = if is_used(i) { by(0).hypot(by(1)) } else { f64::NAN };
            }
        }
        residuals
    }

    /// The connected groups of tiles: the number of the group of each tile.
    pub(super) fn groups(&self, tiles: usize) -> Vec<usize> {
        let mut group: Vec<usize> = (0..tiles).collect();
        fn root(group: &mut [usize], mut tile: usize) -> usize {
            while group[tile] != tile {
                group[tile] = group[group[tile]];
                tile = group[tile];
            }
            tile
        }
        for link in self.believed() {
            let [a, b] = [link.a, link.b].map(|tile| root(&mut group, tile));
            group[a.max(b)] = a.min(b);
        }
        (0..tiles).map(|tile| root(&mut group, tile)).collect()
    }

    /// The links as the receipt states them.
    pub(super) fn report(&self, project: &Project) -> Vec<Value> {
        let tiles = &project.tiles;
        let of = |(i, link): (usize, &Link)| {
            json!({
                "tiles": [tiles[link.a].name(), tiles[link.b].name()],
                "z": tiles[link.a].z,
                "offset": link.offset,
                "correlation": link.correlation,
                "matches": link.matches.len(),
                "residual": Some(self.residuals[i]).filter(|r| r.is_finite()),
                "verdict": match self.verdicts[i] {
                    Verdict::Believed => "believed".to_owned(),
                    Verdict::Chance => format!("its correlation may be chance (below {:.2})", self.threshold),
                    Verdict::Contradiction => "it contradicts other links".to_owned(),
                    Verdict::Refused => link.refusal.clone().unwrap_or_default(),
                },
            })
        };
        self.links.iter().enumerate().map(of).collect()
    }
}

/// The least correlation that is hardly found by chance.
fn threshold(links: &[Link], asked: f64) -> f64 {
    let chance: Vec<f64> = links.iter().flat_map(|link| link.chance.iter().copied()).collect();
    if chance.is_empty() {
        return asked;
    }
    let count = chance.len() as f64;
    let mean = chance.iter().sum::<f64>() / count;
    let variance = chance.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt().max(LEAST_DEVIATION);
    // where chance gives much, a true match gives more, but never more than 1
    (mean + DEVIATIONS * deviation).min(0.5 * (1.0 + mean)).max(asked)
}

/// The equations of the matches of links.
pub(super) fn rows_of<'a>(
    links: impl Iterator<Item = &'a Link>,
    project: &Project,
    basis: &Basis,
    mut keep: impl FnMut(usize) -> bool,
) -> Rows {
    let mut rows = Rows::default();
    let (mut number, mut row) = (0, Row::default());
    for link in links {
        let positions = [link.a, link.b].map(|tile| project.tiles[tile].position);
        for found in &link.matches {
            number += 1;
            if !keep(number - 1) {
                continue;
            }
            let places = found.places.map(|place| place.map(f64::from));
            row.clear();
            basis.add(link.a, places[0], 1.0, &mut row);
            basis.add(link.b, places[1], -1.0, &mut row);
            let target = std::array::from_fn(|c| {
                positions[1][c] + places[1][c] - positions[0][c] - places[0][c]
            });
            rows.push(&row, target, f64::from(found.correlation));
        }
    }
    rows
}
