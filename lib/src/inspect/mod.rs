//! Inspection of data: a page of facts about a volume, a transform or a table, and suggested
//! parameters for a pair of volumes.

use std::path::Path;

use serde_json::{Value, json};

use crate::device::Cost;
use crate::geom::{Grid, Point};
use crate::store::{self, document};
use crate::volume::{Select, Volume};
use crate::{files, interchange, table, transform, volume};

mod blobs;
mod distribution;
mod page;
mod pick;
mod sample;
mod suggest;
#[cfg(test)]
mod tests;
mod transforms;

pub use distribution::Distribution;
pub use page::Page;
pub use pick::{LevelChoice, RequestedLevel, pick};
pub use suggest::{Suggestion, suggest, suggest_memory};

use page::{short, size, times};

/// The reason why a location could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A transform could not be read.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// A transform of another program could not be read.
    #[error(transparent)]
    Foreign(#[from] interchange::Error),
    /// A table could not be read.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// No parameters can be suggested for the volume.
    #[error("{location}: {message}")]
    Nothing {
        /// The location of the volume.
        location: String,
        /// The finding, and a way to proceed.
        message: String,
    },
}

/// Maximum number of bytes of another program's transform that are held as text.
const MAX_TEXT: u64 = 64 << 20;

/// The kind of data that a location is inspected as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataKind {
    Volume,
    Transform,
    /// A transform of another program.
    Foreign,
    Table,
}

/// A page of facts about anything that the programs read or write.
///
/// # Errors
/// [`Error`] if nothing is at `location`, or if it is not a volume, a transform or a table.
pub fn inspect(location: &str, select: &Select) -> Result<Page, Error> {
    match kind_of(location) {
        DataKind::Table => table_page(location),
        DataKind::Transform => transforms::page(location),
        DataKind::Foreign => transforms::foreign_page(location),
        DataKind::Volume => match Volume::open_any(location, select) {
            Ok(volume) => Ok(volume_page(&volume)?),
            Err(error) => other_page(location, error.into()),
        },
    }
}

/// The page of a location that cannot be opened as a volume. Displacement fields, which are arrays
/// of vectors, and transforms of other programs have such a page. For any other location, the more
/// specific of the errors is returned.
fn other_page(location: &str, no_volume: Error) -> Result<Page, Error> {
    if transforms::open_field(location).is_ok() {
        return transforms::page(location);
    }
    match interchange::is_foreign(location) {
        Ok(true) => transforms::foreign_page(location),
        Err(error @ (interchange::Error::Unfit { .. } | interchange::Error::Io { .. }))
            if is_file(Path::new(location)) =>
        {
            Err(error.into())
        }
        _ => Err(no_volume),
    }
}

/// The memory that [`inspect`] needs for a location; tables and transforms are read completely.
pub fn memory_needed(location: &str, select: &Select) -> Cost {
    let text = document::length(location).unwrap_or(0);
    match kind_of(location) {
        DataKind::Table => Cost::bytes("table", 8 * text),
        DataKind::Transform => Cost::bytes("transform", 4 * text),
        // a transform in text form is read completely; the voxels of a field are not
        DataKind::Foreign => Cost::bytes("transform", 4 * text.min(MAX_TEXT)),
        DataKind::Volume => {
            let volume = Volume::open_any(location, select);
            volume.map_or_else(|_| Cost::default(), |volume| sample::memory(&volume))
        }
    }
}

fn is_file(path: &Path) -> bool {
    let there = store::stat_file(path).ok().flatten();
    there.is_some_and(|there| there.kind == store::EntryKind::File)
        && !volume::is_folder_on_the_web(path)
}

/// Detects the kind of data. Transforms of other programs are recognised by their content, a table
/// by its extension or its header. A native transform is JSON, a matrix of numbers, or a container
/// of local affines. Anything else is taken for a volume.
fn kind_of(location: &str) -> DataKind {
    let path = Path::new(location);
    let is_pipe = files::is_pipe(path);
    let found = transform::kind_of(location);
    if !(is_file(path) || is_pipe) {
        let is_ours = matches!(found, Ok(transform::TransformKind::LocalAffines));
        return if is_ours { DataKind::Transform } else { DataKind::Volume };
    }
    if !is_pipe && volume::is_sections(location) {
        return DataKind::Volume;
    }
    // a file with the extension tif, tiff or png is never a transform, whatever its content
    if matches!(volume::other_format(location, &[]), Some(("tif" | "tiff" | "png", _))) {
        return DataKind::Volume;
    }
    if interchange::is_foreign(location).unwrap_or(false) {
        return DataKind::Foreign;
    }
    let Ok(found) = found else {
        // a volume cannot be read from a pipe; reading a transform from it gives a clear error
        return if is_pipe { DataKind::Transform } else { DataKind::Volume };
    };
    let is_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    // a pipe has no file name extension
    let has_columns =
        |t: table::Table| t.column("x_um").is_some() || (is_pipe && t.header.len() > 1);
    let is_document = found == transform::TransformKind::Document;
    if is_csv || (!is_document && table::Table::read(path).is_ok_and(has_columns)) {
        return DataKind::Table;
    }
    DataKind::Transform
}

fn volume_page(volume: &Volume) -> Result<Page, volume::Error> {
    let grid = volume.grid();
    let mut page = Page::new(volume.location());
    page.add_text("kind", "volume");
    if let Some(why) = volume.describe()["unfinished"].as_str() {
        page.add_text("unfinished", why);
    }
    let raw = grid.shape.iter().product::<usize>() as u64 * volume.dtype().size() as u64;
    storage_facts(&mut page, &volume.describe(), raw);
    page.add_text("dtype", volume.dtype().name());
    if volume.has_spacing() {
        grid_facts(&mut page, &grid);
    } else {
        let why = volume.describe()["spacing_from"].as_str().unwrap_or_default().to_owned();
        tracing::warn!(
            "{}: its voxel size is unknown ({why}); the programs want it as --spacing {}",
            volume.location(),
            grid.axes(&["z", "y", "x"]).join(",")
        );
        page.add("spacing", "unknown", Value::Null);
    }
    page.add("bytes_raw", size(raw), raw);
    value_facts(&mut page, &sample::sample(volume)?, grid);
    Ok(page)
}

/// Adds facts about the storage of the whole array, including all channels and time points.
fn storage_facts(page: &mut Page, facts: &Value, raw: u64) {
    let words = |value: &Value| -> Vec<String> {
        let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        value.as_array().map(|list| list.iter().map(word).collect()).unwrap_or_default()
    };
    let version = facts["version"].as_u64().map(|v| format!(" {v}")).unwrap_or_default();
    page.add_text("format", format!("{}{version}", facts["format"].as_str().unwrap_or("unknown")));
    page.add("axes", words(&facts["axes"]).join(", "), facts["axes"].clone());
    for (name, key) in [("shape", "array_shape"), ("chunk", "array_chunk"), ("shard", "shard")] {
        if facts[key].is_array() {
            page.add(name, times(&words(&facts[key])), facts[key].clone());
        }
    }
    // the codec `bytes` sets the byte order and does not compress
    let mut codecs = words(&facts["codecs"]);
    codecs.retain(|codec| codec != "bytes");
    let shown = if codecs.is_empty() { "none".to_owned() } else { codecs.join(", ") };
    page.add("codecs", shown, facts["codecs"].clone());
    page.add(
        "spacing_from",
        facts["spacing_from"].as_str().unwrap_or("unknown"),
        facts["spacing_from"].clone(),
    );
    if let Some(levels) = facts["levels"].as_array().filter(|levels| levels.len() > 1) {
        let level = |level: &Value| {
            let location = level["location"].as_str().unwrap_or_default();
            format!("{} voxels: {location}", times(&words(&level["shape"])))
        };
        let text: Vec<_> = levels.iter().map(level).collect();
        page.add("levels", text.join("\n"), facts["levels"].clone());
    }
    if let Some(stored) = facts["stored_bytes"].as_u64().filter(|stored| *stored > 0) {
        // the stored size includes all channels and time points
        let of = |key: &str| -> f64 {
            facts[key].as_array().into_iter().flatten().filter_map(Value::as_f64).product()
        };
        let ratio = raw as f64 * of("array_shape") / of("shape") / stored as f64;
        let compared = if ratio < 1.0 {
            format!("{} times larger", short(1.0 / ratio))
        } else {
            format!("{} times smaller", short(ratio))
        };
        let text = format!("{} ({compared} than raw)", size(stored));
        page.add("bytes_stored", text, stored);
    }
}

fn grid_facts(page: &mut Page, grid: &Grid) {
    let axes = grid.axes(&["z", "y", "x"]).join(", ");
    let lengths = |v: Point| format!("{} um ({axes})", times(grid.axes(&v.map(short))));
    page.add("spacing", lengths(grid.spacing), json!(grid.axes(&grid.spacing)));
    page.add("unit", "micrometer", "micrometer");
    let text = format!("{} um ({axes})", grid.axes(&grid.origin.map(short)).join(", "));
    page.add("origin", text, json!(grid.axes(&grid.origin)));
    let extent: Point = std::array::from_fn(|a| grid.shape[a] as f64 * grid.spacing[a]);
    page.add("extent", lengths(extent), json!(grid.axes(&extent)));
}

fn value_facts(page: &mut Page, sample: &sample::Sample, grid: Grid) {
    let values = &sample.distribution;
    let (read, all) = sample.tiles;
    let share = sample.voxels as f64 / grid.shape.iter().product::<usize>().max(1) as f64;
    let text = if read == all {
        "all voxels".to_owned()
    } else {
        format!("{read} of {all} tiles, scattered evenly: {} % of the voxels", short(100.0 * share))
    };
    page.add(
        "sample",
        text,
        json!({ "tiles": read, "of": all, "voxels": sample.voxels, "fraction": share }),
    );
    let number = |value: Option<f64>| value.map_or("none".to_owned(), short);
    let range = format!("{} to {}", number(values.min()), number(values.max()));
    page.add("range", range, json!([values.min(), values.max()]));
    let percents = [1.0, 50.0, 90.0, 99.0, 99.9];
    let found = percents.map(|percent| values.percentile(percent));
    let text: Vec<_> =
        percents.iter().zip(found).map(|(p, v)| format!("{p} %: {}", number(v))).collect();
    let entries = percents.iter().zip(found).map(|(p, v)| (p.to_string(), json!(v)));
    page.add("percentiles", text.join("   "), Value::Object(entries.collect()));
    match values.otsu() {
        Some((threshold, fraction)) => page.add(
            "foreground",
            format!("{} % above {} (Otsu)", short(100.0 * fraction), short(threshold)),
            json!({ "fraction": fraction, "threshold": threshold, "method": "otsu" }),
        ),
        None => page.add("foreground", "none: all voxels have the same value", Value::Null),
    }
    if values.nan + values.infinite > 0 {
        let text = format!("{} NaN, {} infinite", values.nan, values.infinite);
        page.add("not_finite", text, json!({ "nan": values.nan, "infinite": values.infinite }));
    }
}

fn table_page(location: &str) -> Result<Page, Error> {
    let table = table::Table::read(Path::new(location))?;
    let mut page = Page::new(location);
    page.add_text("kind", "table");
    page.add("rows", table.rows.len().to_string(), table.rows.len());
    page.add("columns", table.header.join(", "), json!(table.header));
    for (column, name) in table.header.iter().enumerate() {
        let values: Vec<f64> =
            (0..table.rows.len()).filter_map(|row| table.number(row, column).ok()).collect();
        if values.len() < table.rows.len() || values.is_empty() {
            continue; // a column of text
        }
        let values = Distribution::of_values(values);
        let [low, middle, high] = [values.min(), values.percentile(50.0), values.max()];
        let shown = [low, middle, high].map(|v| v.map_or("none".to_owned(), short));
        let text = format!("{} to {}, median {}", shown[0], shown[2], shown[1]);
        page.add(name, text, json!({ "min": low, "median": middle, "max": high }));
    }
    Ok(page)
}
