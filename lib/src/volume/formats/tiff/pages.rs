//! The pages of one file: their storage formats and the offsets of their data.

use std::path::Path;
use std::sync::Arc;

use super::directory::{BufferedFile, Directory, TagField, TiffError, each_directory, on_page};
use super::form::{Compression, PageForm};
use super::names;
use crate::volume::dtype::ByteOrder;

/// A readable page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) form: Arc<PageForm>,
    offsets: TagField,
    counts: Option<TagField>,
}

/// The pages of a file, and the metadata of its first page.
pub(super) struct Pages {
    pub(super) order: ByteOrder,
    /// Each page, or a message about why it cannot be read.
    pub(super) pages: Vec<Result<Page, String>>,
    /// The numbers of the pages that are reduced copies or masks of others.
    pub(super) copies: Vec<usize>,
    /// The description of the first page, in its original encoding.
    pub(super) description: Vec<u8>,
    /// Resolution along y and x: pixels per unit.
    pub(super) per_unit: [Option<f64>; 2],
    /// The `ResolutionUnit`: 1 is none, 2 inch, 3 centimetre.
    pub(super) unit: u64,
}

/// Tags of vendor formats with metadata beyond TIFF, which are not read.
const DIALECTS: [(u16, &str); 2] = [(33629, "MetaMorph STK"), (34412, "Zeiss LSM")];

/// The number of strips or tiles that are checked together.
const BATCH: u64 = 512;

impl Pages {
    /// Reads the directories of a file.
    pub(super) fn of(path: &Path) -> Result<(Self, BufferedFile), TiffError> {
        let mut input = BufferedFile::open(path)?;
        let mut found = Self {
            order: ByteOrder::Little,
            pages: Vec::new(),
            copies: Vec::new(),
            description: Vec::new(),
            per_unit: [None; 2],
            unit: 1,
        };
        let mut last: Option<Arc<PageForm>> = None;
        each_directory(&mut input, |input, directory, number| {
            if number == 0 {
                found.begin(input, directory)?;
            }
            let kind = directory.number(input, 254)?.unwrap_or_default();
            if kind & 0b101 != 0 && number > 0 {
                found.copies.push(number);
            }
            match page(input, directory, last.as_ref()) {
                Ok(page) => {
                    last = Some(Arc::clone(&page.form));
                    found.pages.push(Ok(page));
                }
                Err(fault) => match on_page(number, fault) {
                    TiffError::Message(text) => found.pages.push(Err(text)),
                    io @ TiffError::Io(_) => return Err(io),
                },
            }
            Ok(())
        })?;
        if found.pages.is_empty() {
            return Err("is a TIFF file without a page".to_owned().into());
        }
        Ok((found, input))
    }

    /// Reads the metadata that the first page holds for the whole file, and refuses [`DIALECTS`].
    fn begin(&mut self, input: &mut BufferedFile, directory: &Directory) -> Result<(), TiffError> {
        for (tag, name) in DIALECTS {
            if let Some(field) = directory.field(tag)
                && (tag != 33629 || field.count > 1)
            {
                let text = format!(
                    "is a {name} file, whose own metadata are not read; save it as OME-TIFF (Fiji does)"
                );
                return Err(text.into());
            }
        }
        self.order = directory.order;
        if let Some(field) = directory.field(270) {
            self.description = field.bytes(input)?.to_vec();
            while self.description.last() == Some(&0) {
                self.description.pop();
            }
        }
        for (per_unit, tag) in self.per_unit.iter_mut().zip([283, 282]) {
            *per_unit = directory.rational(input, tag)?.filter(|v| v.is_finite() && *v > 0.0);
        }
        self.unit = directory.number(input, 296)?.unwrap_or(2);
        Ok(())
    }

    /// Page `number` (from 0), after checking that all its strips or tiles lie within the file.
    pub(super) fn page(&self, input: &mut BufferedFile, number: usize) -> Result<Page, TiffError> {
        let Some(page) = self.pages.get(number) else {
            let text = format!(
                "has {} pages; page {}, counted from 1, is wanted",
                self.pages.len(),
                number + 1
            );
            return Err(text.into());
        };
        let page = page.clone().map_err(TiffError::Message)?;
        page.check(input).map_err(|fault| on_page(number, fault))?;
        Ok(page)
    }
}

fn page(
    input: &mut BufferedFile,
    directory: &Directory,
    last: Option<&Arc<PageForm>>,
) -> Result<Page, TiffError> {
    let form = PageForm::parse(input, directory)?;
    let form = match last {
        Some(last) if **last == form => Arc::clone(last),
        _ => Arc::new(form),
    };
    let offsets = directory.field(324).or(directory.field(273));
    let Some(offsets) = offsets else {
        return Err("is damaged: it does not say where its strips or tiles are".to_owned().into());
    };
    let counts = directory.field(325).or(directory.field(279));
    if counts.is_none() && form.compression != Compression::None {
        let text = "is damaged: it does not say how long its strips or tiles are";
        return Err(text.to_owned().into());
    }
    Ok(Page { form, offsets, counts })
}

impl Page {
    /// The file offset and the stored size of strip or tile `index`.
    pub(super) fn chunk(
        &self,
        input: &mut BufferedFile,
        index: u64,
    ) -> Result<(u64, u64), TiffError> {
        let offset = self.offsets.number(input, self.form.order, index)?;
        Ok((offset, self.count(input, index)?))
    }

    /// The stored size of strip or tile `index` in bytes.
    fn count(&self, input: &mut BufferedFile, index: u64) -> Result<u64, TiffError> {
        let needed = self.needed(index);
        let count = match self.counts {
            Some(counts) => counts.number(input, self.form.order, index)?,
            None => needed,
        };
        Ok(match (self.form.compression, count) {
            // some writers of uncompressed files store 0; bytes after the last row are ignored
            (Compression::None, 0) => needed,
            (Compression::None, count) => count.min(needed),
            (_, count) => count,
        })
    }

    /// The decompressed size of strip or tile `index` in bytes.
    fn needed(&self, index: u64) -> u64 {
        let [down, across] = self.form.chunks();
        let y = index % (down * across) / across;
        self.form.chunk_bytes(self.form.rows(y)).unwrap_or(u64::MAX)
    }

    /// Checks that every strip and tile lies within the file, and that its stored size is plausible
    /// for its decompressed size.
    fn check(&self, input: &mut BufferedFile) -> Result<(), TiffError> {
        let [down, across] = self.form.chunks();
        let planes = if self.form.separate { self.form.samples } else { 1 };
        let count = down.checked_mul(across).and_then(|n| n.checked_mul(planes));
        let known = self.counts.map_or(u64::MAX, |counts| counts.count).min(self.offsets.count);
        let Some(count) = count.filter(|count| *count <= known) else {
            let [height, width] = self.form.size;
            let text = format!(
                "is damaged: its {height} x {width} pixels need more strips or tiles than the {known} that \
                 it lists"
            );
            return Err(text.into());
        };
        let mut first = 0;
        while first < count {
            let end = count.min(first + BATCH);
            // read one table after the other: each read call also fetches the neighbouring entries
            let order = self.form.order;
            let offsets: Result<Vec<u64>, TiffError> =
                (first..end).map(|i| self.offsets.number(input, order, i)).collect();
            for (index, offset) in (first..end).zip(offsets?) {
                let bytes = self.count(input, index)?;
                self.check_chunk(input, index, offset, bytes)?;
            }
            first = end;
        }
        if self.form.compression == Compression::Jpeg {
            self.check_jpeg(input)?;
        }
        Ok(())
    }

    fn check_chunk(
        &self,
        input: &BufferedFile,
        index: u64,
        offset: u64,
        bytes: u64,
    ) -> Result<(), TiffError> {
        let needed = self.needed(index);
        if offset == 0 {
            let text = format!(
                "is unfinished: its strip or tile {index} was never written; write the file anew"
            );
            return Err(text.into());
        }
        if offset.checked_add(bytes).is_none_or(|end| end > input.length) {
            let text = format!(
                "is truncated: its strip or tile {index} begins at byte {offset} and has {bytes}, the file \
                 ends at byte {}",
                input.length
            );
            return Err(text.into());
        }
        let most = bytes.saturating_mul(self.form.compression.expansion());
        // beyond the compression ratios of any encoder, in either direction
        if needed > most || bytes / 4 > needed + (1 << 14) {
            let text = format!(
                "is damaged: its strip or tile {index} is to hold {needed} bytes, and is stored in {bytes} \
                 ({})",
                self.form.compression.name()
            );
            return Err(text.into());
        }
        Ok(())
    }

    /// Refuses kinds of JPEG that are not supported, by the frame marker: ITU-T T.81, section
    /// B.2.2.
    fn check_jpeg(&self, input: &mut BufferedFile) -> Result<(), TiffError> {
        let (offset, bytes) = self.chunk(input, 0)?;
        let data = input.bytes(offset, bytes.min(1 << 16))?;
        let mut at = 2;
        while let Some([0xff, marker, high, low]) = data.get(at..at + 4) {
            match marker {
                0xc0..=0xc2 | 0xda => return Ok(()),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    let kind =
                        if *marker == 0xc3 { "lossless" } else { "arithmetic or hierarchical" };
                    let text = format!(
                        "is compressed with {kind} JPEG ({}), which cannot be read; save it with LZW, \
                         deflate or zstd",
                        names::compression(7)
                    );
                    return Err(text.into());
                }
                _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])).max(2),
            }
        }
        Ok(())
    }
}
