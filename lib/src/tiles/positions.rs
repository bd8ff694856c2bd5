//! Positions of tiles as other programs write them.

use std::path::Path;

use super::Listed;
use crate::quote::shorten;
use crate::store;

/// Reads the lines of a file of positions. Locations are relative to its folder. Two forms are
/// known:
///
/// * `TileConfiguration.txt` of Fiji's stitching plug-ins: `dim = 2`, then for each tile
///   `file; ; (x, y)`
/// * lines of `file x y plane`, as the alignment tutorial of Karsh has them
///
/// # Errors
/// A message that names the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Listed>, String> {
    let folder = store::parent(path).unwrap_or(Path::new(""));
    let mut tiles = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line_number = number as u64 + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.contains(';')) {
            match (key.trim(), value.trim()) {
                ("dim", "2") => continue,
                ("dim", value) => {
                    let found = shorten(value);
                    return Err(format!(
                        "line {line_number} has dim = {found}; tiles are planes, with dim = 2"
                    ));
                }
                _ => {}
            }
        }
        let found = if line.contains(';') { fiji(line) } else { layout(line) };
        let (name, position, z) = found.ok_or_else(|| {
            format!(
                "line {line_number} is '{}'; wanted a table with the columns z,location,offset_y,offset_x, lines \
                 'file; ; (x, y)' of a TileConfiguration.txt, or lines 'file x y plane'",
                shorten(line)
            )
        })?;
        let image = if store::is_remote(Path::new(name)) {
            name.into()
        } else {
            store::resolve(folder, name)
        };
        tiles.push(Listed { image, mask: None, z, position, line: line_number });
    }
    Ok(tiles)
}

/// A finite number that is not so large that sums of several lose fractions of a pixel.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|v: &f64| v.abs() <= (1_u64 << 40) as f64)
}

/// A line `file; series; (x, y)`.
fn fiji(line: &str) -> Option<(&str, [f64; 2], i64)> {
    let mut cells = line.split(';');
    let (name, _, place) = (cells.next()?.trim(), cells.next()?, cells.next()?.trim());
    let inside = place.strip_prefix('(')?.strip_suffix(')')?;
    let (x, y) = inside.split_once(',')?;
    (!name.is_empty()).then_some((name, [number(y)?, number(x)?], 0))
}

/// A line `file x y plane`.
fn layout(line: &str) -> Option<(&str, [f64; 2], i64)> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let [name, x, y, z] = cells[..] else { return None };
    Some((name, [number(y)?, number(x)?], z.parse().ok().filter(|z: &i64| z.abs() <= 1 << 40)?))
}
