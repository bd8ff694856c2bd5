//! Writes a transform in the requested format.

use std::path::Path;

use super::fields::{self, Scratch};
use super::map_steps::{self, EvaluableStep, ForeignField, MapStep, SampledSteps};
use super::read_error::ReadError;
use super::reading::{Imported, Reading};
use super::target::TargetFormat;
use super::world::{AnatomicalFrame, Unit, World};
use super::{Error, bigwarp, elastix, itk, matrices, ngff, nifti, nrrd, reading};
use crate::blocks::{Context, Identity};
use crate::files;
use crate::geom::{Affine, Chain, FieldSource, Grid, Point};
use crate::store::{self, document};
use crate::transform::{self, Direction, Step};
use crate::volume::FieldFile;

/// Number of points of a landmark file along each axis.
const LANDMARKS: usize = 4;

/// The arguments of one call of [`super::transform`].
struct Export<'a> {
    source: &'a str,
    destination: &'a str,
    target: TargetFormat,
    onto: Option<Grid>,
    unit: Option<Unit>,
    /// How the source was interpreted, and what was requested.
    identity: Identity,
    ctx: &'a Context,
}

/// Reads the transform at `source` and writes it to `destination` as `target`, with lengths in
/// `to_unit` if the target allows a choice.
pub(super) fn transform(
    source: &str,
    reading: &Reading,
    destination: &str,
    target: TargetFormat,
    to_unit: Option<Unit>,
    ctx: &Context,
) -> Result<(), Error> {
    let identity = Identity::of("transcode").with("target", target.name()).with("unit", to_unit);
    let onto = reading.onto;
    let mut job = Export { source, destination, target, onto, unit: to_unit, identity, ctx };
    if let TargetFormat::Volume(_) = target {
        return Err(job.unfit(
            "is a transform; write it --to json, field, itk, ants, nifti, nrrd or another \
                              format of transforms",
        ));
    }
    if to_unit.is_some() && !target.takes_a_unit() {
        return Err(job.unfit(&format!(
            "is written --to {} in micrometres; leave --to-unit out",
            target.name()
        )));
    }
    super::target::check_name(destination, target)?;
    if job.is_source(destination) {
        return Err(job.unfit("is both the input and the output; give another name"));
    }
    let imported = reading::read(source, reading)?;
    job.identity = job.identity.with("read as", &imported.taken_as);
    // an existing field is refused later, by `FieldOutput::begin`, which accepts a field that
    // another process of the same run has created
    if target != TargetFormat::Field {
        ctx.refuse_existing(Path::new(destination))?;
    }
    ctx.input_file(source);
    if !ctx.plan_only {
        ctx.record("read_as", imported.taken_as.clone());
    }
    job.write(imported)
}

impl Export<'_> {
    fn unfit(&self, message: &str) -> Error {
        ReadError::from(message).of(self.source)
    }

    /// Whether `place` is the source or contains it, so that it must not be replaced.
    fn is_source(&self, place: &str) -> bool {
        match (Path::new(self.source).canonicalize(), Path::new(place).canonicalize()) {
            (Ok(source), Ok(place)) => source.starts_with(place),
            _ => false,
        }
    }

    fn write(&self, imported: Imported) -> Result<(), Error> {
        match self.target {
            TargetFormat::Json | TargetFormat::Ngff => self.write_chain(imported.pieces),
            TargetFormat::Field => self.write_field(imported.pieces),
            TargetFormat::Nifti | TargetFormat::Nrrd => self.write_flat(imported.pieces),
            TargetFormat::BigWarp => self.write_landmarks(imported),
            _ => self.write_matrix(&imported.pieces),
        }
    }

    /// Writes a chain as native JSON or as OME-NGFF, with its fields.
    fn write_chain(&self, pieces: Vec<MapStep>) -> Result<(), Error> {
        let sampled = self.onto.is_some() || pieces.iter().any(|p| matches!(p, MapStep::Smooth(_)));
        let steps = if sampled { self.sample_chain(pieces)? } else { self.copy_chain(pieces)? };
        if self.ctx.plan_only || !self.ctx.gathers() {
            return Ok(());
        }
        let path = Path::new(self.destination);
        if self.target == TargetFormat::Ngff {
            ngff::write(path, &steps)?;
        } else {
            transform::write_document(path, &steps)?;
        }
        self.ctx.output_file(path);
        Ok(())
    }

    /// Refuses standard output for a chain with fields, which are stored next to the document.
    fn refuse_stream(&self) -> Result<(), Error> {
        if files::is_stream(self.destination) {
            return Err(self.unfit(
                "holds a field or a spline, which is written as an array beside the JSON; write it to a file",
            ));
        }
        Ok(())
    }

    /// The location of the `n`-th field of a chain.
    fn place(&self, n: usize) -> String {
        let path = Path::new(self.destination);
        if self.target == TargetFormat::Ngff {
            return path.join(ngff::field_path(n)).join("s0").display().to_string();
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let number = if n == 0 { String::new() } else { format!("-{}", n + 1) };
        path.with_file_name(format!("{stem}.field{number}.zarr")).display().to_string()
    }

    /// Samples the whole map as one field, followed by the matrix that extrapolates outside it.
    fn sample_chain(&self, pieces: Vec<MapStep>) -> Result<Vec<Step>, Error> {
        self.refuse_stream()?;
        let scratch = Scratch::next_to(self.destination);
        let stages = self.stages(pieces, &scratch)?;
        let last = map_steps::affine_part(&stages);
        let location = self.place(0);
        self.sample(stages, last, &location)?;
        let mut steps = vec![Step::Field(location)];
        if last != Affine::IDENTITY {
            steps.push(Step::Affine(last));
        }
        Ok(steps)
    }

    fn sample(
        &self,
        stages: Vec<EvaluableStep>,
        last: Affine,
        location: &str,
    ) -> Result<(), Error> {
        let grid = self.onto.ok_or_else(|| {
            self.unfit(
                "must be sampled on a grid; give it with --onto VOLUME, or with --shape and \
                        --out-spacing",
            )
        })?;
        let inverse_of_last = last.inverse().map_err(|e| self.unfit(&e.to_string()))?;
        let sampled = SampledSteps { stages, grid, inverse_of_last };
        if !self.ctx.plan_only {
            tracing::info!(
                "{}: sampled on {:?} voxels; exact at them, linear between",
                self.source,
                grid.shape
            );
        }
        fields::write_field(&sampled, location, self.identity.clone(), self.ctx)
    }

    /// Copies the steps unchanged; foreign fields are written as native arrays.
    fn copy_chain(&self, pieces: Vec<MapStep>) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        let mut count = 0;
        for piece in pieces {
            match piece {
                MapStep::Affine(map) => steps.push(Step::Affine(map)),
                MapStep::Native(step @ Step::Field(_)) if self.target == TargetFormat::Ngff => {
                    let location = self.place(count);
                    count += 1;
                    let Step::Field(from) = &step else { continue };
                    self.copy(&FieldFile::open(from)?, &location)?;
                    steps.push(Step::Field(location));
                }
                MapStep::Native(Step::LocalAffines(_)) if self.target == TargetFormat::Ngff => {
                    return Err(self.unfit(
                        "holds local affines, which OME-NGFF has no word for; sample them \
                                           with --onto",
                    ));
                }
                MapStep::Native(step) => steps.push(step),
                MapStep::ForeignField(field) => {
                    self.refuse_stream()?;
                    let location = self.place(count);
                    count += 1;
                    self.import(*field, &location)?.into_iter().for_each(|step| steps.push(step));
                }
                MapStep::Smooth(_) => {
                    return Err(
                        self.unfit("holds a spline; say on which grid to sample it with --onto")
                    );
                }
            }
        }
        Ok(steps)
    }

    fn import(&self, mut field: ForeignField, location: &str) -> Result<Vec<Step>, Error> {
        let scratch = Scratch::next_to(location);
        if !self.ctx.plan_only && !self.ctx.finish {
            field.prepare(scratch.path())?;
        }
        self.copy(&field, location)?;
        Ok(field.steps(location))
    }

    fn copy(&self, field: &dyn FieldSource, location: &str) -> Result<(), Error> {
        if self.is_source(location) {
            return Err(self.unfit("would be replaced by its own copy; give another name"));
        }
        fields::write_field(field, location, self.identity.clone(), self.ctx)
    }

    /// Makes all maps ready for evaluation; foreign fields are copied to native ones in the scratch
    /// folder.
    fn stages(&self, pieces: Vec<MapStep>, scratch: &Scratch) -> Result<Vec<EvaluableStep>, Error> {
        let mut stages = Vec::new();
        for (i, piece) in pieces.into_iter().enumerate() {
            stages.push(match piece {
                MapStep::Affine(map) => EvaluableStep::Chain(Chain::affine(map)),
                MapStep::Smooth(warp) => EvaluableStep::Smooth(warp),
                MapStep::Native(step) => EvaluableStep::Chain(open(self.source, &[step])?),
                MapStep::ForeignField(field) if self.ctx.plan_only => {
                    let grid = field.grid();
                    tracing::debug!("{}: a field of {:?} vectors", self.source, grid.shape);
                    continue;
                }
                MapStep::ForeignField(_) if self.ctx.scattered => {
                    return Err(
                        self.unfit("cannot be sampled in parts; convert it with --to json first")
                    );
                }
                MapStep::ForeignField(mut field) => {
                    field.prepare(scratch.path())?;
                    let location = scratch.at(&format!("{i}.zarr"));
                    fields::copy_field(&*field, &location)?;
                    EvaluableStep::Chain(open(&location, &field.steps(&location))?)
                }
            });
        }
        Ok(stages)
    }

    /// Writes the whole map as one native field.
    fn write_field(&self, pieces: Vec<MapStep>) -> Result<(), Error> {
        self.one_field(pieces, self.destination)?;
        if !self.ctx.plan_only && self.ctx.gathers() {
            self.ctx.output_file(Path::new(self.destination));
        }
        Ok(())
    }

    /// Writes the whole map as one field at `location`. A single field keeps its own samples if no
    /// grid is given; any other map is sampled on the grid.
    fn one_field(&self, mut pieces: Vec<MapStep>, location: &str) -> Result<(), Error> {
        pieces.retain(|piece| !matches!(piece, MapStep::Affine(map) if *map == Affine::IDENTITY));
        match (pieces.as_mut_slice(), self.onto) {
            ([MapStep::ForeignField(_)], None) => {
                let Some(MapStep::ForeignField(field)) = pieces.pop() else { return Ok(()) };
                if !field.is_straight() {
                    return Err(self.unfit(
                        "has axes that are turned against ours: write it --to json (exact, \
                                           with matrices), or say a grid with --onto",
                    ));
                }
                self.import(*field, location).map(|_| ())
            }
            ([MapStep::Native(Step::Field(from))], None) => {
                self.copy(&FieldFile::open(from)?, location)
            }
            _ => {
                let scratch = Scratch::next_to(location);
                let stages = self.stages(pieces, &scratch)?;
                self.sample(stages, Affine::IDENTITY, location)
            }
        }
    }

    /// Writes the whole map as a displacement field in a single file of another format, by way of a
    /// native field.
    fn write_flat(&self, pieces: Vec<MapStep>) -> Result<(), Error> {
        let path = Path::new(self.destination);
        if store::is_remote(path) {
            let message = "cannot be written to a bucket, as it is one file that is written piece by piece; \
                           give a local path, or a name that ends in .zarr";
            return Err(ReadError::from(message).of(self.destination));
        }
        if self.ctx.scattered {
            return Err(self.unfit(
                "is written into one file, which cannot be done in parts; leave --part out",
            ));
        }
        let scratch = Scratch::next_to(self.destination);
        let location = match pieces.as_slice() {
            [MapStep::Native(Step::Field(from))] if self.onto.is_none() => from.clone(),
            _ => {
                let location = scratch.at("field.zarr");
                self.one_field(pieces, &location)?;
                location
            }
        };
        if self.ctx.plan_only {
            return Ok(());
        }
        let field = FieldFile::open(&location)?;
        let um = self.unit.unwrap_or(Unit::Mm).micrometres();
        if self.target == TargetFormat::Nifti {
            nifti::write(path, &field, um)?;
        } else {
            nrrd::write(path, &field, um)?;
        }
        self.record_convention(World { frame: AnatomicalFrame::Lps, micrometres: um });
        self.ctx.output_file(path);
        Ok(())
    }

    /// Writes landmarks on a lattice over the grid.
    fn write_landmarks(&self, imported: Imported) -> Result<(), Error> {
        let grid = self.onto.ok_or_else(|| {
            self.unfit("becomes landmarks on a grid; say which with --onto VOLUME, or --shape and --out-spacing")
        })?;
        if self.ctx.plan_only {
            return Ok(());
        }
        let fixed = lattice(&grid);
        let scratch = Scratch::next_to(self.destination);
        let stages = self.stages(imported.pieces, &scratch)?;
        let mut moving = fixed.clone();
        map_steps::map_points(&stages, &mut moving).map_err(Error::Field)?;
        let world = World {
            frame: AnatomicalFrame::Lps,
            micrometres: self.unit.unwrap_or(Unit::Um).micrometres(),
        };
        let axes = if imported.planar || grid.shape[0] == 1 { 2 } else { 3 };
        let text = bigwarp::write(&fixed, &moving, world, axes);
        self.write_file(text.as_bytes(), world)
    }

    /// Writes a single matrix.
    fn write_matrix(&self, pieces: &[MapStep]) -> Result<(), Error> {
        let map = one_matrix(pieces).ok_or_else(|| {
            self.unfit("holds a field, a spline or local affines, which no matrix can say; write it --to json, \
                        or as a field --to nifti or nrrd")
        })?;
        if self.ctx.plan_only {
            return Ok(());
        }
        let usual = if let TargetFormat::Matrix(_) = self.target { Unit::Um } else { Unit::Mm };
        let frame = if self.target == TargetFormat::Greedy {
            AnatomicalFrame::Ras
        } else {
            AnatomicalFrame::Lps
        };
        let world = World { frame, micrometres: self.unit.unwrap_or(usual).micrometres() };
        match self.target {
            TargetFormat::Matrix(axes) => {
                let path = Path::new(self.destination);
                let shift = map.offset().map(|v| v / world.micrometres);
                transform::write_matrix_text(path, &Affine::from_parts(map.linear(), shift), axes)?;
                self.ctx.output_file(path);
                Ok(())
            }
            TargetFormat::Itk => self.write_file(itk::write_text(&map, world).as_bytes(), world),
            TargetFormat::Ants => self.write_file(&itk::write_matlab(&map, world), world),
            TargetFormat::Greedy => {
                self.write_file(matrices::write_greedy(&map, world).as_bytes(), world)
            }
            _ => {
                let onto = self.onto.ok_or_else(|| {
                    self.unfit(
                        "becomes a file that names the grid of the fixed image; say it with --onto",
                    )
                })?;
                let text = elastix::write(&map, world, &onto);
                self.write_file(text.map_err(|e| self.unfit(&e))?.as_bytes(), world)
            }
        }
    }

    fn write_file(&self, bytes: &[u8], world: World) -> Result<(), Error> {
        let path = Path::new(self.destination);
        document::write_whole(path, bytes).map_err(|source| Error::Io {
            action: "write",
            path: self.destination.to_owned(),
            source,
        })?;
        self.record_convention(world);
        self.ctx.output_file(path);
        Ok(())
    }

    /// Logs and records the conventions of the output.
    fn record_convention(&self, world: World) {
        let unit = [Unit::Nm, Unit::Um, Unit::Mm]
            .into_iter()
            .find(|unit| unit.micrometres() == world.micrometres)
            .map_or("", Unit::name);
        let frame = if self.target == TargetFormat::BigWarp { "" } else { world.frame.name() };
        tracing::info!(
            "{}: written as {}: fixed-to-moving, x,y,z, {frame}{}{unit}",
            self.destination,
            self.target.name(),
            if frame.is_empty() { "" } else { ", " },
        );
        self.ctx.record(
            "written_as",
            serde_json::json!({"format": self.target.name(), "direction": "fixed-to-moving", "axes": "x,y,z",
                               "frame": frame, "unit": unit}),
        );
    }
}

/// Opens the steps of a document as a chain.
pub(super) fn open(document: &str, steps: &[Step]) -> Result<Chain, Error> {
    Ok(transform::open_steps(document, steps, Direction::FixedToMoving)?)
}

fn one_matrix(pieces: &[MapStep]) -> Option<Affine> {
    pieces.iter().try_fold(Affine::IDENTITY, |sum, piece| match piece {
        MapStep::Affine(map) => Some(sum.then(map)),
        _ => None,
    })
}

/// Points on a regular lattice over a grid, including its corners.
fn lattice(grid: &Grid) -> Vec<Point> {
    let along = |a: usize| -> Vec<f64> {
        let last = grid.shape[a].saturating_sub(1) as f64;
        let count = if last == 0.0 { 1 } else { LANDMARKS };
        (0..count).map(|i| last * i as f64 / (count.max(2) - 1) as f64).collect()
    };
    let [z, y, x] = [along(0), along(1), along(2)];
    let mut points = Vec::new();
    for z in &z {
        for y in &y {
            points.extend(x.iter().map(|x| grid.position([*z, *y, *x])));
        }
    }
    points
}
