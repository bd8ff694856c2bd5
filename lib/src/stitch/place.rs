//! The maps of tiles.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::links::{Links, rows_of};
use super::solve::{Basis, Rows, median, solve};
use super::{Error, Options, StitchModel, fields_beside};
use crate::blocks::{self, Context};
use crate::geom::{Affine, Grid};
use crate::tiles::{Project, Tile};
use crate::transform::Step;
use crate::volume::{FieldOutput, FieldParts, Unfinished as _};

/// A model is preferred to a simpler one if its residuals are smaller by this factor.
const BETTER: f64 = 0.97;
/// With more matches than this, one fold suffices to judge a model.
const MANY: usize = 20_000;
/// The number of folds of a cross-validation.
const FOLDS: usize = 5;
/// The number of nodes of the field of a tile along each axis.
const NODES: usize = 41;
/// The number of iterations that invert the displacement of a tile.
const ITERATIONS: usize = 12;
/// The least number of tiles from which the stage's distortion is found.
const STAGE_TILES: usize = 6;

/// The distances of matches from what the other matches predict, pixels.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Residual {
    pub(super) rms: f64,
    pub(super) median: f64,
    pub(super) p95: f64,
}

impl Residual {
    fn of(mut residuals: Vec<f64>) -> Self {
        residuals.sort_unstable_by(f64::total_cmp);
        let count = residuals.len().max(1) as f64;
        let at = |share: f64| {
            let i = (share * count) as usize;
            residuals.get(i.min(residuals.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let rms = (residuals.iter().map(|r| r * r).sum::<f64>() / count).sqrt();
        Self { rms, median: at(0.5), p95: at(0.95) }
    }
}

/// A model, and how well it predicts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tried {
    model: StitchModel,
    lens: bool,
    residual_px: Residual,
}

/// The places of all tiles.
pub(super) struct Placed {
    basis: Basis,
    model: StitchModel,
    lens: bool,
    /// The coefficients of the displacements.
    found: Vec<[f64; 2]>,
    /// The shift of each tile that is added to its displacement, pixels.
    shifts: Vec<[f64; 2]>,
    /// All models that were tried.
    pub(super) tried: Vec<Tried>,
    /// The residuals of matches that the fit has not seen.
    pub(super) residual: Residual,
    /// The number of matches.
    pub(super) matches: usize,
    /// The tiles that no link connects to most of their plane.
    pub(super) by_stage: Vec<usize>,
    /// The number of tiles of planes with several.
    pub(super) several: usize,
}

/// Finds the displacements of all tiles.
pub(super) fn place(links: &Links, project: &Project, options: &Options) -> Placed {
    let models = match options.model {
        Some(model) => vec![model],
        None => vec![StitchModel::Translation, StitchModel::Affine, StitchModel::Elastic],
    };
    let lenses = options.lens.map_or(vec![false, true], |lens| vec![lens]);
    let mut tried = Vec::new();
    for model in models {
        for lens in &lenses {
            let basis = Basis::new(project, model, *lens);
            let residual_px = predicted(links, project, &basis);
            tried.push(Tried { model, lens: *lens, residual_px });
        }
    }
    let best = tried.iter().map(|tried| tried.residual_px.rms).fold(f64::INFINITY, f64::min);
    let chosen = tried.iter().find(|tried| BETTER * tried.residual_px.rms <= best);
    let (model, lens, residual) = chosen
        .map_or((StitchModel::Translation, false, Residual::default()), |chosen| {
            (chosen.model, chosen.lens, chosen.residual_px)
        });
    let basis = Basis::new(project, model, lens);
    let rows = rows_of(links.believed(), project, &basis, |_| true);
    let found = basis.fit(&rows);
    let tiles = project.tiles.len();
    let groups = links.groups(tiles);
    let mut placed = Placed {
        basis,
        model,
        lens,
        found,
        shifts: vec![[0.0; 2]; tiles],
        tried,
        residual,
        matches: rows.len(),
        by_stage: Vec::new(),
        several: 0,
    };
    placed.place_groups(&groups, project);
    placed
}

/// The residuals of matches that a fit has not seen.
fn predicted(links: &Links, project: &Project, basis: &Basis) -> Residual {
    let count: usize = links.believed().map(|link| link.matches.len()).sum();
    let folds = if count > MANY { 1 } else { FOLDS };
    let mut residuals = Vec::new();
    for fold in 0..folds {
        // neighbouring matches are in different folds
        let is_held = |i: usize| (i * 7 + i / 5) % FOLDS == fold;
        let fitted = rows_of(links.believed(), project, basis, |i| !is_held(i));
        let held: Rows = rows_of(links.believed(), project, basis, is_held);
        residuals.extend(held.residuals(&basis.fit(&fitted)));
    }
    Residual::of(residuals)
}

impl Placed {
    /// The model in words.
    pub(super) fn basis_name(&self) -> String {
        let lens = if self.lens { " with a distortion that all tiles share" } else { "" };
        format!("{}{lens}", self.model.name())
    }

    /// The displacement of a pixel (y, x) of a tile from where the stage puts it, pixels.
    fn displacement(&self, tile: usize, place: [f64; 2]) -> [f64; 2] {
        let by = self.basis.displacement(tile, place, &self.found);
        std::array::from_fn(|c| by[c] + self.shifts[tile][c])
    }

    /// Moves the groups of tiles that are not linked to most of their plane to where the other
    /// tiles say that the stage is.
    fn place_groups(&mut self, groups: &[usize], project: &Project) {
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        groups.iter().for_each(|group| *sizes.entry(*group).or_default() += 1);
        for z in project.planes() {
            let tiles: Vec<usize> =
                (0..groups.len()).filter(|i| project.tiles[*i].z == z).collect();
            let of = |group: usize| tiles.iter().filter(move |i| groups[**i] == group);
            // of groups of one size, the first
            let Some(main) = tiles.iter().map(|i| groups[*i]).max_by_key(|group| {
                (sizes.get(group).copied().unwrap_or_default(), std::cmp::Reverse(*group))
            }) else {
                continue;
            };
            if tiles.len() > 1 {
                self.several += tiles.len();
                let is_alone = of(main).count() < 2;
                self.by_stage.extend(tiles.iter().filter(|i| is_alone || groups[**i] != main));
            }
            let members: Vec<usize> = of(main).copied().collect();
            let stage = Stage::of(self, &members, project);
            let mut done = vec![main];
            for tile in &tiles {
                let group = groups[*tile];
                if done.contains(&group) {
                    continue;
                }
                done.push(group);
                let members: Vec<usize> = of(group).copied().collect();
                let by = stage.shift_of(self, &members, project);
                members.iter().for_each(|tile| self.shifts[*tile] = by);
            }
        }
    }

    /// Writes the document and, unless all maps are affine, the fields.
    pub(super) fn write(
        &self,
        project: &Project,
        output: &Path,
        ctx: &Context,
    ) -> Result<(), Error> {
        let mut stitched = project.clone();
        let fields = fields_beside(output);
        let is_affine = self.basis.is_affine();
        if !is_affine {
            self.write_fields(project, &fields, ctx)?;
        }
        for (i, tile) in stitched.tiles.iter_mut().enumerate() {
            tile.linked = self.by_stage.binary_search(&i).is_err();
            tile.map = if is_affine {
                vec![Step::Affine(self.affine(i, tile, project.spacing)?)]
            } else {
                self.steps(i, tile, project.spacing, &fields)
            };
        }
        Ok(stitched.write(output)?)
    }

    /// The map from the plane to a tile if it is affine.
    fn affine(&self, i: usize, tile: &Tile, spacing: [f64; 3]) -> Result<Affine, blocks::Error> {
        let [_, sy, sx] = spacing;
        let at = |y: f64, x: f64| {
            let by = self.displacement(i, [y, x]);
            [(tile.position[0] + y + by[0]) * sy, (tile.position[1] + x + by[1]) * sx]
        };
        let (origin, down, right) = (at(0.0, 0.0), at(1.0, 0.0), at(0.0, 1.0));
        let mut linear = [[1.0, 0.0, 0.0], [0.0; 3], [0.0; 3]];
        for c in 0..2 {
            linear[c + 1][1] = (down[c] - origin[c]) / sy;
            linear[c + 1][2] = (right[c] - origin[c]) / sx;
        }
        let forward =
            Affine::from_parts(linear, [tile.z as f64 * spacing[0], origin[0], origin[1]]);
        forward.inverse().map_err(|error| {
            let message = format!("the map of {} cannot be inverted: {error}", tile.name());
            blocks::Error::Usage(message)
        })
    }

    /// The constant part of the displacement of a tile.
    fn constant(&self, tile: &Tile, i: usize) -> [f64; 2] {
        self.displacement(i, tile.shape.map(|n| (n as f64 - 1.0) / 2.0))
    }

    /// The map from the plane to a tile: to the plane of its number in the field, through the field,
    /// and back to 0.
    fn steps(&self, i: usize, tile: &Tile, spacing: [f64; 3], fields: &Path) -> Vec<Step> {
        let [sz, sy, sx] = spacing;
        let by = self.constant(tile, i);
        let to = [
            i as f64 - tile.z as f64 * sz,
            -(tile.position[0] + by[0]) * sy,
            -(tile.position[1] + by[1]) * sx,
        ];
        vec![
            Step::Affine(Affine::translation(to)),
            Step::Field(fields.display().to_string()),
            Step::Affine(Affine::translation([-(i as f64), 0.0, 0.0])),
        ]
    }

    /// The largest displacement along an axis of a pixel from where the centre of its tile is shifted.
    fn largest(&self, project: &Project) -> f64 {
        let mut largest = 0.0_f64;
        for (i, tile) in project.tiles.iter().enumerate() {
            let constant = self.constant(tile, i);
            for node in 0..NODES * NODES {
                let at = [node / NODES, node % NODES].map(|v| v as f64 / (NODES - 1) as f64);
                let by = self.displacement(i, [0, 1].map(|c| at[c] * (tile.shape[c] as f64 - 1.0)));
                (0..2).for_each(|c| largest = largest.max((by[c] - constant[c]).abs()));
            }
        }
        largest
    }

    /// Writes the fields of all tiles: that of tile `i` is plane `i`.
    fn write_fields(&self, project: &Project, path: &Path, ctx: &Context) -> Result<(), Error> {
        let sides = [0, 1]
            .map(|c| project.tiles.iter().map(|tile| tile.shape[c]).max().unwrap_or(1) as f64);
        // the nodes reach beyond where the borders of tiles come to lie
        let margin = self.largest(project) + 2.0;
        let step = sides.map(|side| (side - 1.0 + 2.0 * margin) / (NODES - 1) as f64);
        let [_, sy, sx] = project.spacing;
        let grid = Grid::new(
            [project.tiles.len(), NODES, NODES],
            [1.0, step[0] * sy, step[1] * sx],
            [0.0, -margin * sy, -margin * sx],
        );
        let parts = FieldParts { components: 2, quality: Vec::new() };
        let chunk = [16.min(grid.shape[0]), NODES, NODES];
        let location = path.display().to_string();
        let out = FieldOutput::create_parts(&location, &grid, parts, chunk, &ctx.existing_now())?;
        let mut reach = [0.0_f64; 3];
        for part in grid.bounds().tiles(chunk) {
            let mut elements = Vec::with_capacity(2 * part.len());
            for i in part.min[0]..part.max[0] {
                let tile = &project.tiles[i as usize];
                for node in 0..NODES * NODES {
                    let at = [node / NODES, node % NODES];
                    let v = [0, 1].map(|c| at[c] as f64 * step[c] - margin);
                    let by = self.backwards(i as usize, tile, v);
                    for c in 0..2 {
                        let by = by[c] * [sy, sx][c];
                        reach[c + 1] = reach[c + 1].max(by.abs());
                        elements.push(by as f32);
                    }
                }
            }
            out.write_parts(&part, &elements)?;
        }
        out.set_attribute("reach", json!(reach))?;
        out.set_missing_blocks(None, true)?;
        Ok(())
    }

    /// The displacement from a place in the shifted frame of a tile to the pixel that is there: a
    /// fixed point, since displacements change slowly.
    fn backwards(&self, i: usize, tile: &Tile, v: [f64; 2]) -> [f64; 2] {
        let constant = self.constant(tile, i);
        let mut p = v;
        for _ in 0..ITERATIONS {
            let by = self.displacement(i, p);
            p = [0, 1].map(|c| v[c] - (by[c] - constant[c]));
        }
        [0, 1].map(|c| p[c] - v[c])
    }
}

/// What a displacement of tiles says of the stage: an affine map of the positions, or only a shift if
/// there are few.
struct Stage {
    centre: [f64; 2],
    terms: Vec<[f64; 2]>,
}

impl Stage {
    fn of(placed: &Placed, members: &[usize], project: &Project) -> Self {
        let middle = |c: usize| {
            median(&members.iter().map(|i| project.tiles[*i].position[c]).collect::<Vec<_>>())
        };
        let centre = [middle(0), middle(1)];
        let terms = if members.len() >= STAGE_TILES { 3 } else { 1 };
        let mut stage = Self { centre, terms: vec![[0.0; 2]; terms] };
        let mut rows = Rows::default();
        for i in members {
            let tile = &project.tiles[*i];
            rows.push(&stage.row(tile), placed.constant(tile, *i), 1.0);
        }
        // positions on one line do not determine the map across it
        (1..terms).for_each(|k| rows.push(&[(k, 1.0)], [0.0; 2], 1e-3));
        stage.terms = solve(&rows, terms);
        stage
    }

    fn row(&self, tile: &Tile) -> Vec<(usize, f64)> {
        let by = |c: usize| (tile.position[c] - self.centre[c]) / 1000.0;
        [1.0, by(0), by(1)].into_iter().enumerate().take(self.terms.len()).collect()
    }

    /// The shift that moves tiles to where the stage is.
    fn shift_of(&self, placed: &Placed, members: &[usize], project: &Project) -> [f64; 2] {
        let mut sum = [0.0; 2];
        for i in members {
            let tile = &project.tiles[*i];
            let own = placed.constant(tile, *i);
            for c in 0..2 {
                let stage: f64 = self.row(tile).iter().map(|(k, v)| v * self.terms[*k][c]).sum();
                sum[c] += (stage - own[c]) / members.len() as f64;
            }
        }
        sum
    }
}
