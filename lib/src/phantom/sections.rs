//! A stack of serial sections of one block of tissue, as an electron microscope images them.
//!
//! The pixel p of a section shows the tissue at R(p), where R shifts, turns and smoothly warps the
//! section. The map that aligns the stack takes each point q of the tissue to the pixel with
//! R(p) = q.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::marks::{Marks, Shown};
use super::noise::gradient_noise;
use super::random::{Random, mix, normal_of};
use super::{Error, create_folder};
use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, write_whole};
use crate::device::Cost;
use crate::geom::{Box3, Grid};
use crate::transform::{self, Step};
use crate::volume::{
    Codec, Dtype, FieldOutput, FieldParts, Format, Output, Spec, Unfinished, Voxel,
};

/// Parameters of [`sections`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sections {
    /// The number of sections, and of pixels along y and x.
    pub shape: [usize; 3],
    /// The thickness of a section and the size of a pixel along y and x, micrometres.
    pub spacing: [f64; 3],
    /// The length of the largest smooth displacement, pixels.
    pub max_displacement: f64,
    /// The shortest wavelength of the displacement, pixels; the longest is twice that.
    pub wavelength: f64,
    /// The largest shift along each axis, pixels.
    pub max_shift: f64,
    /// The largest rotation, degrees.
    pub max_rotation: f64,
    /// The strength of the noise.
    pub noise: f64,
    /// How many sections are flawed: at 1, a twentieth is broken, a twentieth blank, a fortieth
    /// doubled, and a fortieth missing.
    pub defects: f64,
    /// The seed of all random numbers.
    pub seed: u64,
}

/// What is wrong with a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing.
    Good,
    /// Two pieces with a gap between them.
    Broken,
    /// No tissue, but noise.
    Blank,
    /// The section before, imaged once more.
    Doubled,
    /// No image: all pixels are 0.
    Missing,
}

/// The names of the stack and of its true mask in their folder.
const STACK: &str = "sections.zarr";
const LABELS: &str = "labels.zarr";
/// The name of the file of the parameters and the kinds of the sections.
pub(super) const TRUTH: &str = "sections.json";
/// The side of a chunk, pixels.
const CHUNK: usize = 256;
/// The true field is sampled at every 8th pixel.
const FIELD_STEP: usize = 8;
/// The number of waves of a displacement.
const WAVES: usize = 5;
/// The size of the largest structures of the tissue, pixels.
const CELL: f64 = 48.0;
/// The number of sections after which the tissue has become another.
const CHANGE: f64 = 10.0;
/// The axes of the lattice of the noise, turned against those of the sections: along its planes, the
/// noise is visibly regular.
const LATTICE: [[f64; 3]; 3] = [[0.64, 0.6, 0.48], [-0.48, 0.8, -0.36], [-0.6, 0.0, 0.8]];

/// What is written beside the stack.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SectionsTruth {
    pub(super) parameters: Sections,
    pub(super) kinds: Vec<Kind>,
}

/// The map from the pixels of a section to the tissue, pixels along y and x.
#[derive(Clone, Debug)]
pub(super) struct SectionMap {
    centre: [f64; 2],
    /// Cosine and sine of the rotation.
    turn: [f64; 2],
    shift: [f64; 2],
    /// Wave vector, amplitude along y and x, phase.
    waves: Vec<([f64; 2], [f64; 2], f64)>,
    /// The line along which the section is broken: its normal, its offset, and the shift of the
    /// piece beyond.
    broken: Option<([f64; 2], f64, [f64; 2])>,
}

impl SectionMap {
    fn new(of: &Sections, section: u64, kind: Kind) -> Self {
        let mut random = Random::new(of.seed, 1000 + section);
        let centre = [1, 2].map(|a| (of.shape[a] as f64 - 1.0) / 2.0);
        let angle = random.between(-of.max_rotation, of.max_rotation).to_radians();
        let shift = [0; 2].map(|_| random.between(-of.max_shift, of.max_shift));
        let mut waves: Vec<_> = (0..WAVES)
            .map(|_| {
                let length = of.wavelength * random.between(1.0, 2.0);
                let frequency = std::f64::consts::TAU / length;
                let [along, push] = [0; 2].map(|_| {
                    let (sin, cos) = random.between(0.0, std::f64::consts::TAU).sin_cos();
                    [cos, sin]
                });
                let phase = random.between(0.0, std::f64::consts::TAU);
                (along.map(|v| v * frequency), push, phase)
            })
            .collect();
        // waves of equal height rarely all add up, so that the largest displacement is near this
        let height = of.max_displacement / (WAVES as f64).sqrt() / 1.5;
        waves.iter_mut().for_each(|(_, push, _)| *push = push.map(|v| v * height));
        let (sin, cos) = random.between(0.0, std::f64::consts::TAU).sin_cos();
        let gap = [random.between(6.0, 16.0), random.between(-12.0, 12.0)];
        let offset = random.between(-0.15, 0.15) * of.shape[1] as f64;
        let broken = (kind == Kind::Broken).then(|| {
            ([cos, sin], offset, [gap[0] * cos - gap[1] * sin, gap[0] * sin + gap[1] * cos])
        });
        Self { centre, turn: [angle.cos(), angle.sin()], shift, waves, broken }
    }

    /// The place of a pixel in the tissue; `None` in a gap.
    pub(super) fn apply(&self, p: [f64; 2]) -> Option<[f64; 2]> {
        let mut at = p;
        if let Some((normal, offset, by)) = self.broken {
            let away = (0..2).map(|a| normal[a] * (p[a] - self.centre[a])).sum::<f64>() - offset;
            if away > 0.0 {
                at = [p[0] - by[0], p[1] - by[1]];
                let back = (0..2).map(|a| normal[a] * (at[a] - self.centre[a])).sum::<f64>();
                if back < offset {
                    return None;
                }
            }
        }
        Some(self.whole(at))
    }

    fn whole(&self, p: [f64; 2]) -> [f64; 2] {
        let d: [f64; 2] = std::array::from_fn(|a| p[a] - self.centre[a]);
        let [cos, sin] = self.turn;
        let mut out = [
            cos * d[0] - sin * d[1] + self.centre[0] + self.shift[0],
            sin * d[0] + cos * d[1] + self.centre[1] + self.shift[1],
        ];
        for (wave, push, phase) in &self.waves {
            let height = (wave[0] * p[0] + wave[1] * p[1] + phase).sin();
            (0..2).for_each(|a| out[a] += push[a] * height);
        }
        out
    }

    /// The pixel that shows a place in the tissue, as if the section were not broken.
    fn invert(&self, q: [f64; 2]) -> [f64; 2] {
        let [cos, sin] = self.turn;
        let back = |v: [f64; 2]| [cos * v[0] + sin * v[1], cos * v[1] - sin * v[0]];
        let mut p = q;
        for _ in 0..100 {
            let at = self.whole(p);
            let miss = back([q[0] - at[0], q[1] - at[1]]);
            p = [p[0] + miss[0], p[1] + miss[1]];
            if miss[0].hypot(miss[1]) < 1e-9 {
                break;
            }
        }
        p
    }
}

impl Sections {
    fn check(&self) -> Result<(), Error> {
        let usage = |message: String| Err(blocks::Error::Usage(message).into());
        let [n, ny, nx] = self.shape;
        if !(2..=100_000).contains(&n) || [ny, nx].iter().any(|n| !(64..=100_000).contains(n)) {
            return usage(format!(
                "--size {n},{ny},{nx} is out of range; wanted 2 to 100000 sections of 64 to 100000 pixels along \
                 y and x"
            ));
        }
        if self.spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return usage(format!("--spacing {:?} is not three lengths above 0", self.spacing));
        }
        let quarter = ny.min(nx) as f64 / 4.0;
        for (flag, value, least, most) in [
            ("--max-displacement", self.max_displacement, 0.0, quarter),
            ("--max-shift", self.max_shift, 0.0, quarter),
            ("--max-rotation", self.max_rotation, 0.0, 180.0),
            ("--wavelength", self.wavelength, 64.0, 1e9),
            ("--noise", self.noise, 0.0, 20.0),
            ("--defects", self.defects, 0.0, 5.0),
        ] {
            if !(least..=most).contains(&value) {
                let why = if most == quarter { ", a quarter of the smaller side" } else { "" };
                return usage(format!(
                    "{flag} {value} is out of range; wanted {least} to {most}{why}"
                ));
            }
        }
        let steepest = std::f64::consts::TAU * self.max_displacement / self.wavelength;
        if steepest > 0.6 {
            return usage(format!(
                "displacements of {} pixels at a wavelength of {} would fold; lower --max-displacement or raise \
                 --wavelength",
                self.max_displacement, self.wavelength
            ));
        }
        Ok(())
    }

    /// The kind of each section. Flawed sections are not neighbours, and the first is good.
    fn kinds(&self) -> Vec<Kind> {
        let n = self.shape[0];
        let mut kinds = vec![Kind::Good; n];
        let mut random = Random::new(self.seed, 7);
        for (kind, share) in [
            (Kind::Broken, 0.05),
            (Kind::Blank, 0.05),
            (Kind::Doubled, 0.025),
            (Kind::Missing, 0.025),
        ] {
            let wanted = (share * self.defects * n as f64).round() as usize;
            let (mut placed, mut tries) = (0, 0);
            while placed < wanted && tries < 100 * n {
                tries += 1;
                let at = random.between(1.0, n as f64 - 1.0) as usize;
                let around = at.saturating_sub(2)..(at + 3).min(n);
                if at > 0 && kinds[around].iter().all(|kind| *kind == Kind::Good) {
                    kinds[at] = kind;
                    placed += 1;
                }
            }
        }
        kinds
    }

    fn grid(&self) -> Grid {
        Grid::new(self.shape, self.spacing, [0.0; 3])
    }
}

impl SectionsTruth {
    /// The map of a section; the second image of a section has the map of the first.
    pub(super) fn map(&self, section: usize) -> SectionMap {
        let kind = self.kinds[section];
        let own = if kind == Kind::Doubled { section.saturating_sub(1) } else { section };
        SectionMap::new(&self.parameters, own as u64, self.kinds[own])
    }

    /// A section as it was cut and imaged.
    fn imaged(&self, section: usize) -> Imaged {
        let of = &self.parameters;
        let mut random = Random::new(of.seed, 2000 + section as u64);
        let light = [random.between(0.75, 1.15), random.between(-20.0, 25.0)];
        let marks = Marks::new(of, &mut random);
        Imaged { kind: self.kinds[section], map: self.map(section), light, marks }
    }

    /// The grey values of a part of a section.
    fn render(&self, part: &Box3) -> Vec<u8> {
        let of = &self.parameters;
        let section = part.min[0] as usize;
        let imaged = self.imaged(section);
        let depth = section - usize::from(imaged.kind == Kind::Doubled);
        let [gain, offset] = imaged.light;
        let seed = mix(of.seed ^ mix(section as u64 + 77));
        let grey = |pixel: Box3| {
            let grey = match imaged.at(&pixel) {
                Shown::Nothing => return 0,
                Shown::Resin => 210.0,
                Shown::Gap => 235.0,
                // three layers of tissue are darker than any membrane
                Shown::Fold => 5.0,
                Shown::Tear => 240.0,
                Shown::Tissue(at) => tissue(of.seed as u32, depth as f64, at),
            };
            let pixel = mix(seed ^ mix((pixel.min[1] as u64) << 32 | pixel.min[2] as u64));
            let noise = 6.0 * of.noise * f64::from(normal_of(pixel, mix(pixel)));
            let value = gain * (grey - 128.0) + 128.0 + offset + noise;
            // 0 is the value of missing pixels
            value.round().clamp(1.0, 255.0) as u8
        };
        part.tiles([1; 3]).map(grey).collect()
    }

    /// The values of the true mask in a part of a section.
    fn labels(&self, part: &Box3) -> Vec<i8> {
        let imaged = self.imaged(part.min[0] as usize);
        part.tiles([1; 3]).map(|pixel| imaged.at(&pixel).label().value()).collect()
    }
}

/// A section as it was cut and imaged.
struct Imaged {
    kind: Kind,
    map: SectionMap,
    /// The gain and the offset of the grey values.
    light: [f64; 2],
    marks: Marks,
}

impl Imaged {
    /// What a pixel shows.
    fn at(&self, pixel: &Box3) -> Shown {
        let p = [1, 2].map(|a| pixel.min[a] as f64);
        match self.kind {
            Kind::Missing => Shown::Nothing,
            Kind::Blank => Shown::Resin,
            _ => match self.map.apply(p) {
                None => Shown::Gap,
                Some(at) => self.marks.at(p).unwrap_or(Shown::Tissue(at)),
            },
        }
    }
}

/// The grey value of the tissue at a depth in sections, and a place in pixels.
///
/// Structures fade from section to section and do not move, since the place of a structure that
/// leans is not defined: what fits best to the next section would then not be the truth.
pub(super) fn tissue(seed: u32, depth: f64, at: [f64; 2]) -> f64 {
    let layer = (depth / CHANGE).floor();
    let (coming, going) = ((depth / CHANGE - layer) * std::f64::consts::FRAC_PI_2).sin_cos();
    let of = |layer: f64| texture(seed, [31.7 * CELL * layer, at[0], at[1]]);
    150.0 + going * (of(layer) - 150.0) + coming * (of(layer + 1.0) - 150.0)
}

/// The grey value of a plane through tissue: membranes of cells and of smaller bodies, and grains.
fn texture(seed: u32, at: [f64; 3]) -> f64 {
    let noise = |salt: u32, size: f64| {
        let turned = LATTICE.map(|axis| (0..3).map(|a| axis[a] * at[a]).sum::<f64>() / size);
        f64::from(gradient_noise(seed.wrapping_add(salt), turned))
    };
    let membrane = |value: f64, width: f64| (-(value / width).powi(2)).exp();
    let cells = membrane(noise(1, CELL), 0.06);
    let bodies = membrane(noise(2, 0.4 * CELL), 0.1);
    let dark = (cells + 0.6 * bodies).min(1.0);
    let shade = 22.0 * noise(3, 1.5 * CELL) + 16.0 * noise(4, 0.13 * CELL);
    178.0 - 115.0 * dark + shade
}

/// Writes a stack of sections into `folder`: `sections.zarr`, its true mask `labels.zarr` with the
/// values of [`Label`](crate::volume::Label), the field `truth.zarr` that takes each point of the
/// tissue to its place in each section, its chain `truth.json`, and `sections.json` with the kind of
/// each section.
///
/// # Errors
/// [`Error`] if a parameter is out of range or an output exists.
pub fn sections(of: &Sections, folder: &Path, ctx: &Context) -> Result<(), Error> {
    of.check()?;
    let truth = SectionsTruth { parameters: of.clone(), kinds: of.kinds() };
    let document = folder.join("truth.json");
    ctx.refuse_existing(&document)?;
    create_folder(folder, ctx)?;
    let identity = Identity::of("phantom").with("sections", of);
    write_planes(&truth, (&folder.join(STACK), Dtype::U8), &identity, SectionsTruth::render, ctx)?;
    let labels = Identity::of("phantom").with("labels of sections", of);
    write_planes(&truth, (&folder.join(LABELS), Dtype::I8), &labels, SectionsTruth::labels, ctx)?;
    if ctx.plan_only {
        return Ok(());
    }
    let field = folder.join("truth.zarr");
    write_field(&truth, &field, ctx)?;
    let text = serde_json::to_vec_pretty(&truth).map_err(|e| Error::Truth {
        path: folder.join(TRUTH).display().to_string(),
        message: e.to_string(),
    })?;
    write_whole(&folder.join(TRUTH), &text)?;
    transform::write_document(&document, &[Step::Field(field.display().to_string())])?;
    ctx.record("kinds", json!(truth.kinds));
    Ok(())
}

/// Writes an array of the planes of all sections.
///
/// * `values`: makes the elements of a part of a section
fn write_planes<T: Voxel>(
    truth: &SectionsTruth,
    (path, dtype): (&Path, Dtype),
    identity: &Identity,
    values: fn(&SectionsTruth, &Box3) -> Vec<T>,
    ctx: &Context,
) -> Result<(), Error> {
    let grid = truth.parameters.grid();
    let chunk = [1, CHUNK, CHUNK];
    let spec =
        Spec { grid, dtype, chunk, shard: None, codec: Codec::default(), format: Format::Zarr3 };
    let location = path.to_string_lossy();
    let cost = Cost::of::<u8>("pixels", CHUNK * CHUNK);
    let plan = Plan::tile(grid.bounds(), chunk, cost, identity).with_overhead(
        &Budget::of(ctx),
        Cost::default(),
        Budget::each_thread(&[], spec.writing_bytes(&location)),
    );
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let output = Arc::new(Output::begin(&location, &spec, 1, &plan.as_run(ctx))?);
    ctx.output_array(&output);
    plan.stream_to::<_, _, _, Error>(
        ctx,
        &*output,
        |_| Ok(()),
        |task, ()| Ok(values(truth, &task.core)),
        |task, pixels| {
            output.write(&task.core, &pixels)?;
            Ok(Outcome::Done)
        },
    )?;
    Ok(())
}

/// The nodes of the true field.
fn field_grid(of: &Sections) -> Grid {
    let shape = of.shape;
    let nodes = |a: usize| (shape[a] - 1).div_ceil(FIELD_STEP) + 1;
    let step = FIELD_STEP as f64;
    let spacing = [of.spacing[0], step * of.spacing[1], step * of.spacing[2]];
    Grid::new([shape[0], nodes(1), nodes(2)], spacing, [0.0; 3])
}

fn write_field(truth: &SectionsTruth, path: &Path, ctx: &Context) -> Result<(), Error> {
    let of = &truth.parameters;
    let grid = field_grid(of);
    let chunk = [1, 64, 64];
    let parts = FieldParts { components: 2, quality: Vec::new() };
    let output =
        FieldOutput::create_parts(&path.to_string_lossy(), &grid, parts, chunk, &ctx.existing)?;
    let mut reach = [0.0_f64; 3];
    for part in grid.bounds().tiles(chunk) {
        let map = truth.map(part.min[0] as usize);
        let mut elements = Vec::with_capacity(2 * part.len());
        for node in part.tiles([1; 3]) {
            let q = [1, 2].map(|a| (node.min[a] * FIELD_STEP as i64) as f64);
            let p = map.invert(q);
            for a in 0..2 {
                let by = (p[a] - q[a]) * of.spacing[1 + a];
                reach[1 + a] = reach[1 + a].max(by.abs());
                elements.push(by as f32);
            }
        }
        output.write_parts(&part, &elements)?;
    }
    output.set_attribute("reach", json!(reach))?;
    Ok(output.set_missing_blocks(None, true)?)
}
