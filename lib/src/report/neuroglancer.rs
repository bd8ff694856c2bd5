use serde_json::{Value, json};

use super::planes::Contrast;
use crate::geom::{Grid, Point};

/// A volume shown as a layer of the viewer.
pub(super) struct Layer<'a> {
    pub(super) name: &'a str,
    pub(super) location: &'a str,
    pub(super) contrast: Contrast,
    /// The colour as `#rrggbb`.
    pub(super) colour: &'a str,
    pub(super) visible: bool,
}

/// The state of the viewer, centred at `position` (`[z, y, x]`, micrometres). The layers are
/// blended additively.
///
/// The keys are those of Neuroglancer's state schema (`src/state`, 2024). The dimensions are listed
/// in the order x, y, z, because Neuroglancer then shows x to the right and y down.
pub(super) fn state(layers: &[Layer], grid: &Grid, position: Point, base: &str) -> Value {
    let axes = ["z", "y", "x"];
    let mut dimensions = serde_json::Map::new();
    let mut at = Vec::new();
    for a in [2, 1, 0] {
        dimensions.insert(axes[a].to_owned(), json!([grid.spacing[a] * 1e-6, "m"]));
        at.push(position[a] / grid.spacing[a]);
    }
    let shown: Vec<Value> = layers.iter().map(|layer| layer_of(layer, base)).collect();
    let widest = (1..3).map(|a| grid.shape[a] as f64).fold(1.0, f64::max);
    json!({
        "dimensions": dimensions,
        "position": at,
        "crossSectionScale": widest / 800.0,
        "projectionScale": widest * 1.6,
        "layers": shown,
        "layout": "4panel-alt",
        "showAxisLines": true,
        "showScaleBar": true,
    })
}

fn layer_of(layer: &Layer, base: &str) -> Value {
    let shader = format!(
        "#uicontrol invlerp contrast(range=[{}, {}])\n#uicontrol vec3 colour color(default=\"{}\")\n\
         void main() {{\n  emitRGB(colour * contrast());\n}}\n",
        f64::from(layer.contrast.low),
        f64::from(layer.contrast.high),
        layer.colour
    );
    json!({
        "type": "image",
        "name": layer.name,
        "source": source(layer.location, base),
        "shader": shader,
        "blend": "additive",
        "opacity": 1.0,
        "visible": layer.visible,
    })
}

/// The URL of a location for Neuroglancer, with the format of the volume as its scheme. A path is
/// resolved against `base`; a `precomputed://` URL is unchanged.
fn source(location: &str, base: &str) -> String {
    let scheme = if location.starts_with("precomputed://") {
        return location.to_owned();
    } else if location
        .split(['/', '\\'])
        .any(|part| part.rsplit_once('.').is_some_and(|(_, end)| end == "n5"))
    {
        "n5"
    } else {
        "zarr"
    };
    if location.contains("://") {
        return format!("{scheme}://{location}");
    }
    let path = location.replace('\\', "/");
    let path = path.trim_start_matches("./").trim_matches('/');
    format!("{scheme}://{}/{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_become_addresses_of_their_format() {
        let base = "http://localhost:8000/";
        assert_eq!(source("./out/a.zarr", base), "zarr://http://localhost:8000/out/a.zarr");
        assert_eq!(source("fix.n5/lowres", base), "n5://http://localhost:8000/fix.n5/lowres");
        assert_eq!(source("s3://b/a.zarr/0", base), "zarr://s3://b/a.zarr/0");
        assert_eq!(source("precomputed://gs://b/v", base), "precomputed://gs://b/v");
    }

    #[test]
    fn a_state_has_metres_and_looks_at_the_position_in_voxels() {
        let grid = Grid::new([10, 20, 30], [2.0, 0.5, 0.25], [0.0; 3]);
        let contrast = Contrast { low: 1.0, high: 9.0 };
        let layer =
            Layer { name: "fixed", location: "f.zarr", contrast, colour: "#ff00ff", visible: true };
        let state = state(&[layer], &grid, [4.0, 5.0, 1.0], "http://h");
        assert_eq!(state["position"], json!([4.0, 10.0, 2.0]));
        assert_eq!(state["dimensions"]["z"], json!([2e-6, "m"]));
        assert!(state["layers"][0]["shader"].as_str().unwrap().contains("range=[1, 9]"));
    }
}
