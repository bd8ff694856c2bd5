//! The assignment of pages to planes in OME-TIFF (`TiffData`).

use super::ome::{LETTERS, OmeImage, TiffData};
use super::series::ListedFile;

/// The dimensions of an image, slowest first, and the file and page of each plane in C order.
pub(super) struct PlaneMap {
    pub(super) dimensions: Vec<(char, u64)>,
    pub(super) places: Vec<(u32, u32)>,
}

impl PlaneMap {
    pub(super) fn new(
        image: &OmeImage,
        files: &[ListedFile],
        blocks: &[(u32, &TiffData)],
    ) -> Result<Self, String> {
        let samples = samples(files, blocks)?;
        let [z, c, t] = image.sizes;
        let channels = c.div_ceil(samples);
        let sizes = [z, channels, t];
        let total = sizes.iter().try_fold(1u64, |a, b| a.checked_mul(*b));
        let pages: u64 = files.iter().map(|file| file.pages.pages.len() as u64).sum();
        let total = match total {
            Some(total @ 1..) if total <= pages => total,
            _ => {
                return Err(format!(
                    "is truncated or unfinished: its OME-XML speaks of {z} planes along z, {c} channels and \
                     {t} time points, there are {pages} pages"
                ));
            }
        };
        let mut places = vec![None; total as usize];
        if blocks.is_empty() {
            let originals = files[0].originals();
            places
                .iter_mut()
                .zip(originals)
                .for_each(|(place, number)| *place = Some((0, number as u32)));
        }
        for (file, block) in blocks {
            let pages = files[*file as usize].pages.pages.len() as u64;
            enter(&mut places, *file, block, pages, image, sizes, samples)?;
        }
        let missing = places.iter().filter(|place| place.is_none()).count();
        if let Some(first) = places.iter().position(Option::is_none) {
            let mut rest = first as u64;
            let mut at = [0; 3];
            for d in &image.order {
                (at[*d], rest) = (rest % sizes[*d], rest / sizes[*d]);
            }
            return Err(format!(
                "is unfinished: its OME-XML does not say where {missing} of its {total} planes are, such as \
                 z {}, channel {}, time {}; write it anew",
                at[0], at[1], at[2]
            ));
        }
        Ok(Self {
            dimensions: image.order.iter().rev().map(|d| (LETTERS[*d], sizes[*d])).collect(),
            places: places.into_iter().flatten().collect(),
        })
    }
}

/// The samples per pixel of the image's first page.
fn samples(files: &[ListedFile], blocks: &[(u32, &TiffData)]) -> Result<u64, String> {
    let (file, page) =
        blocks.first().map_or((0, 0), |(file, block)| (*file, block.page.unwrap_or(0)));
    match files[file as usize].pages.pages.get(page as usize) {
        Some(Ok(page)) => Ok(page.form.samples),
        Some(Err(text)) => Err(text.clone()),
        None => Err(beyond(page, files[file as usize].pages.pages.len() as u64)),
    }
}

fn beyond(page: u64, pages: u64) -> String {
    format!(
        "is truncated or unfinished: its OME-XML speaks of page {}, counted from 1, there are {pages}",
        page.saturating_add(1)
    )
}

/// Sets the file and page in `places` for each plane of a `TiffData` block.
///
/// * `pages`: the number of pages of the file
/// * `sizes`: the number of planes along z, c, t; the `samples` channels in one page count as one
///   plane
fn enter(
    places: &mut [Option<(u32, u32)>],
    file: u32,
    block: &TiffData,
    pages: u64,
    image: &OmeImage,
    sizes: [u64; 3],
    samples: u64,
) -> Result<(), String> {
    let mut first = block.first;
    if first[1] >= sizes[1] {
        first[1] /= samples;
    }
    let (mut start, mut stride) = (0, 1);
    for d in &image.order {
        if first[*d] >= sizes[*d] {
            return Err(format!(
                "has OME-XML with planes that begin at {} {}, and {} along it",
                LETTERS[*d], first[*d], sizes[*d]
            ));
        }
        start += first[*d] * stride;
        stride *= sizes[*d];
    }
    let page = block.page.unwrap_or(0);
    let room = places.len() as u64 - start;
    let count = match (block.count, block.page) {
        (Some(count), _) => count,
        (None, Some(_)) => 1,
        (None, None) => pages.min(room),
    };
    if count > room {
        return Err(format!("has OME-XML with {count} planes where there is room for {room}"));
    }
    if page.checked_add(count).is_none_or(|end| end > pages) {
        return Err(beyond(page.saturating_add(count.saturating_sub(1)), pages));
    }
    for k in 0..count {
        places[(start + k) as usize] = Some((file, (page + k) as u32));
    }
    Ok(())
}
