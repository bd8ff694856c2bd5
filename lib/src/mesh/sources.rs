//! Reads the displacements of patches, through the maps with which they were measured.

use super::matches::Matches;
use super::{Error, Options};
use crate::blocks::{self, Identity};
use crate::geom::{Affine, Box3, Chain, FieldSource, Grid, Point};
use crate::transform::{self, Direction, Step};
use crate::volume::FieldFile;
use crate::warp::points;

/// The name of the quality channel that weights are made of.
const CORRELATION: &str = "correlation";
/// Displacements along z differ by less than this from a whole number of sections, relative to the
/// thickness of one.
const ALIGNED: f64 = 1e-3;

/// A field of patches, and the steps with which it was measured.
pub(super) struct Source {
    pub(super) field: FieldFile,
    /// The steps that belong to the displacement.
    through: Chain,
    /// The steps that are applied after it.
    pub(super) after: Vec<Step>,
    /// The number of sections by which the other section precedes the own one.
    pub(super) distance: isize,
    channel: Option<usize>,
}

/// Opens the fields, which must have the same sections and the same steps after them.
pub(super) fn open(locations: &[String], options: &Options) -> Result<Vec<Source>, Error> {
    let mut sources: Vec<Source> = Vec::new();
    for location in locations {
        let refuse = |message: String| Err(Error::from(blocks::Error::Usage(message)));
        let steps = transform::read_steps(location, Direction::FixedToMoving)?;
        let Some((Step::Field(field), steps)) = steps.split_first() else {
            return refuse(format!(
                "{location} does not begin with a field; give the output of flow or clean-flow"
            ));
        };
        let field = FieldFile::open(field)?;
        // the mesh follows the whole displacement, but not an affine map that was given
        let leading = steps.iter().take_while(|step| matches!(step, Step::Field(_))).count();
        let (through, after) =
            if options.stack { (steps, [].as_slice()) } else { steps.split_at(leading) };
        let distance = distance(steps, &field.grid(), location, options)?;
        let chain = transform::open_steps(location, through, Direction::FixedToMoving)?;
        let channel = field.parts().quality.iter().position(|name| name == CORRELATION);
        if channel.is_none() && options.weighted {
            tracing::info!("{location} has no correlations; all of its matches have the weight 1");
        }
        let source = Source { field, through: chain, after: after.to_vec(), distance, channel };
        if let Some(first) = sources.first() {
            if first.after != source.after {
                return refuse(format!(
                    "{location} has another initial map than the first field; give fields that were measured with \
                     the same --initial"
                ));
            }
            let sections =
                |source: &Source| (source.field.parts().components, source.field.grid().shape[0]);
            if sections(first) != sections(&source) && sections(first).0 + sections(&source).0 < 6 {
                return refuse(format!(
                    "{location} has other sections, or vectors of other axes, than the first field"
                ));
            }
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Checks that the fields were measured through the chain `through`.
pub(super) fn check_through(
    sources: &[Source],
    locations: &[String],
    through: &Chain,
) -> Result<(), blocks::Error> {
    let given = if through.steps.is_empty() { None } else { Some(Identity::of_chain(through)?) };
    for (source, location) in sources.iter().zip(locations) {
        let message = match (source.field.through(), given.as_deref()) {
            (found, given) if found == given => continue,
            (Some(_), None) => {
                "was measured through transforms; give those that flow had as --through"
            }
            (None, _) => "was measured between the volumes as they are; leave out --through",
            _ => {
                // the content of large fields is known by the times of their files, which a copy changes
                tracing::warn!(
                    "{location} was measured through transforms that are not, or are copies of, those of --through"
                );
                continue;
            }
        };
        return Err(blocks::Error::Usage(format!("{location} {message}")));
    }
    Ok(())
}

/// The number of sections by which the steps lead to an earlier section; 0 if the fields do not
/// compare sections of one stack.
fn distance(
    steps: &[Step],
    grid: &Grid,
    location: &str,
    options: &Options,
) -> Result<isize, blocks::Error> {
    let mut along_z = 0.0;
    for step in steps {
        let Step::Affine(map) = step else { continue };
        let [row, ..] = map.rows();
        if options.stack && [row[0] - 1.0, row[1], row[2]].iter().any(|v| v.abs() > 1e-9) {
            return Err(blocks::Error::Usage(format!(
                "{location} maps sections by an affine map that tilts them or changes their thickness; --stack \
                 is for fields that were measured with --distance"
            )));
        }
        along_z += row[3];
    }
    // without the sign of 0
    let sections = 0.0 - along_z / grid.spacing[0];
    let refuse = |message: String| Err(blocks::Error::Usage(message));
    let is_translation = |map: &Affine| {
        let [y, x] = [map.rows()[1][3], map.rows()[2][3]];
        y == 0.0 && x == 0.0
    };
    if options.stack {
        if (sections - sections.round()).abs() > ALIGNED || sections.round() == 0.0 {
            return refuse(format!(
                "{location} does not compare sections of one stack: it leads {sections:.3} sections down; measure \
                 it with flow --planes --distance"
            ));
        }
        return Ok(sections.round() as isize);
    }
    let is_distance = grid.shape[0] > 1
        && sections.round() != 0.0
        && matches!(steps, [Step::Affine(map)] if is_translation(map));
    if is_distance {
        return refuse(format!(
            "{location} compares sections of one stack, at a distance of {sections:.0}; give --stack"
        ));
    }
    Ok(0)
}

impl Source {
    /// Adds content, distance and maps to an identity.
    pub(super) fn add_to(&self, identity: Identity, name: &str) -> Result<Identity, Error> {
        let content = self.field.fingerprint().map_err(blocks::Error::Field)?;
        let identity = identity.with(name, content);
        Ok(identity.with_chain(&format!("{name}, initial"), &self.through)?)
    }

    /// Reads the displacements of the sections from `first` to `end`, or of the whole volume.
    ///
    /// * `within`: the extent of the points that are needed, micrometres; `None` for all
    pub(super) fn read<const C: usize>(
        &self,
        [first, end]: [i64; 2],
        within: Option<[Point; 2]>,
        options: &Options,
    ) -> anyhow::Result<Matches<C>> {
        let own = self.field.grid();
        let all = own.bounds();
        let part =
            within.map_or(all, |extent| own.enclosing(extent).grow([0, 1, 1]).intersect(&all));
        let (mut min, mut max) = (part.min, part.max);
        if C == 2 {
            (min[0], max[0]) = (first, end);
        }
        let part = Box3::new(min, max);
        let vectors = self.field.read(&part).map_err(anyhow::Error::from_boxed)?;
        let mut weights = vec![1.0; vectors.len()];
        if let Some(channel) = self.channel.filter(|_| options.weighted) {
            let correlations = self.field.read_quality(channel, &part)?;
            for (weight, r) in weights.iter_mut().zip(correlations) {
                // an estimated vector has no correlation, and is no measurement
                *weight = if r.is_nan() { 0.0 } else { r.clamp(0.0, 1.0).powi(2) };
            }
        }
        let grid = own.crop(&part);
        let displacements = self.total(&grid, &vectors)?;
        Ok(Matches { grid, displacements, weights, distance: self.distance, first: part.min })
    }

    /// The displacements along the last `C` axes of vectors at the nodes of a grid, followed by the
    /// steps that belong to them.
    fn total<const C: usize>(
        &self,
        grid: &Grid,
        vectors: &[[f32; 3]],
    ) -> anyhow::Result<Vec<[f32; C]>> {
        let last = |v: [f64; 3]| std::array::from_fn(|c| v[3 - C + c] as f32);
        if self.through.steps.is_empty() {
            return Ok(vectors.iter().map(|v| last(v.map(f64::from))).collect());
        }
        let [_, ny, nx] = grid.shape;
        let mut total = Vec::with_capacity(vectors.len());
        for (z, plane) in vectors.chunks_exact((ny * nx).max(1)).enumerate() {
            let node = |i: usize| grid.position([z, i / nx, i % nx].map(|v| v as f64));
            let moved: Vec<Point> = plane
                .iter()
                .enumerate()
                .map(|(i, v)| std::array::from_fn(|a| node(i)[a] + f64::from(v[a])))
                .collect();
            let images = points::forward(&self.through, &moved)?;
            total.extend(images.iter().enumerate().map(|(i, image)| {
                let node = node(i);
                last(std::array::from_fn(|a| image[a] - node[a]))
            }));
        }
        Ok(total)
    }
}
