//! Local affines as a Zarr array of doubles, of shape `(z blocks, y blocks, x blocks, 3, 4)`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::convention::{CoordinateConvention, DIRECTION, Direction, check_direction};
use super::numbers::{self, Located};
use super::{Error, LOCAL_AFFINES};
use crate::geom::{Affine, Grid, LocalAffines, Point};
use crate::store;
use crate::volume::{self, Existing};

/// Writes local affines with the attributes that are needed to read them, and `extra` attributes.
///
/// Unless `existing` is [`Existing::Refuse`], an existing array of local affines is replaced as a
/// whole, even with [`Existing::Resume`].
///
/// # Errors
/// [`Error`] if `maps` are inconsistent or singular, if something else is stored at `location`, or
/// if `existing` is [`Existing::Refuse`] and an array exists.
pub fn write_local_affines(
    location: &str,
    maps: &LocalAffines,
    extra: Map<String, Value>,
    existing: Existing,
) -> Result<(), Error> {
    let wrong = |message| Error::Format { location: location.to_owned(), message };
    check(maps).map_err(wrong)?;
    let path = store::parse(location).map_err(wrong)?;
    if store::exists(&path) {
        if existing == Existing::Refuse {
            return Err(volume::Error::Exists { location: location.to_owned() }.into());
        }
        if !is_local_affines(&path) {
            return Err(wrong(
                "exists and holds no local affines, so it is not replaced; give another name"
                    .to_owned(),
            ));
        }
    }
    let counts = LocalAffines::counts(maps.domain.shape, maps.block).map(|n| n as u64);
    let shape = [counts[0], counts[1], counts[2], 3, 4];
    let data: Vec<f64> = maps.affines.iter().flat_map(|map| map.rows().concat()).collect();
    let mut attributes = describe(maps);
    attributes.extend(extra);
    Ok(volume::write_small_array(location, &shape, &data, attributes)?)
}

/// Reads an array that [`write_local_affines`] wrote.
///
/// # Errors
/// [`Error`] if nothing is there, or it holds no local affines.
pub fn read_local_affines(location: &str) -> Result<LocalAffines, Error> {
    let (shape, data, attributes) = volume::read_small_array(location)?;
    decode(&shape, &data, &attributes)
        .map_err(|message| Error::Format { location: location.to_owned(), message })
}

/// Whether the folder `path` is an array of local affines, judged by its attributes alone.
pub(super) fn is_local_affines(path: &Path) -> bool {
    let json = |name: &str| -> Option<Value> {
        serde_json::from_slice(&store::get(&path.join(name)).ok()??).ok()
    };
    let attributes = json("zarr.json")
        .and_then(|array| array.get("attributes").cloned())
        .or_else(|| json(".zattrs"))
        .unwrap_or_default();
    attributes.get("type").and_then(Value::as_str) == Some(LOCAL_AFFINES)
}

fn describe(maps: &LocalAffines) -> Map<String, Value> {
    let attributes = json!({
        "type": LOCAL_AFFINES,
        "direction": DIRECTION,
        "axes": ["z", "y", "x"],
        "unit": "micrometer",
        "domain": {
            "shape": maps.domain.shape,
            "spacing": maps.domain.spacing,
            "origin": maps.domain.origin,
        },
        "block": maps.block,
        "overlap": maps.overlap,
    });
    match attributes {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Checks the invariants of local affines, both before writing and after reading.
fn check(maps: &LocalAffines) -> Result<(), String> {
    let Grid { shape, spacing, origin, .. } = maps.domain;
    if shape.contains(&0) || maps.block.contains(&0) {
        return Err(format!("has a domain of {shape:?} voxels in blocks of {:?}", maps.block));
    }
    if !spacing.iter().all(|s| s.is_finite() && *s > 0.0) || !origin.iter().all(|o| o.is_finite()) {
        return Err(format!("has a domain of spacing {spacing:?} and origin {origin:?}"));
    }
    for a in 0..3 {
        if !(0.0..=maps.block[a] as f64 / 2.0).contains(&maps.overlap[a]) {
            return Err(format!(
                "has the overlap {:?}, wanted 0 to half of the block {:?}",
                maps.overlap, maps.block
            ));
        }
    }
    let counts = LocalAffines::counts(shape, maps.block);
    let wanted: usize = counts.iter().product();
    if maps.affines.len() != wanted {
        return Err(format!("has {} matrices, wanted {wanted}", maps.affines.len()));
    }
    for (i, map) in maps.affines.iter().enumerate() {
        let index = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
        numbers::check_affine(&Located::root(&format!("the matrix of block {index:?}")), map)?;
    }
    Ok(())
}

fn decode(
    shape: &[u64],
    data: &[f64],
    attributes: &Map<String, Value>,
) -> Result<LocalAffines, String> {
    if attributes.get("type").and_then(Value::as_str) != Some(LOCAL_AFFINES) {
        return Err(format!(
            "is an array and no local affines: its attributes have no \"type\": \"{LOCAL_AFFINES}\""
        ));
    }
    check_direction(attributes, Direction::FixedToMoving)?;
    if CoordinateConvention::read(attributes, None)? != CoordinateConvention::default() {
        return Err("is not in axes z,y,x and micrometres; write it anew in those".to_owned());
    }
    let entry = |object: &Map<String, Value>, key: &str| -> Result<Point, String> {
        let value = object.get(key).ok_or_else(|| format!("has no \"{key}\" in its attributes"))?;
        numbers::triple(value, &Located::root(key))
    };
    let domain = attributes
        .get("domain")
        .and_then(Value::as_object)
        .ok_or("has no \"domain\" in its attributes")?;
    let block = entry(attributes, "block")?.map(|n| n as usize);
    let voxels = entry(domain, "shape")?.map(|n| n as usize);
    if block.contains(&0) {
        return Err(format!("has blocks of {block:?} voxels"));
    }
    let counts = LocalAffines::counts(voxels, block).map(|n| n as u64);
    if shape != [counts[0], counts[1], counts[2], 3, 4] {
        return Err(format!(
            "is an array of {shape:?}, wanted {counts:?} blocks of 3x4 matrices, as its attributes say"
        ));
    }
    let rows = |m: &[f64]| std::array::from_fn(|r| std::array::from_fn(|c| m[4 * r + c]));
    let maps = LocalAffines {
        domain: Grid::new(voxels, entry(domain, "spacing")?, entry(domain, "origin")?),
        block,
        overlap: entry(attributes, "overlap")?,
        affines: data.chunks_exact(12).map(|m| Affine::from_rows(rows(m))).collect(),
    };
    check(&maps)?;
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps() -> LocalAffines {
        LocalAffines {
            domain: Grid::new([10, 20, 30], [2.0, 1.0 / 3.0, 0.5], [0.1, 0.0, -7.0]),
            block: [10, 10, 16],
            overlap: [5.0, 1.25, 4.0],
            affines: (0..4).map(|i| Affine::translation([0.1 * f64::from(i), 0.0, 1e-9])).collect(),
        }
    }

    fn encoded() -> (Vec<u64>, Vec<f64>, Map<String, Value>) {
        let data = maps().affines.iter().flat_map(|map| map.rows().concat()).collect();
        (vec![1, 2, 2, 3, 4], data, describe(&maps()))
    }

    #[test]
    fn local_affines_come_back_bit_for_bit() {
        let (shape, data, attributes) = encoded();
        let text = serde_json::to_string(&attributes).unwrap();
        let attributes = serde_json::from_str(&text).unwrap();
        assert_eq!(decode(&shape, &data, &attributes).unwrap(), maps());
    }

    #[test]
    fn what_is_wrong_with_an_array_is_one_sentence() {
        let failing = |change: fn(&mut Vec<u64>, &mut Vec<f64>, &mut Map<String, Value>)| {
            let (mut shape, mut data, mut attributes) = encoded();
            change(&mut shape, &mut data, &mut attributes);
            decode(&shape, &data, &attributes).unwrap_err()
        };
        let sentences = [
            failing(|_, _, a| drop(a.remove("type"))),
            failing(|_, _, a| drop(a.remove("direction"))),
            failing(|_, _, a| drop(a.insert("axes".into(), json!(["x", "y", "z"])))),
            failing(|_, _, a| drop(a.remove("domain"))),
            failing(|_, _, a| drop(a.remove("block"))),
            failing(|_, _, a| drop(a.insert("block".into(), json!([10, 0, 10])))),
            failing(|_, _, a| drop(a.insert("overlap".into(), json!([0, 6, 0])))),
            failing(|s, _, _| s[0] = 2),
            failing(|_, d, _| d[12] = f64::NAN),
            failing(|_, d, _| d[24..36].fill(0.0)),
        ];
        insta::assert_snapshot!(sentences.join("\n"));
    }
}
