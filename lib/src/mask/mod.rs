//! Masks of the sections of a stack: where there is tissue, and where it is torn, wrinkled or dirty.
//!
//! Each plane is read at a reduced resolution, and its pixels get labels ([`Label`]): tissue is where
//! the local contrast is high (`cpu.rs`); the least contrast of tissue is found from the contrasts of
//! planes spread over the stack (`threshold.rs`). What is much darker or brighter than the tissue is
//! a defect: a wrinkle or a tear if it is a line, otherwise dirt or charging, which is excluded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Reads, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::filter::Regridded;
use crate::geom::{Box3, Grid};
use crate::metric::padding;
use crate::quote::ranges;
use crate::volume::{self, Codec, Dtype, Format, Label, Output, Select, Spec, Volume};

mod cpu;
mod drawn;
#[cfg(feature = "cli")]
mod flags;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
mod threshold;

#[cfg(feature = "cli")]
pub use flags::Flags;

use drawn::Drawn;
use threshold::Histogram;

/// The side of a chunk, pixels.
const CHUNK: usize = 256;
/// By default, the longest side of a mask has at most this many pixels.
const SIDE: usize = 2048;
/// The number of planes from whose contrasts the threshold is found.
const SAMPLED: usize = 16;
/// The memory of a task per pixel of a plane, bytes: the image, its means, distances and groups.
const PER_PIXEL: u64 = 72;
/// The memory for the voxels of a volume that are read at once, bytes.
const BAND: usize = 48 << 20;

/// Why masks could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run, such as an invalid option or an output that exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// No section has tissue.
    #[error(
        "none of the {sections} sections has tissue; lower --min-contrast or --min-area, or choose another channel; \
         sections lie along z"
    )]
    NoTissue {
        /// The number of sections.
        sections: usize,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// A pixel drawn by hand has no meaning.
    #[error(
        "{location} has the value {value} in section {section}; wanted 0 (as found), 1 (tissue), 2 (soft), 3 or -1 \
         (tear), 4 or -2 (wrinkle) or 5 (excluded)"
    )]
    Drawn {
        /// The location of the drawing.
        location: String,
        /// The value.
        value: f32,
        /// The section.
        section: usize,
    },
}

/// Whether something is darker or brighter than the tissue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Tone {
    /// Darker.
    Dark,
    /// Brighter.
    Bright,
}

/// How what is too dark or too bright is labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defects {
    /// The tone of wrinkles; `None` if there are none.
    pub wrinkles: Option<Tone>,
    /// The tone of tears; `None` if there are none.
    pub tears: Option<Tone>,
    /// Groups of fewer such pixels are not defects.
    pub min_area: usize,
    /// The distance by which defects are enlarged, pixels of the mask.
    pub grow: f64,
}

/// How masks are made. Lengths are pixels of the mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// The number of pixels of the stack along y and x that become one of the mask; `None` for the
    /// least power of 2 with which the mask has at most 2048 pixels along each axis.
    pub reduce: Option<usize>,
    /// The least contrast of tissue, grey values; `None` to find it.
    pub min_contrast: Option<f64>,
    /// The radius of the disc with which tissue is closed.
    pub close: f64,
    /// Smaller islands of tissue, and smaller holes in it, do not count.
    pub min_area: usize,
    /// What is darker than 97 % of the tissue, or brighter, by more than this many times the distance
    /// of this limit from the median is a defect; infinity for none.
    pub outlier: f64,
    /// How defects are labelled.
    pub defects: Defects,
    /// The width of the margin of tissue that is excluded, beside the border of a section too.
    pub edge: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reduce: None,
            min_contrast: None,
            close: 16.0,
            min_area: 1000,
            outlier: 0.7,
            defects: Defects {
                wrinkles: Some(Tone::Dark),
                tears: Some(Tone::Bright),
                min_area: 50,
                grow: 2.0,
            },
            edge: 0.0,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), blocks::Error> {
        let refuse = |flag: &str, found: String, wanted: &str| {
            Err(blocks::Error::Usage(format!("{flag} {found} is out of range; wanted {wanted}")))
        };
        if self.reduce.is_some_and(|n| !(1..=256).contains(&n)) {
            return refuse("--reduce", self.reduce.unwrap_or(0).to_string(), "1 to 256 pixels");
        }
        if self.min_contrast.is_some_and(|c| !(c >= 0.0 && c.is_finite())) {
            let found = self.min_contrast.unwrap_or_default().to_string();
            return refuse("--min-contrast", found, "a contrast of 0 or more");
        }
        if !(self.outlier >= 0.0) {
            return refuse("--outlier", self.outlier.to_string(), "0 or more");
        }
        for (flag, value) in
            [("--close", self.close), ("--grow", self.defects.grow), ("--edge", self.edge)]
        {
            if !(0.0..=10_000.0).contains(&value) {
                return refuse(flag, value.to_string(), "0 to 10000 pixels");
            }
        }
        if self.defects.wrinkles.is_some() && self.defects.wrinkles == self.defects.tears {
            return Err(blocks::Error::Usage(
                "--wrinkles and --tears have the same tone, and cannot be told apart; give none for one of them"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The number of pixels of each label in a section, and the least contrast of tissue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SectionCounts {
    section: usize,
    min_contrast: Option<f64>,
    pixels: [u64; Label::ALL.len()],
}

impl SectionCounts {
    fn of(section: usize, min_contrast: Option<f64>, labels: &[Label]) -> Self {
        let mut counts = Self { section, min_contrast, ..Self::default() };
        for label in labels {
            counts.pixels[*label as usize] += 1;
        }
        counts
    }

    fn share(&self, label: Label) -> f64 {
        self.pixels[label as usize] as f64 / self.pixels.iter().sum::<u64>().max(1) as f64
    }
}

/// Makes the mask of each section of the stack at `location`, and writes it to `output`, a Zarr array
/// of `int8` with the values of [`Label`] on a reduced grid. Labels `drawn` by hand replace what is
/// found.
///
/// # Errors
/// [`Error`].
pub fn mask(
    (location, select): (&str, &Select),
    drawn: Option<&str>,
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    options.check()?;
    let volume = Volume::open(location, select)?;
    let [_, height, width] = volume.grid().shape;
    if let Some(reduce) = options.reduce.filter(|n| *n > height.min(width)) {
        let message = format!(
            "--reduce {reduce} leaves nothing of sections of {height} x {width} pixels; give a smaller number"
        );
        return Err(blocks::Error::Usage(message).into());
    }
    let drawn = drawn.map(|drawn| Drawn::open(drawn, &volume)).transpose()?;
    let mut masks = Masks::new(&volume, drawn.as_ref(), options);
    let (plan, spec) = masks.plan(output, ctx)?;
    ctx.input(&volume);
    drawn.iter().for_each(|drawn| ctx.input(&drawn.volume));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let out = Arc::new(Output::begin(output, &spec, 1, &plan.as_run(ctx))?);
    ctx.output_array(&out);
    if !ctx.finish {
        masks.find_threshold()?;
    }
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &*out,
        |task| masks.read(task.core.min[0] as usize),
        |task, image| {
            let section = task.core.min[0] as usize;
            let labels = masks.labels(section, &image)?;
            Ok((
                labels.iter().map(|label| label.value()).collect::<Vec<_>>(),
                SectionCounts::of(section, masks.threshold, &labels),
            ))
        },
        |task, (values, counts)| {
            out.write(&task.core, &values)?;
            Ok(TaskResult::from(Outcome::Done).with_summary(&counts)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let counts: Result<Vec<SectionCounts>, _> =
        results.summaries().map(|summary| summary.map(|(_, counts)| counts)).collect();
    let has_tissue = conclude(&counts?, ctx);
    let names: Map<String, Value> = Label::ALL
        .iter()
        .map(|label| (label.value().to_string(), Value::from(label.name())))
        .collect();
    out.set_attribute("labels", json!(names))?;
    let sections = masks.grid().shape[0];
    if has_tissue {
        return Ok(());
    }
    Err(Error::NoTissue { sections, verdict: blocks::ExitReason::TooManyFailed })
}

/// Records the share of each label in each section; returns whether any has tissue.
fn conclude(counts: &[SectionCounts], ctx: &Context) -> bool {
    let row = |counts: &SectionCounts| {
        let mut row = Map::from_iter([("section".to_owned(), Value::from(counts.section))]);
        for label in Label::ALL {
            row.insert(label.name().to_owned(), json!(counts.share(label)));
        }
        Value::from(row)
    };
    // parts and whole runs find the same
    ctx.record("min_contrast", counts.iter().find_map(|counts| counts.min_contrast));
    ctx.record("sections", counts.iter().map(row).collect::<Vec<_>>());
    let with = |is: &dyn Fn(&SectionCounts) -> bool| -> Vec<usize> {
        counts.iter().filter(|counts| is(counts)).map(|counts| counts.section).collect()
    };
    let empty = with(&|counts| counts.share(Label::Tissue) < cpu::LEAST_TISSUE);
    let torn = with(&|counts| counts.share(Label::Tear) > 0.0);
    let wrinkled = with(&|counts| counts.share(Label::Wrinkle) > 0.0);
    for (name, sections) in [("empty", &empty), ("torn", &torn), ("wrinkled", &wrinkled)] {
        ctx.record(name, ranges(sections));
    }
    let named = |sections: &[usize]| match ranges(sections) {
        none if none.is_empty() => "none".to_owned(),
        some => some,
    };
    let mean = |label| {
        counts.iter().map(|counts| counts.share(label)).sum::<f64>() / counts.len().max(1) as f64
    };
    tracing::info!(
        "{:.1} % of the pixels are tissue; sections with tears: {}; with wrinkles: {}",
        100.0 * mean(Label::Tissue),
        named(&torn),
        named(&wrinkled)
    );
    if !empty.is_empty() {
        tracing::warn!("these sections have no tissue: {}", ranges(&empty));
    }
    empty.len() < counts.len()
}

/// The masks of a stack.
struct Masks<'a> {
    reduced: Regridded<'a>,
    drawn: Option<&'a Drawn>,
    options: &'a Options,
    /// The least contrast of tissue.
    threshold: Option<f64>,
}

impl<'a> Masks<'a> {
    fn new(volume: &'a Volume, drawn: Option<&'a Drawn>, options: &'a Options) -> Self {
        let grid = volume.grid();
        let [_, height, width] = grid.shape;
        let least = height.max(width).div_ceil(SIDE).next_power_of_two();
        let factor = options.reduce.unwrap_or(least.min(height.min(width).max(1))) as f64;
        let mut spacing = grid.spacing;
        (1..3).for_each(|a| spacing[a] *= factor);
        let reduced = Regridded::new(volume, Some(spacing));
        Self { reduced, drawn, options, threshold: options.min_contrast }
    }

    fn grid(&self) -> Grid {
        self.reduced.grid()
    }

    fn plan(&self, output: &str, ctx: &Context) -> Result<(Plan, Spec), Error> {
        if ctx.block_size.is_some() {
            let message = "--block-size has no effect: sections are masked whole; leave it out";
            return Err(blocks::Error::Usage(message.to_owned()).into());
        }
        let grid = self.grid();
        let spec = Spec {
            grid,
            dtype: Dtype::I8,
            chunk: [1, CHUNK, CHUNK],
            shard: None,
            codec: Codec::default(),
            format: Format::Zarr3,
        };
        let [_, height, width] = grid.shape;
        let block = [1, height.next_multiple_of(CHUNK), width.next_multiple_of(CHUNK)];
        let cost = |_: [usize; 3]| {
            Cost::bytes("labels of a section", PER_PIXEL * (height * width) as u64)
                + Cost::bytes("reading", 2 * BAND as u64)
        };
        blocks::refuse_large(block, grid.bounds(), WriteUnit::from(block), cost, ctx)?;
        let identity = Identity::of("mask")
            .with_processor()
            .with_volume("volume", self.reduced.volume())?
            .with_optional("drawn", self.drawn.map(|drawn| &drawn.volume))?
            .with("options", self.options)
            .with("output", &spec);
        let mut reads = vec![Reads::Volume(self.reduced.volume())];
        reads.extend(self.drawn.map(|drawn| Reads::Volume(&drawn.volume)));
        let each = Budget::each_thread(&reads, spec.writing_bytes(output));
        let plan = Plan::tile(grid.bounds(), block, cost(block), &identity).with_overhead(
            &Budget::of(ctx),
            Cost::default(),
            each,
        );
        Ok((plan, spec))
    }

    /// The grey values of a section, NaN where it is padded.
    fn read(&self, section: usize) -> anyhow::Result<Vec<f32>> {
        let [_, height, width] = self.grid().shape;
        let per_row = self.reduced.stored_voxels([1, 1, width]) * size_of::<f32>();
        let rows = (BAND / per_row.max(1)).max(1);
        let mut image = Vec::with_capacity(height * width);
        for first in (0..height).step_by(rows) {
            let last = (first + rows).min(height);
            let band = Box3::new(
                [section as i64, first as i64, 0],
                [section as i64 + 1, last as i64, width as i64],
            );
            image.extend(self.reduced.read::<f32>(&band)?);
        }
        image.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = f32::NAN);
        padding::mark([1, height, width], &mut image);
        Ok(image)
    }

    /// Finds the threshold from planes that are spread over the stack, unless it was given.
    fn find_threshold(&mut self) -> Result<(), Error> {
        if self.threshold.is_some() {
            return Ok(());
        }
        let [sections, height, width] = self.grid().shape;
        let mut histogram = Histogram::default();
        for i in 0..sections.min(SAMPLED) {
            let section = (2 * i + 1) * sections / (2 * sections.min(SAMPLED));
            let image = self.read(section).map_err(|e| blocks::Error::Field(e.into()))?;
            histogram.add(&cpu::contrast(&image, [height, width]));
        }
        // without any contrast, nothing is tissue
        let threshold = histogram.threshold().max(f64::MIN_POSITIVE);
        tracing::info!("contrasts of {threshold:.3} and more are those of tissue (--min-contrast)");
        self.threshold = Some(threshold);
        Ok(())
    }

    fn labels(&self, section: usize, image: &[f32]) -> anyhow::Result<Vec<Label>> {
        let [_, height, width] = self.grid().shape;
        let threshold = self.threshold.unwrap_or_default();
        let mut labels = cpu::labels(image, [height, width], threshold, self.options);
        if let Some(drawn) = self.drawn {
            drawn.replace(&mut labels, &self.grid(), section)?;
        }
        Ok(labels)
    }
}
