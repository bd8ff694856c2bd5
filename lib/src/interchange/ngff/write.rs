//! Writes chains as a Zarr group with a `scene` (OME-Zarr 0.6); fields go to a group
//! `coordinateTransformations`.

use std::path::Path;

use serde_json::{Value, json};

use crate::interchange::Error;
use crate::store::document::write_whole;
use crate::transform::Step;

/// The version of the metadata.
const VERSION: &str = "0.6";

/// The path of a field within the group.
pub(in crate::interchange) fn field_path(number: usize) -> String {
    format!("coordinateTransformations/displacements{number}")
}

/// Writes the group's metadata: a sequence of steps, with fields by their path in the group. The
/// arrays must exist already, in the folder `s0` of each [`field_path`].
pub(in crate::interchange) fn write(group: &Path, steps: &[Step]) -> Result<(), Error> {
    let mut list = Vec::new();
    let mut fields = 0;
    for step in steps {
        if let Step::Affine(map) = step {
            list.push(json!({"type": "affine", "affine": map.rows()}));
            continue;
        }
        let path = field_path(fields);
        fields += 1;
        write_object(&group.join(&path).join("zarr.json"), &field_group(&group.join(&path))?)?;
        list.push(json!({"type": "displacements", "path": path, "interpolation": "linear"}));
    }
    if list.is_empty() {
        list.push(json!({"type": "identity"}));
    }
    if fields > 0 {
        let folder = group.join("coordinateTransformations");
        write_object(&folder.join("zarr.json"), &group_of(&json!({})))?;
    }
    let system = |name: &str| json!({"name": name, "axes": space_axes()});
    let scene = json!({
        "coordinateSystems": [system("fixed"), system("moving")],
        "coordinateTransformations": [{
            "type": "sequence",
            "name": "fixed to moving",
            "input": {"name": "fixed"},
            "output": {"name": "moving"},
            "transformations": list,
        }],
    });
    // written last, because it marks the group as complete
    let attributes = json!({"ome": {"version": VERSION, "scene": scene}});
    write_object(&group.join("zarr.json"), &group_of(&attributes))
}

fn space_axes() -> Vec<Value> {
    ["z", "y", "x"]
        .map(|name| json!({"name": name, "type": "space", "unit": "micrometer"}))
        .to_vec()
}

fn group_of(attributes: &Value) -> Value {
    json!({"zarr_format": 3, "node_type": "group", "attributes": attributes})
}

/// The metadata of the group of a field: one level, positioned by the attributes of its array.
fn field_group(path: &Path) -> Result<Value, Error> {
    let array = path.join("s0").display().to_string();
    let (attributes, _) = crate::volume::attributes(&array)?.unwrap_or_default();
    let with = |key: &str, last: f64| -> Vec<f64> {
        let list = attributes.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_f64).chain([last]).collect()
    };
    let mut axes = space_axes();
    axes.push(json!({"name": "d", "type": "displacement", "discrete": true}));
    Ok(group_of(&json!({"ome": {
        "version": VERSION,
        "multiscales": [{
            "coordinateSystems": [{"name": "physical", "axes": axes}],
            "datasets": [{
                "path": "s0",
                "coordinateTransformations": [{
                    "type": "sequence",
                    "input": {"path": "s0"},
                    "output": {"name": "physical"},
                    "transformations": [
                        {"type": "scale", "scale": with("spacing", 1.0)},
                        {"type": "translation", "translation": with("origin", 0.0)},
                    ],
                }],
            }],
        }],
    }})))
}

fn write_object(path: &Path, object: &Value) -> Result<(), Error> {
    write_whole(path, format!("{object:#}\n").as_bytes()).map_err(|source| Error::Io {
        action: "write",
        path: path.display().to_string(),
        source,
    })
}
