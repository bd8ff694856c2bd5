//! The levels of a multiscale image.

use std::path::Path;

use super::node::{self, Container, Node};
use super::open;
use super::output_paths::OutputPaths;
use super::{Error, n5, ome, path_of};
use crate::geom::Grid;

/// One resolution of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The location at which it can be opened.
    pub location: String,
    /// Shape, spacing and origin along z, y, x, micrometres; an unknown spacing is 1.
    pub grid: Grid,
}

/// The levels of the image at `location`, from fine to coarse. If `location` is an array, these are
/// the levels of the image that contains the array. A volume that belongs to no image is its only
/// level.
///
/// # Errors
/// [`Error`] if nothing exists at `location`, or metadata cannot be read.
pub fn levels(location: &str) -> Result<Vec<Level>, Error> {
    let found = open::find(location)?;
    let only = || Ok(vec![Level { location: location.to_owned(), grid: grid(location)? }]);
    let Some(node) = Node::read(&found.path)?.filter(|node| node.is_array) else {
        return only();
    };
    let (group, names) = if node.container == Container::N5 {
        let name = node.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (Some(parent), true) = (node.path.parent(), ome::is_level_name(name)) else {
            return only();
        };
        let names = node::arrays_below(parent)?;
        let names: Vec<_> = names.into_iter().filter(|name| ome::is_level_name(name)).collect();
        (parent.to_owned(), names)
    } else {
        let Some((parent, image, _)) = open::image_of(location, &node)? else { return only() };
        (parent.path, image.levels.into_iter().map(|level| level.path).collect())
    };
    let locations = names.iter().map(|name| group.join(name).display().to_string());
    locations.map(|location| Ok(Level { grid: grid(&location)?, location })).collect()
}

/// The grid of the array at a location; dimensions other than z, y, x are ignored.
fn grid(location: &str) -> Result<Grid, Error> {
    let found = open::find(location)?;
    let shape = &found.source.layout().shape;
    let size = |name: &str| {
        found.names.iter().position(|found| found == name).map_or(1, |d| shape[d] as usize)
    };
    let known = &found.calibration;
    let of_pixel = known.pixel.map(|[y, x]| [y, y, x]);
    let spacing = known.spacing.or(of_pixel);
    let planar = known.spacing.is_none() && known.pixel.is_some() && size("z") == 1;
    let origin = spacing.and_then(|spacing| known.origin_for(spacing, planar)).or(known.origin);
    Ok(Grid {
        shape: [size("z"), size("y"), size("x")],
        spacing: spacing.unwrap_or([1.0; 3]),
        origin: origin.unwrap_or_default(),
        planar,
    })
}

/// Lists the array `name` of the group `image` as a level with this grid, replacing an older entry
/// for it. [`super::Output::create`] does this for the arrays that it creates; this function is for
/// existing arrays.
///
/// # Errors
/// [`Error`] if there is no such array, or if the metadata of the image have other axes, no unit of
/// length, or a coordinate transformation that is common to all levels.
pub fn add_level(image: &str, name: &str, grid: &Grid) -> Result<(), Error> {
    let group = path_of(image)?;
    let array = group.join(name);
    let location = format!("{image}/{name}");
    let Some(node) = Node::read(&array)?.filter(|node| node.is_array) else {
        return Err(Error::missing(&location, "an array is wanted there before it is listed"));
    };
    if node.container == Container::N5 {
        let factors = n5::factors(Path::new(&array), grid)?;
        return Node::update(&array, |attributes| n5::calibrate(attributes, grid, factors));
    }
    let place = OutputPaths::of_array(&location, &array, node.container)?;
    place.register(&location, grid, false, true)?;
    place.make_groups()?;
    place.register(&location, grid, false, false)
}
