//! Text matrices of greedy (RAS, 4x4 or 3x3). The 4x4 ones look like BigStream's and are
//! distinguished by an option or by the name `*.mat`.

use std::fmt::Write as _;

use super::world::World;
use crate::geom::Affine;

/// The rows of a text that is a square matrix of 3 or 4 rows; `None` for any other text.
pub(super) fn rows_of(text: &str) -> Option<Vec<Vec<f64>>> {
    let rows: Option<Vec<Vec<f64>>> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let gap = |c: char| c.is_whitespace() || ",;[]()".contains(c);
            line.split(gap).filter(|cell| !cell.is_empty()).map(|cell| cell.parse().ok()).collect()
        })
        .collect();
    rows.filter(|rows| matches!(rows.len(), 3 | 4) && rows.iter().all(|r| r.len() == rows.len()))
}

/// Reads greedy's text matrix, whose rows and columns are x, y, z, 1 or x, y, 1.
pub(super) fn read_greedy(text: &str, world: World) -> Result<Affine, String> {
    let rows = rows_of(text).ok_or("is no 4x4 matrix and no 3x3 one, as greedy writes")?;
    let axes = rows.len() - 1;
    if rows.iter().flatten().any(|v| !v.is_finite()) {
        return Err("holds numbers that are not finite; make it anew".to_owned());
    }
    let last: Vec<f64> = (0..=axes).map(|c| f64::from(c == axes)).collect();
    if rows[axes].iter().zip(&last).any(|(v, want)| (v - want).abs() > 1e-9) {
        return Err(format!(
            "has the last row {:?}, wanted {last:?}: is it transposed?",
            rows[axes]
        ));
    }
    let cell = |r: usize, c: usize| {
        if r < axes && c < axes { rows[r][c] } else { f64::from(r == c) }
    };
    let linear = std::array::from_fn(|r| std::array::from_fn(|c| cell(r, c)));
    let offset = std::array::from_fn(|r| if r < axes { rows[r][axes] } else { 0.0 });
    let map = world.map(&linear, offset);
    map.inverse().map_err(|e| e.to_string())?;
    Ok(map)
}

/// Formats a matrix as greedy reads it.
pub(super) fn write_greedy(map: &Affine, world: World) -> String {
    let (linear, offset) = world.to_external_map(map);
    let mut text = String::new();
    for (row, shift) in linear.iter().zip(offset) {
        let _ = writeln!(text, "{} {} {} {shift}", row[0], row[1], row[2]); // cannot fail
    }
    text.push_str("0 0 0 1\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::world::AnatomicalFrame;
    use super::*;

    const RAS: World = World { frame: AnatomicalFrame::Ras, micrometres: 1e3 };

    #[test]
    fn a_matrix_of_greedy_is_read_mirrored_and_written_back() {
        let text = "0.9 -0.2 0.1 -21\n0.2 0.95 0 19.75\n-0.1 0.05 1 2.5\n0 0 0 1\n";
        let map = read_greedy(text, RAS).unwrap();
        // x_ras -> 0.9 x - 0.2 y + 0.1 z - 21 in millimetres, and x_ras is minus x in LPS
        let [_, _, x] = map.apply([3000.0, -2000.0, -1000.0]);
        assert!((x - 1e3 * (21.0 - (0.9 - 0.4 + 0.3))).abs() < 1e-9);
        assert_eq!(write_greedy(&map, RAS), text);
    }

    #[test]
    fn a_plane_keeps_its_z_and_what_is_no_matrix_is_refused() {
        let map = read_greedy("1 0 -10\n0 1 -7\n0 0 1\n", RAS).unwrap();
        assert_eq!(map.apply([5.0, 0.0, 0.0]), [5.0, 7000.0, 10_000.0]);
        for (text, words) in [
            ("1 0\n0 1\n", "no 4x4"),
            ("1 0 0\n0 1 0\n5 5 1\n", "transposed"),
            ("1 0 0\n2 0 0\n0 0 1\n", "singular"),
            ("1 0 nan\n0 1 0\n0 0 1\n", "not finite"),
        ] {
            assert!(read_greedy(text, RAS).unwrap_err().contains(words), "{text}");
        }
    }
}
