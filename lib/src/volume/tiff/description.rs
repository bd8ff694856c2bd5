//! What the description of a first page says: ImageJ's lines or OME-XML.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::volume::calibration::micrometers;

/// The stack that the pages of a file make, and its voxel size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::volume) struct Description {
    /// Sizes of the dimensions that the pages count through, slowest first, named `t`, `c`, `z`.
    pub(in crate::volume) pages: Vec<(char, u64)>,
    /// Micrometres along z, y, x, as far as stated.
    pub(in crate::volume) spacing: [Option<f64>; 3],
    /// ImageJ's origin: the voxel that lies at 0.
    pub(in crate::volume) zero: [f64; 3],
    /// ImageJ's unit of length in micrometres; the resolution tags are in it.
    pub(in crate::volume) unit: Option<f64>,
    /// Who says so.
    pub(in crate::volume) source: &'static str,
}

impl Description {
    /// Reads a description; one in no known form says nothing.
    pub(in crate::volume) fn parse(text: &str) -> Self {
        if text.starts_with("ImageJ=") {
            imagej(text)
        } else if text.contains("<OME") {
            ome(text).unwrap_or_default()
        } else {
            Self::default()
        }
    }
}

/// `key=value` lines; the pages run through channels fastest, then slices, then frames.
fn imagej(text: &str) -> Description {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::trim))
    };
    let count = |key: &str| value(key).and_then(|v| v.parse::<u64>().ok());
    let number = |key: &str| value(key).and_then(|v| v.parse::<f64>().ok());
    let (channels, slices, frames) = (count("channels"), count("slices"), count("frames"));
    let pages = if channels.is_none() && slices.is_none() && frames.is_none() {
        vec![('z', count("images").unwrap_or(1))]
    } else {
        let (t, z, c) = (frames.unwrap_or(1), slices.unwrap_or(1), channels.unwrap_or(1));
        vec![('t', t), ('z', z), ('c', c)]
    };
    let unit = value("unit").and_then(micrometers);
    let depth = number("spacing").zip(unit).map(|(spacing, unit)| (spacing * unit).abs());
    Description {
        pages,
        spacing: [depth, None, None],
        zero: ["zorigin", "yorigin", "xorigin"].map(|key| number(key).unwrap_or(0.0)),
        unit,
        source: "ImageJ metadata",
    }
}

/// The first image's `Pixels` element of OME-XML; lengths are in micrometres where no unit is
/// given (<https://docs.openmicroscopy.org/ome-model/6.3.1/developers/ome-units.html>).
fn ome(text: &str) -> Option<Description> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) | Event::Empty(element)
                if element.local_name().as_ref() == "Pixels" =>
            {
                return Some(pixels(&element));
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn pixels(element: &BytesStart) -> Description {
    let value = |name: &str| {
        let found = element.try_get_attribute(name).ok()??;
        let text = &found.value;
        Some(quick_xml::escape::unescape(text).ok()?.into_owned())
    };
    let length = |axis: &str| -> Option<f64> {
        let size: f64 = value(&format!("PhysicalSize{axis}"))?.parse().ok()?;
        let unit = value(&format!("PhysicalSize{axis}Unit"));
        Some(size * unit.map_or(Some(1.0), |unit| micrometers(&unit))?)
    };
    let order = value("DimensionOrder").unwrap_or_else(|| "XYZCT".into());
    let pages = order
        .chars()
        .rev()
        .filter(|axis| "ZCT".contains(*axis))
        .map(|axis| {
            let size = value(&format!("Size{axis}")).and_then(|size| size.parse().ok());
            (axis.to_ascii_lowercase(), size.unwrap_or(1))
        })
        .collect();
    Description {
        pages,
        spacing: [length("Z"), length("Y"), length("X")],
        zero: [0.0; 3],
        unit: None,
        source: "OME-XML",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagej_lines_say_how_pages_count_and_how_far_apart_slices_are() {
        let text = "ImageJ=1.53t\nimages=12\nchannels=2\nslices=6\nhyperstack=true\nunit=\\u00B5m\n\
                    spacing=0.5\nloop=false\nzorigin=3\n";
        let found = Description::parse(text);
        assert_eq!(found.pages, [('t', 1), ('z', 6), ('c', 2)]);
        assert_eq!(found.spacing, [Some(0.5), None, None]);
        assert_eq!(found.unit, Some(1.0));
        assert_eq!(found.zero, [3.0, 0.0, 0.0]);
    }

    #[test]
    fn ome_xml_gives_sizes_units_and_the_order_of_pages() {
        let text = r#"<?xml version="1.0"?><OME xmlns="http://x"><Image ID="Image:0">
            <Pixels DimensionOrder="XYCZT" SizeX="4" SizeY="3" SizeZ="5" SizeC="2" SizeT="1"
              PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25"
              PhysicalSizeZ="1" PhysicalSizeZUnit="&#181;m" Type="uint16"><TiffData/></Pixels>
            </Image></OME>"#;
        let found = Description::parse(text);
        assert_eq!(found.pages, [('t', 1), ('z', 5), ('c', 2)]);
        assert_eq!(found.spacing, [Some(1.0), Some(0.25), Some(0.25)]);
    }
}
