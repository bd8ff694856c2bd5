//! The report of an aligned stack of sections.
//!
//! Each section is compared with the one before it, before and after the alignment, at a resolution
//! at which planes have a few hundred pixels. What the programs found about pairs of sections is
//! taken from the last receipt of `relax`, and the displacements from the transforms.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::page::{self, StackPage};
use super::planes::{Contrast, Plane};
use super::receipts::Receipt;
use super::{Error, pretty, short_name};
use crate::blocks::{Budget, Context, Reads, write_whole};
use crate::device::Cost;
use crate::geom::{Chain, Grid};
use crate::metric::{PairSums, padding};
use crate::quote::ranges;
use crate::volume::{Select, Volume, levels};

mod charts;
mod places;

use charts::{Line, arrows, chart, strip};
use places::{Place, places};

/// The inputs and the output of the report of a stack.
pub struct StackRequest {
    /// The location of the stack before the alignment, and what is selected of it.
    pub stack: String,
    /// The channel to read, and values that override the metadata of the stack.
    pub select: Select,
    /// The location of the aligned stack.
    pub aligned: String,
    /// The transforms from the aligned stack to the sections; can be empty.
    pub transform: Vec<String>,
    /// Receipts: JSON files, or arrays that hold one in their attributes.
    pub receipts: Vec<PathBuf>,
    /// The title of the page; `None` for one that names the stack.
    pub title: Option<String>,
    /// The path of the page.
    pub output: PathBuf,
}

/// The smallest side of the planes that are compared, pixels, if a level with it is stored.
const LEAST_SIDE: usize = 256;
/// Sections that have less than this fraction of their pixels in common have no correlation.
const LEAST_COMMON: f64 = 0.05;
/// The number of pairs that the page lists, the worst first.
const LISTED: usize = 15;
/// Memory for decoded chunks of each volume, bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// The numbers of a section.
#[derive(Clone, Debug, Default, Serialize)]
struct Section {
    section: usize,
    /// The correlation with the section before it, before and after the alignment.
    ncc_before: Option<f64>,
    ncc_after: Option<f64>,
    /// Its place, if transforms are given.
    place: Option<Place>,
    /// Of the pair with the section before it: the fraction of the nodes that are matched, and the
    /// residual, micrometres.
    matched: Option<f64>,
    residual_um: Option<f64>,
}

/// Writes the page, and its numbers as JSON beside it.
///
/// # Errors
/// [`Error`] if an input is not of the expected kind, the stacks have different numbers of sections,
/// or an output exists.
pub fn write_stack(request: &StackRequest, ctx: &Context) -> Result<(), Error> {
    let output = &request.output;
    ctx.refuse_existing(output)?;
    let receipts: Vec<Receipt> =
        request.receipts.iter().map(|path| Receipt::read(path)).collect::<Result<_, _>>()?;
    let chain = crate::transform::read_chain(&request.transform)
        .map_err(|e| Error::Input { path: request.transform.join(" "), message: e.to_string() })?;
    let whole = Volume::open(&request.stack, &request.select)?;
    ctx.input(&whole);
    let has_overrides = request.select.spacing.is_some() || request.select.origin.is_some();
    let aligned = Volume::open(&request.aligned, &Select::default())?;
    ctx.input(&aligned);
    check(&whole, &aligned)?;
    let (pixel, sizes) = (aligned.grid().spacing[1], [whole.grid().shape, aligned.grid().shape]);
    let [before, after] =
        if has_overrides { [whole, aligned] } else { reduced([whole, aligned], &request.select)? };
    let budget = Budget::of(ctx);
    let reads = [&before, &after].map(|volume| (Reads::Volume(volume), CACHE_BYTES));
    let planes = Cost::bytes("planes", 64 << 20);
    let kept = budget.caches(&reads, &planes);
    if ctx.is_plan_asked("comparing the sections", &budget, &(planes + kept))? {
        return Ok(());
    }
    let mut found = Found::of(&before, &after, &chain, &receipts)?;
    found.pixel = pixel;
    if sizes[0] != sizes[1] {
        let [own, other] = sizes.map(|[_, y, x]| format!("{y} x {x}"));
        found.warnings.push(format!(
            "the aligned sections have {other} pixels, and those of the stack {own}: is it the same stack?"
        ));
    }
    ctx.check_inputs()?;
    let [numbers_path, _] = super::companion_paths(output);
    super::create_folder_of(output)?;
    let page = found.page(request, &before, &after, receipts)?;
    write_whole(&numbers_path, pretty(&found.numbers(request)).as_bytes())?;
    write_whole(output, page.as_bytes())?;
    ctx.output_file(output);
    for (name, of) in [("before", &found.median[0]), ("after", &found.median[1])] {
        ctx.record(&format!("ncc_{name}"), json!(of));
    }
    Ok(())
}

/// The coarsest level that is stored of both stacks, has all sections, and planes no smaller than
/// [`LEAST_SIDE`]; the stacks themselves if there is none. Correlations at different resolutions cannot
/// be compared.
fn reduced(stacks: [Volume; 2], select: &Select) -> Result<[Volume; 2], Error> {
    let sections = stacks[0].grid().shape[0];
    let [own, other] = stacks.each_ref().map(|of| levels(of.location()).unwrap_or_default());
    let common = own.iter().filter_map(|level| {
        let [nz, ny, nx] = level.grid.shape;
        let is_useful = nz == sections && ny.min(nx) >= LEAST_SIDE;
        let same = other.iter().find(|other| other.grid.shape == level.grid.shape)?;
        is_useful.then_some((level, same))
    });
    match common.min_by_key(|(level, _)| level.grid.shape[1] * level.grid.shape[2]) {
        Some((level, same)) if level.grid.shape != stacks[0].grid().shape => Ok([
            Volume::open(&level.location, select)?,
            Volume::open(&same.location, &Select::default())?,
        ]),
        _ => Ok(stacks),
    }
}

/// The end of a location that identifies it; of a pattern, with its folder.
fn name_of(stack: &str) -> String {
    let (folder, name) = stack.rsplit_once('/').unwrap_or(("", stack));
    if name.contains('*') { format!("{}/{name}", short_name(folder)) } else { short_name(stack) }
}

fn check(before: &Volume, after: &Volume) -> Result<(), Error> {
    let [own, other] = [before.grid().shape[0], after.grid().shape[0]];
    if own == other && own > 1 {
        return Ok(());
    }
    let path = after.location().to_owned();
    let message = format!(
        "has {other} sections, and {} has {own}; wanted the same stack of two or more before and after the alignment",
        before.location()
    );
    Err(Error::Input { path, message })
}

/// What the page shows.
struct Found {
    sections: Vec<Section>,
    /// The medians of the correlations before and after.
    median: [Option<f64>; 2],
    /// The pairs in the last receipt of `relax`.
    pairs: Vec<Value>,
    not_placed: String,
    contrasts: [Contrast; 2],
    /// The size of a pixel of the aligned stack, micrometres.
    pixel: f64,
    warnings: Vec<String>,
}

impl Found {
    fn of(
        before: &Volume,
        after: &Volume,
        chain: &Chain,
        receipts: &[Receipt],
    ) -> Result<Self, Error> {
        let (ncc_before, low) = correlations(before)?;
        let (ncc_after, high) = correlations(after)?;
        let mut sections: Vec<Section> = ncc_before
            .iter()
            .zip(&ncc_after)
            .enumerate()
            .map(|(section, (before, after))| Section {
                section,
                ncc_before: *before,
                ncc_after: *after,
                ..Section::default()
            })
            .collect();
        if !chain.steps.is_empty() {
            for (section, place) in sections.iter_mut().zip(places(chain, &after.grid())?) {
                section.place = place;
            }
        }
        let relax = receipts.iter().rev().find(|receipt| receipt.program() == "relax");
        let pairs = relax.and_then(|relax| relax.result("pairs")).and_then(Value::as_array);
        let pairs = pairs.cloned().unwrap_or_default();
        for pair in pairs.iter().filter(|pair| pair["distance"] == 1) {
            let at = pair["section"].as_u64().and_then(|z| sections.get_mut(z as usize));
            let Some(section) = at else { continue };
            let [nodes, matched] = ["nodes", "matched"].map(|name| pair[name].as_f64());
            section.matched = nodes.zip(matched).map(|(nodes, matched)| matched / nodes.max(1.0));
            section.residual_um = pair["rms_um"].as_f64().filter(|_| matched > Some(0.0));
        }
        let not_placed = relax.and_then(|relax| relax.result("not_placed"));
        let not_placed = not_placed.and_then(Value::as_str).unwrap_or_default().to_owned();
        let median = [&ncc_before, &ncc_after].map(|of| median(of));
        let mut warnings: Vec<String> = receipts.iter().flat_map(Receipt::warnings).collect();
        warnings.extend(worse(&sections));
        let pixel = after.grid().spacing[1];
        Ok(Self { sections, median, pairs, not_placed, contrasts: [low, high], pixel, warnings })
    }

    fn numbers(&self, request: &StackRequest) -> Value {
        json!({
            "stack": request.stack,
            "aligned": request.aligned,
            "ncc_before": self.median[0],
            "ncc_after": self.median[1],
            "not_placed": self.not_placed,
            "sections": self.sections,
            "pairs": self.pairs,
            "warnings": self.warnings,
        })
    }

    fn page(
        &self,
        request: &StackRequest,
        before: &Volume,
        after: &Volume,
        receipts: Vec<Receipt>,
    ) -> Result<String, Error> {
        let states = [(before, self.contrasts[0], "before"), (after, self.contrasts[1], "after")];
        let mut overlays = Vec::new();
        for (caption, section) in self.shown() {
            for (volume, contrast, state) in states {
                let own = Plane::read(volume, 0, section)?;
                let other = Plane::read(volume, 0, section - 1)?;
                let figure =
                    charts::section(&other.overlay(contrast, &own, contrast), &volume.grid());
                let name = format!("{} and {section}, {caption}: {state}", section - 1);
                overlays.push(json!({ "name": name, "figure": figure }));
            }
        }
        let mut strips = Vec::new();
        for (axis, name) in [(1, "XZ"), (2, "YZ")] {
            for (volume, contrast, state) in states {
                let plane = Plane::read(volume, axis, volume.grid().shape[axis] / 2)?;
                let figure = strip(&plane, axis, contrast, &volume.grid());
                strips.push(json!({ "name": format!("{name}, {state}"), "figure": figure }));
            }
        }
        let (arrows, arrow_caption) = self.arrows(after)?;
        page::render_stack(&StackPage {
            title: request.title.clone().unwrap_or_else(|| {
                format!("Alignment of the sections of {}", name_of(&request.stack))
            }),
            stack: super::views::describe(&request.stack, &before.grid()),
            aligned: super::views::describe(&request.aligned, &after.grid()),
            sections: self.sections.len(),
            not_placed: self.not_placed.clone(),
            ncc: self.median,
            charts: self.charts(self.pixel),
            overlays,
            strips,
            arrows,
            arrow_caption,
            pairs: self.worst_pairs(),
            pairs_in_all: self.pairs.len(),
            receipts,
            warnings: self.warnings.clone(),
        })
    }

    /// The pairs whose overlays are shown: that which agrees least, and the one in the middle.
    fn shown(&self) -> Vec<(&'static str, usize)> {
        let known = self.sections.iter().filter(|section| section.ncc_after.is_some());
        let least = known.min_by(|a, b| {
            let of = |section: &Section| section.ncc_after.unwrap_or(1.0);
            of(a).total_cmp(&of(b))
        });
        let middle = (self.sections.len() / 2).max(1);
        let mut shown = vec![("in the middle of the stack", middle)];
        if let Some(least) = least.filter(|least| least.section != middle) {
            shown.insert(0, ("which agree least after the alignment", least.section));
        }
        shown
    }

    fn charts(&self, pixel: f64) -> Vec<Value> {
        let line = |class, name, of: &dyn Fn(&Section) -> Option<f64>| Line {
            class,
            name,
            values: self.sections.iter().map(of).collect(),
        };
        let place = |of: fn(&Place) -> f64| move |section: &Section| section.place.as_ref().map(of);
        let in_pixels = move |of: fn(&Place) -> f64| {
            move |section: &Section| section.place.as_ref().map(|place| of(place) / pixel)
        };
        let all = [
            (
                "Correlation with the section before",
                "",
                vec![
                    line("before", "before", &|s| s.ncc_before),
                    line("after", "after", &|s| s.ncc_after),
                ],
            ),
            (
                "Nodes with a match in the section before",
                "",
                vec![line("after", "fraction", &|s| s.matched)],
            ),
            (
                "Residual of the matches, root mean square",
                "pixels",
                vec![line("after", "residual", &move |s| s.residual_um.map(|r| r / pixel))],
            ),
            (
                "Shift of the middle of each section",
                "pixels",
                vec![
                    line("before", "y", &in_pixels(|place| place.shift_um[0])),
                    line("after", "x", &in_pixels(|place| place.shift_um[1])),
                ],
            ),
            (
                "Rotation (of mirrored sections, before the mirroring)",
                "degrees",
                vec![line("after", "rotation", &place(|place| place.rotation_degrees))],
            ),
            (
                "Bending: displacement that no rotation and shift explains, root mean square",
                "pixels",
                vec![line("after", "bending", &in_pixels(|place| place.bending_um))],
            ),
        ];
        all.into_iter()
            .filter(|(.., lines)| lines.iter().any(Line::has_values))
            .map(|(title, unit, lines)| {
                json!({ "title": title, "unit": unit, "figure": chart(&lines, title),
                    "legend": lines.iter().map(|line| json!({ "class": line.class, "name": line.name }))
                        .collect::<Vec<_>>() })
            })
            .collect()
    }

    /// The bending of the section that bends most, as arrows on the section.
    fn arrows(&self, after: &Volume) -> Result<(String, String), Error> {
        let bending = |section: &Section| section.place.as_ref().map(|place| place.bending_um);
        let known = self.sections.iter().filter(|section| bending(section).is_some());
        let most =
            known.max_by(|a, b| bending(a).unwrap_or(0.0).total_cmp(&bending(b).unwrap_or(0.0)));
        let Some((section, place)) =
            most.and_then(|section| Some((section.section, section.place.as_ref()?)))
        else {
            return Ok((String::new(), String::new()));
        };
        let plane = Plane::read(after, 0, section)?;
        let (figure, enlarged) = arrows(&plane, self.contrasts[1], &after.grid(), &place.bends);
        let caption = format!(
            "Section {section}, which bends most: what rotation and shift leave of its displacement, {enlarged} × \
             enlarged{}",
            if place.mirrored { "; it is mirrored" } else { "" }
        );
        Ok((figure, caption))
    }

    /// Rows of the pairs with the largest fractions of nodes without a fitting match.
    fn worst_pairs(&self) -> Vec<[String; 6]> {
        let number = |pair: &Value, name: &str| pair[name].as_f64().unwrap_or(0.0);
        let fitting = |pair: &Value| {
            (number(pair, "matched") - number(pair, "outliers")) / number(pair, "nodes").max(1.0)
        };
        let mut worst: Vec<&Value> = self.pairs.iter().collect();
        worst.sort_by(|a, b| fitting(a).total_cmp(&fitting(b)));
        let row = |pair: &&Value| {
            let section = number(pair, "section");
            let rms = if number(pair, "matched") > 0.0 {
                super::figures::short(number(pair, "rms_um"))
            } else {
                "–".to_owned()
            };
            [
                format!("{section}"),
                format!("{}", section - number(pair, "distance")),
                format!("{:.1} %", 100.0 * fitting(pair)),
                format!("{}", number(pair, "matched")),
                format!("{}", number(pair, "outliers")),
                rms,
            ]
        };
        worst.iter().take(LISTED).map(row).collect()
    }
}

/// The correlation of each section with the one before it, without padding; and the contrast in
/// which the sections are shown.
fn correlations(volume: &Volume) -> Result<(Vec<Option<f64>>, Contrast), Error> {
    volume.keep(CACHE_BYTES);
    let mut last: Option<Vec<f32>> = None;
    let (mut correlations, mut samples) = (Vec::new(), Vec::new());
    let sections = volume.grid().shape[0];
    for z in 0..sections {
        let mut plane = Plane::read(volume, 0, z)?;
        padding::mark([1, plane.height, plane.width], &mut plane.values);
        let known = plane.values.iter().filter(|v| v.is_finite());
        samples.extend(known.step_by((plane.values.len() * sections).div_ceil(200_000).max(1)));
        let correlation = last.as_ref().and_then(|last| {
            let mut sums = PairSums::default();
            let pairs = last.iter().zip(&plane.values);
            pairs
                .filter(|(a, b)| a.is_finite() && b.is_finite())
                .for_each(|(a, b)| sums.add(f64::from(*a), f64::from(*b)));
            // the rim of an empty section is no image
            let is_enough = sums.n >= LEAST_COMMON * plane.values.len() as f64;
            sums.correlation().filter(|_| is_enough)
        });
        correlations.push(correlation);
        last = Some(plane.values);
    }
    samples.sort_unstable_by(f32::total_cmp);
    Ok((correlations, Contrast::of(&samples)))
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut known: Vec<f64> = values.iter().flatten().copied().collect();
    known.sort_unstable_by(f64::total_cmp);
    known.get(known.len() / 2).copied()
}

/// Warns of sections that agree less with the one before them than without the alignment.
fn worse(sections: &[Section]) -> Option<String> {
    let is_worse = |section: &&Section| {
        let pair = section.ncc_before.zip(section.ncc_after);
        pair.is_some_and(|(before, after)| after < before - 0.05)
    };
    let worse: Vec<usize> = sections.iter().filter(is_worse).map(|s| s.section).collect();
    (!worse.is_empty()).then(|| {
        format!(
            "sections {} agree less with the section before than without the alignment",
            ranges(&worse)
        )
    })
}

/// Height and width of a section, micrometres.
fn extent(grid: &Grid) -> [f64; 2] {
    [1, 2].map(|a| grid.shape[a] as f64 * grid.spacing[a])
}

#[cfg(test)]
mod tests;
