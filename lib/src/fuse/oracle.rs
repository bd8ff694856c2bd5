//! The slow and obvious fusion.

use super::Blend;

/// A tile that is shifted by whole pixels.
pub(super) struct ShiftedTile {
    pub(super) at: [i64; 2],
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
}

impl ShiftedTile {
    /// The value and the distances from the borders at a pixel of the plane.
    fn at(&self, [y, x]: [i64; 2]) -> Option<(f64, [f64; 2])> {
        let p = [y - self.at[0], x - self.at[1]];
        let inside = (0..2).all(|a| (0..self.shape[a] as i64).contains(&p[a]));
        let value = inside.then(|| self.values[p[0] as usize * self.shape[1] + p[1] as usize]);
        let value = value.filter(|v| !v.is_nan())?;
        let distance = |a: usize| {
            let [before, after] = [p[a] as f64 + 0.5, self.shape[a] as f64 - 0.5 - p[a] as f64];
            if before < after { before } else { after }
        };
        Some((f64::from(value), [distance(0), distance(1)]))
    }
}

/// The blended value of a pixel; `None` if no tile shows it.
pub(super) fn blended(
    tiles: &[ShiftedTile],
    pixel: [i64; 2],
    blend: Blend,
    width: f64,
) -> Option<f64> {
    let shown: Vec<_> = tiles.iter().filter_map(|tile| tile.at(pixel)).collect();
    let first = shown.first()?.0;
    let ramp = |d: f64| {
        let t = if d < width { d / width } else { 1.0 };
        3.0 * t * t - 2.0 * t * t * t
    };
    Some(match blend {
        Blend::First => first,
        Blend::Last => shown.last()?.0,
        Blend::Max => shown.iter().map(|(v, _)| *v).fold(f64::NEG_INFINITY, f64::max),
        Blend::Mean => shown.iter().map(|(v, _)| v).sum::<f64>() / shown.len() as f64,
        Blend::Linear => {
            let weight = |d: &[f64; 2]| (ramp(d[0]) * ramp(d[1])).max(1e-6);
            let sum: f64 = shown.iter().map(|(v, d)| v * weight(d)).sum();
            sum / shown.iter().map(|(_, d)| weight(d)).sum::<f64>()
        }
        Blend::Closest => {
            let mut best = (first, f64::NEG_INFINITY);
            for (v, d) in &shown {
                let near = d[0].min(d[1]);
                if near > best.1 {
                    best = (*v, near);
                }
            }
            best.0
        }
    })
}
