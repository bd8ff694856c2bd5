//! Assigns the pages of one or more files to the planes of an array.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::description::{self, Description, ParsedDescription};
use super::directory::{BufferedFile, TiffError};
use super::form::{PageForm, Sample};
use super::names;
use super::ome::{LETTERS, Ome, TiffData};
use super::pages::{Page, Pages};
use super::planes::PlaneMap;
use crate::store::{self, EntryKind};
use crate::volume::calibration::Calibration;
use crate::volume::{Error, shorten};

/// The planes of an array, and its properties.
pub(super) struct Series {
    pub(super) files: Vec<PathBuf>,
    /// The dimensions other than y and x, slowest first, with their sizes.
    pub(super) dimensions: Vec<(char, u64)>,
    /// File number and page of each plane, in C order of the dimensions.
    pub(super) planes: Vec<(u32, Page)>,
    pub(super) calibration: Calibration,
    /// The byte offset of the first plane, if further planes follow it without directories of their
    /// own.
    pub(super) contiguous: Option<u64>,
    /// The `ID` of the selected image, if the file holds several images.
    pub(super) image: Option<String>,
}

/// A file whose pages have been listed.
pub(super) struct ListedFile {
    pub(super) pages: Pages,
    input: BufferedFile,
}

impl ListedFile {
    fn open(location: &str, path: &Path) -> Result<Self, Error> {
        let (pages, input) = Pages::of(path).map_err(|fault| fault.at(location, path))?;
        Ok(Self { pages, input })
    }

    /// Returns a page, which must have the same shape and type as the first one.
    fn take(&mut self, number: usize, first: Option<&Page>) -> Result<Page, TiffError> {
        let page = self.pages.page(&mut self.input, number)?;
        match first {
            Some(first) => alike(&page.form, &first.form, number)?,
            None => log_unapplied_tags(&self.input.path, &page.form),
        }
        Ok(page)
    }

    /// The numbers of the pages that are not reduced copies or masks of others.
    pub(super) fn originals(&self) -> Vec<usize> {
        let copies = &self.pages.copies;
        (0..self.pages.pages.len()).filter(|number| copies.binary_search(number).is_err()).collect()
    }

    /// The parsed description of the first page.
    fn parse_description(&self) -> Result<ParsedDescription, TiffError> {
        let first = match &self.pages.pages[0] {
            Ok(page) => [page.form.size[0], page.form.size[1], page.form.samples],
            Err(_) => [0; 3],
        };
        match (description::parse(&self.pages.description, first), &self.pages.pages[0]) {
            (Ok(ParsedDescription::Images(ome)), _) => Ok(ParsedDescription::Images(ome)),
            // report a fault of the page itself first
            (_, Err(text)) => Err(text.clone().into()),
            (known, Ok(_)) => Ok(known?),
        }
    }
}

/// Refuses a page whose shape or sample type differs from that of the first one.
fn alike(page: &PageForm, first: &PageForm, number: usize) -> Result<(), String> {
    let of = |form: &PageForm| (form.size, form.samples, form.sample);
    if of(page) == of(first) {
        return Ok(());
    }
    let describe = |form: &PageForm| {
        let samples =
            if form.samples == 1 { String::new() } else { format!(" of {} samples", form.samples) };
        let kind = match form.sample {
            Sample::As(stored) => stored.name().to_owned(),
            Sample::Bits(bits) => format!("{bits}-bit"),
        };
        format!("{} x {} {kind} pixels{samples}", form.size[0], form.size[1])
    };
    Err(format!(
        "has pages that differ: page {}, counted from 1, has {}, the first {}; all must be alike: save each \
         kind in a file of its own, or list files of several sizes in a table of sections",
        number + 1,
        describe(page),
        describe(first)
    ))
}

/// Logs how a page's samples are read if its tags call for a conversion; only `YCbCr` is converted.
fn log_unapplied_tags(path: &Path, form: &PageForm) {
    let path = path.display();
    match form.interpretation {
        1 => {}
        0 => tracing::info!(
            "{path}: its tags say that white is zero; the stored values are read as they are, not inverted"
        ),
        3 => tracing::info!("{path}: has a palette of colours; its indices are read"),
        6 => tracing::info!("{path}: its colours, YCbCr, are read as red, green and blue"),
        other => tracing::info!(
            "{path}: its samples are {}; they are read as they are stored",
            names::interpretation(other)
        ),
    }
    if form.orientation > 1 {
        tracing::warn!(
            "{path}: its tags say orientation {}; rows and columns are read as they are stored",
            form.orientation
        );
    }
}

/// The planes of one file, or of one of the images in it.
pub(super) fn of_file(location: &str, path: &Path, image: Option<&str>) -> Result<Series, Error> {
    let file = ListedFile::open(location, path)?;
    match file.parse_description().map_err(|fault| fault.at(location, path))? {
        ParsedDescription::Images(ome) => of_image(location, path, file, &ome, image),
        ParsedDescription::Stack(description) => {
            of_pages(file, &description, image).map_err(|fault| fault.at(location, path))
        }
        ParsedDescription::Nothing => {
            of_pages(file, &Description::default(), image).map_err(|fault| fault.at(location, path))
        }
    }
}

/// The planes of a file whose pages are in the order of the planes.
fn of_pages(
    mut file: ListedFile,
    description: &Description,
    image: Option<&str>,
) -> Result<Series, TiffError> {
    if let Some(image) = image.filter(|image| *image != "0") {
        let text = format!("holds one image; --image {} is none of it", shorten(image));
        return Err(text.into());
    }
    let numbers = file.originals();
    let count = numbers.len() as u64;
    let path = file.input.path.display().to_string();
    if numbers.len() < file.pages.pages.len() {
        let left = file.pages.pages.len() - numbers.len();
        tracing::info!("{path}: {left} of its pages are smaller copies or masks and are left out");
    }
    if let Some(remark) = &description.remark {
        tracing::warn!("{path}: {remark}");
    }
    let total = description.pages.iter().try_fold(1u64, |a, (_, b)| a.checked_mul(*b));
    let Some(total) = total.filter(|total| *total > 0) else {
        let sizes: Vec<String> =
            description.pages.iter().map(|(axis, n)| format!("{axis} {n}")).collect();
        let text =
            format!("says that its pages are {}, which is no number of pages", sizes.join(", "));
        return Err(text.into());
    };
    let mut planes: Vec<(u32, Page)> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let page = file.take(number, planes.first().map(|(_, page)| page))?;
        planes.push((0, page));
    }
    let dimensions = if total == 1 && count > 1 { Vec::new() } else { description.pages.clone() };
    let contiguous = if total == count || total == 1 {
        None
    } else {
        Some(contiguous(&mut file, &planes, description, total)?)
    };
    Ok(Series {
        calibration: calibration(&file.pages, description),
        files: vec![file.input.path],
        dimensions: if dimensions.is_empty() { vec![('z', count)] } else { dimensions },
        planes,
        contiguous,
        image: None,
    })
}

/// The byte offset of the planes of a file that describes more planes than it has pages: ImageJ
/// files larger than 4 GB, where all planes follow the first one.
fn contiguous(
    file: &mut ListedFile,
    planes: &[(u32, Page)],
    description: &Description,
    total: u64,
) -> Result<u64, TiffError> {
    let form = &planes[0].1.form;
    let count = planes.len();
    if count > 1 || !description.contiguous || !form.is_plain() || form.samples > 1 {
        let what =
            if total > count as u64 { "is truncated, or was changed since" } else { "was changed" };
        let text = format!(
            "{what}: its description ({}) speaks of {total} pages, it has {count}; save it anew",
            description.source
        );
        return Err(text.into());
    }
    let plane =
        form.chunk_bytes(1).and_then(|row| row.checked_mul(form.size[0])).unwrap_or(u64::MAX);
    let (offset, _) = planes[0].1.chunk(&mut file.input, 0)?;
    let end = plane.checked_mul(total).and_then(|bytes| bytes.checked_add(offset));
    if form.chunk[1] != form.size[1] || end.is_none_or(|end| end > file.input.length) {
        let text = format!(
            "is truncated: its description ({}) speaks of {total} planes of {plane} bytes, the file has {} \
             bytes",
            description.source, file.input.length
        );
        return Err(text.into());
    }
    Ok(offset)
}

/// Spacing and origin from a description and the tags of the first page.
fn calibration(pages: &Pages, description: &Description) -> Calibration {
    // ImageJ sets unit 1 (none) and writes the unit into the description; unit 2 (inch) is ignored,
    // because programs without calibration write it by default
    let tag = (pages.unit == 3).then_some(1e4);
    let pixel: [Option<f64>; 2] = std::array::from_fn(|a| {
        let of_tags = pages.per_unit[a]
            .zip(description.unit[a].or(tag))
            .map(|(per_unit, unit)| unit / per_unit);
        description.spacing[a + 1].or(of_tags)
    });
    let [Some(y), Some(x)] = pixel else {
        return Calibration::unknown("its metadata do not say how large a pixel is");
    };
    let z = description.spacing[0];
    let spacing = [z.unwrap_or_default(), y, x];
    // avoid an origin of -0
    let origin =
        |a: usize| if description.zero[a] == 0.0 { 0.0 } else { -description.zero[a] * spacing[a] };
    Calibration {
        spacing: z.map(|_| spacing),
        pixel: Some([y, x]).filter(|_| z.is_none()),
        origin: Some(std::array::from_fn(origin)),
        source: description.source.into(),
        ..Calibration::default()
    }
}

/// The planes of an OME-XML image, which may be in several files.
fn of_image(
    location: &str,
    path: &Path,
    file: ListedFile,
    ome: &Ome,
    wanted: Option<&str>,
) -> Result<Series, Error> {
    let refuse = |text: String| TiffError::Message(text).at(location, path);
    if let Some(other) = &ome.elsewhere {
        let text = format!("has its OME-XML in another file, '{}'; open that one", shorten(other));
        return Err(refuse(text));
    }
    let image = ome.image(wanted).map_err(refuse)?;
    let mut files =
        Files { paths: vec![path.to_owned()], listed: vec![file], known: HashMap::new() };
    let blocks: Vec<(u32, &TiffData)> = image
        .blocks
        .iter()
        .map(|block| Ok((files.of_block(location, ome, block)?, block)))
        .collect::<Result<_, Error>>()?;
    let map = PlaneMap::new(image, &files.listed, &blocks).map_err(refuse)?;
    let mut planes: Vec<(u32, Page)> = Vec::with_capacity(map.places.len());
    for (file, number) in &map.places {
        let first = planes.first().map(|(_, page)| page);
        let listed = &mut files.listed[*file as usize];
        let page = listed.take(*number as usize, first);
        planes
            .push((*file, page.map_err(|fault| fault.at(location, &files.paths[*file as usize]))?));
    }
    let left = files.listed[0].originals().len().saturating_sub(planes.len());
    if left > 0 && ome.images.len() == 1 && files.paths.len() == 1 {
        tracing::warn!(
            "{location}: {left} of its pages are left out, as its OME-XML does not speak of them"
        );
    }
    let form = &planes[0].1.form;
    if image.size != form.size {
        return Err(refuse(format!(
            "has OME-XML that speaks of {} x {} pixels, and pages of {} x {}; save it anew",
            image.size[0], image.size[1], form.size[0], form.size[1]
        )));
    }
    let description =
        Description { spacing: image.spacing, source: "OME-XML", ..Description::default() };
    Ok(Series {
        calibration: calibration(&files.listed[0].pages, &description),
        files: files.paths,
        dimensions: map.dimensions,
        planes,
        contiguous: None,
        image: (ome.images.len() > 1).then(|| image.id.clone()),
    })
}

/// The files of one data set.
struct Files {
    paths: Vec<PathBuf>,
    listed: Vec<ListedFile>,
    known: HashMap<String, u32>,
}

impl Files {
    /// The number of the file that holds a `TiffData` block; opens the file if it is not open yet.
    fn of_block(&mut self, location: &str, ome: &Ome, block: &TiffData) -> Result<u32, Error> {
        let Some((name, mark)) = &block.file else { return Ok(0) };
        let own = self.paths[0].file_name().is_some_and(|own| own.to_string_lossy() == *name);
        if own || name.is_empty() || (!ome.uuid.is_empty() && *mark == ome.uuid) {
            return Ok(0);
        }
        if let Some(number) = self.known.get(name) {
            return Ok(*number);
        }
        // look for the file next to the first one, whatever folder its name contains
        let path = match Path::new(name).file_name() {
            Some(name) => self.paths[0].with_file_name(name),
            None => self.paths[0].clone(),
        };
        let there = store::stat_file(&path).map_err(|error| Error::io("read", &path, error))?;
        if there.is_none_or(|there| there.kind != EntryKind::File) {
            let text = format!(
                "has planes in another file, '{}', which is not beside it; put it there",
                shorten(name)
            );
            return Err(TiffError::Message(text).at(location, &self.paths[0]));
        }
        self.listed.push(ListedFile::open(location, &path)?);
        self.paths.push(path);
        let number = (self.paths.len() - 1) as u32;
        self.known.insert(name.clone(), number);
        Ok(number)
    }
}

/// The planes of several files, concatenated along z.
pub(super) fn of_files(location: &str, paths: Vec<PathBuf>) -> Result<Series, Error> {
    let mut planes: Vec<(u32, Page)> = Vec::with_capacity(paths.len());
    let mut place = None;
    for (number, path) in paths.iter().enumerate() {
        let at = |fault: TiffError| fault.at(location, path);
        let mut file = ListedFile::open(location, path)?;
        let originals = file.originals();
        check_member(&file, originals.len()).map_err(at)?;
        for page in originals {
            let first = planes.first().map(|(_, page)| page);
            let page = file.take(page, first).map_err(at)?;
            planes.push((number as u32, page));
        }
        if place.is_none() {
            place = Some(member_calibration(&file).map_err(at)?);
        }
    }
    if planes.len() > paths.len() {
        tracing::info!(
            "{location}: all {} pages of {} files are taken as planes, one after the other",
            planes.len(),
            paths.len()
        );
    }
    Ok(Series {
        files: paths,
        dimensions: vec![('z', planes.len() as u64)],
        planes,
        calibration: place.unwrap_or_else(|| Calibration::unknown("there is no file")),
        contiguous: None,
        image: None,
    })
}

/// The reason, as text for messages, why a description is not of a single stack along z: the first
/// other dimension with more than one element, or the number of images. `None` if the description
/// is of a single stack.
fn several(known: &ParsedDescription) -> Option<String> {
    match known {
        ParsedDescription::Stack(description) => description
            .pages
            .iter()
            .find(|(axis, count)| *axis != 'z' && *count > 1)
            .map(|(axis, count)| format!("{count} elements along {axis}")),
        ParsedDescription::Images(ome) => match ome.images.as_slice() {
            [image] => [1, 2]
                .into_iter()
                .find(|d| image.sizes[*d] > 1)
                .map(|d| format!("{} elements along {}", image.sizes[d], LETTERS[d])),
            images => Some(format!("{} images", images.len())),
        },
        ParsedDescription::Nothing => None,
    }
}

/// Refuses a file that a pattern matches if its pages are not all planes along z.
fn check_member(file: &ListedFile, count: usize) -> Result<(), TiffError> {
    let known = file.parse_description()?;
    let more = match &known {
        ParsedDescription::Stack(description) => {
            description.pages.iter().any(|(_, n)| *n > count as u64)
        }
        // one plane of a data set with many files: the pattern determines the stack
        _ if count == 1 => return Ok(()),
        _ => false,
    };
    let what = match several(&known) {
        Some(several) if count > 1 || more => several,
        _ if more => "more planes than pages".to_owned(),
        _ => return Ok(()),
    };
    let text = format!(
        "holds {what} in {count} pages; a pattern takes files whose pages are planes along z: open the file by \
         itself, or save planes one by one"
    );
    Err(text.into())
}

fn member_calibration(file: &ListedFile) -> Result<Calibration, TiffError> {
    let description = match file.parse_description()? {
        ParsedDescription::Stack(description) => description,
        ParsedDescription::Images(ome) => Description {
            spacing: ome.images.first().map_or([None; 3], |image| image.spacing),
            source: "OME-XML",
            ..Description::default()
        },
        ParsedDescription::Nothing => Description::default(),
    };
    Ok(calibration(&file.pages, &description))
}
