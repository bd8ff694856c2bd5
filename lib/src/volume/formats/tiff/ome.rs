//! OME-XML: the images of a file, and the page of each plane
//! (<https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html>).

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::volume::calibration::micrometers;
use crate::volume::shorten;

/// A `TiffData` element: consecutive planes, in the image's dimension order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TiffData {
    /// The first page (`IFD`).
    pub(super) page: Option<u64>,
    /// The first plane, as indices z, c, t.
    pub(super) first: [u64; 3],
    /// The number of planes.
    pub(super) count: Option<u64>,
    /// The name and the UUID of the file that holds the planes.
    pub(super) file: Option<(String, String)>,
}

/// An image of OME-XML.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OmeImage {
    pub(super) id: String,
    pub(super) name: String,
    /// The number of rows and columns.
    pub(super) size: [u64; 2],
    /// The sizes of `z`, `c` (samples included) and `t`.
    pub(super) sizes: [u64; 3],
    /// The indices into [`OmeImage::sizes`] in the order of the pages, fastest first.
    pub(super) order: Vec<usize>,
    /// The samples per pixel in the pages of each `Channel` element; 1 if not stated.
    pub(super) samples: Vec<u64>,
    /// Spacing along z, y, x in micrometres, as far as stated.
    pub(super) spacing: [Option<f64>; 3],
    pub(super) blocks: Vec<TiffData>,
}

/// The content of OME-XML.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ome {
    /// The UUID of the file that contains this OME-XML.
    pub(super) uuid: String,
    pub(super) images: Vec<OmeImage>,
    /// The file that holds the metadata, if this OME-XML only refers to that file (`BinaryOnly`).
    pub(super) elsewhere: Option<String>,
}

/// The letters of the dimensions other than y and x.
pub(super) const LETTERS: [char; 3] = ['z', 'c', 't'];

impl Ome {
    /// Parses OME-XML.
    ///
    /// # Errors
    /// A message about what is invalid.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let mut reader = Reader::from_str(text.trim_matches('\0'));
        let mut in_uuid = false;
        loop {
            let event = reader
                .read_event()
                .map_err(|error| format!("has damaged OME-XML: {}", shorten(&error.to_string())))?;
            match &event {
                Event::Start(element) => {
                    in_uuid = element.local_name().as_ref() == "UUID";
                    found.element(element)?;
                }
                Event::Empty(element) => found.element(element)?,
                Event::Text(text) if in_uuid => {
                    let block = found.images.last_mut().and_then(|image| image.blocks.last_mut());
                    if let Some((_, mark)) = block.and_then(|block| block.file.as_mut()) {
                        text.trim().clone_into(mark);
                    }
                }
                Event::End(_) => in_uuid = false,
                Event::Eof => return Ok(found),
                _ => {}
            }
        }
    }

    fn element(&mut self, element: &BytesStart) -> Result<(), String> {
        let value = |name: &str| attribute(element, name);
        let count = |name: &str| -> Result<Option<u64>, String> {
            let Some(text) = value(name) else { return Ok(None) };
            let bad =
                |_| format!("has OME-XML with {name}=\"{}\", a count is wanted", shorten(&text));
            text.trim().parse().map(Some).map_err(bad)
        };
        match element.local_name().as_ref() {
            "OME" => self.uuid = value("UUID").unwrap_or_default(),
            "BinaryOnly" => self.elsewhere = value("MetadataFile"),
            "Image" => self.images.push(OmeImage {
                id: value("ID").unwrap_or_default(),
                name: value("Name").unwrap_or_default(),
                ..OmeImage::default()
            }),
            name => {
                let Some(image) = self.images.last_mut() else { return Ok(()) };
                match name {
                    "Pixels" => {
                        let size = |name: &str| Ok::<_, String>(count(name)?.unwrap_or(1));
                        image.size = [size("SizeY")?, size("SizeX")?];
                        image.sizes = [size("SizeZ")?, size("SizeC")?, size("SizeT")?];
                        image.spacing = ["Z", "Y", "X"].map(|axis| length(element, axis));
                        let order = value("DimensionOrder").unwrap_or_else(|| "XYZCT".into());
                        let places = order.to_lowercase();
                        image.order = places
                            .chars()
                            .filter_map(|c| LETTERS.iter().position(|l| *l == c))
                            .collect();
                        let mut sorted = image.order.clone();
                        sorted.sort_unstable();
                        if sorted != [0, 1, 2] {
                            return Err(format!(
                                "has OME-XML with DimensionOrder \"{}\"",
                                shorten(&order)
                            ));
                        }
                    }
                    "Channel" => image.samples.push(count("SamplesPerPixel")?.unwrap_or(1)),
                    "TiffData" => image.blocks.push(TiffData {
                        page: count("IFD")?,
                        first: [
                            count("FirstZ")?.unwrap_or(0),
                            count("FirstC")?.unwrap_or(0),
                            count("FirstT")?.unwrap_or(0),
                        ],
                        // `NumPlanes` is the older name of `PlaneCount`
                        count: count("PlaneCount")?.or(count("NumPlanes")?),
                        file: None,
                    }),
                    "UUID" => {
                        if let Some(block) = image.blocks.last_mut() {
                            block.file =
                                Some((value("FileName").unwrap_or_default(), String::new()));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The selected image: by number (from 0), name or `ID`.
    ///
    /// # Errors
    /// A list of the images, if none was selected or the selected one does not exist or is
    /// ambiguous.
    pub(super) fn image(&self, wanted: Option<&str>) -> Result<&OmeImage, String> {
        let list = || {
            const SHOWN: usize = 10;
            let mut names: Vec<String> = (self.images.iter().enumerate().take(SHOWN))
                .map(|(i, image)| format!("{i} '{}'", shorten(&image.name)))
                .collect();
            if self.images.len() > SHOWN {
                names.push("...".into());
            }
            names.join(", ")
        };
        let Some(wanted) = wanted else {
            return match self.images.as_slice() {
                [] => Err("has OME-XML without an image".into()),
                [only] => Ok(only),
                several => Err(format!(
                    "holds {} images; choose one with --image: {}",
                    several.len(),
                    list()
                )),
            };
        };
        let number = wanted.parse::<usize>().ok().and_then(|i| self.images.get(i));
        let named: Vec<&OmeImage> =
            self.images.iter().filter(|image| image.name == wanted || image.id == wanted).collect();
        match (named.as_slice(), number) {
            ([only], _) => Ok(only),
            ([], Some(image)) => Ok(image),
            ([], None) => Err(format!("has no image '{}'; it holds {}", shorten(wanted), list())),
            (several, _) => Err(format!(
                "has {} images of the name '{}'; give the number: {}",
                several.len(),
                shorten(wanted),
                list()
            )),
        }
    }
}

fn attribute(element: &BytesStart, name: &str) -> Option<String> {
    let found = element.try_get_attribute(name).ok()??;
    Some(quick_xml::escape::unescape(&found.value).ok()?.into_owned())
}

/// The physical pixel size along an axis in micrometres; the micrometre is also OME's default unit
/// (<https://docs.openmicroscopy.org/ome-model/6.3.1/developers/ome-units.html>).
fn length(element: &BytesStart, axis: &str) -> Option<f64> {
    let size: f64 = attribute(element, &format!("PhysicalSize{axis}"))?.parse().ok()?;
    let unit = attribute(element, &format!("PhysicalSize{axis}Unit"));
    Some(size * unit.map_or(Some(1.0), |unit| micrometers(&unit))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"<?xml version="1.0"?><OME xmlns="http://x" UUID="urn:uuid:1">
        <Image ID="Image:0" Name="a"><Pixels DimensionOrder="XYCZT" SizeX="4" SizeY="3" SizeZ="5"
          SizeC="2" SizeT="1" PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25"
          PhysicalSizeZ="1" PhysicalSizeZUnit="&#181;m" Type="uint16"><Channel ID="C:0"/>
          <TiffData IFD="3" FirstZ="1" PlaneCount="2"><UUID FileName="b.tif">urn:uuid:2</UUID></TiffData>
        </Pixels></Image>
        <Image ID="Image:1" Name="b"><Pixels DimensionOrder="XYZCT" SizeX="4" SizeY="3" SizeZ="1"
          SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>"#;

    #[test]
    fn images_have_sizes_units_and_the_pages_of_their_planes() {
        let ome = Ome::parse(TWO).unwrap();
        assert_eq!(ome.uuid, "urn:uuid:1");
        let image = &ome.images[0];
        assert_eq!((image.size, image.sizes), ([3, 4], [5, 2, 1]));
        assert_eq!(image.order, [1, 0, 2]);
        assert_eq!(image.spacing, [Some(1.0), Some(0.25), Some(0.25)]);
        let [block] = image.blocks.as_slice() else { panic!("one") };
        assert_eq!((block.page, block.first, block.count), (Some(3), [1, 0, 0], Some(2)));
        assert_eq!(block.file, Some(("b.tif".into(), "urn:uuid:2".into())));
        assert_eq!(ome.images[1].blocks, [TiffData::default()]);
    }

    #[test]
    fn an_image_is_meant_by_number_name_or_id_and_of_several_one_must_be() {
        let ome = Ome::parse(TWO).unwrap();
        assert!(ome.image(None).unwrap_err().contains("--image: 0 'a', 1 'b'"));
        for wanted in ["1", "b", "Image:1"] {
            assert_eq!(ome.image(Some(wanted)).unwrap().name, "b");
        }
        assert!(ome.image(Some("c")).unwrap_err().contains("no image 'c'"));
    }
}
