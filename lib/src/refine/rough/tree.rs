//! The places of all sections, from the links between pairs.

use super::links::Link;
use crate::geom::Grid;

/// The links that place the sections: a maximum spanning tree by Kruskal's method. Links that one map
/// explains as a whole come first, so that no section is placed through a broken one if there is
/// another way; then those that explain more of both sections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    /// The section that is not moved.
    pub(super) root: usize,
    /// The sections that are connected to the root, each after the one that places it.
    order: Vec<usize>,
    /// For each section, the section and the number of the link that place it.
    parents: Vec<Option<(usize, usize)>>,
}

impl Tree {
    /// The tree of the links that are believed.
    ///
    /// * `reference`: the root; `None` for the middle section of the largest connected group
    pub(super) fn of(links: &[Link], sections: usize, reference: Option<usize>) -> Self {
        let mut best_first: Vec<usize> =
            (0..links.len()).filter(|i| links[*i].is_believed()).collect();
        best_first.sort_by(|a, b| {
            let [a, b] = [a, b].map(|i| &links[*i]);
            let whole = b.is_whole().cmp(&a.is_whole());
            whole.then_with(|| b.explained.total_cmp(&a.explained))
        });
        let mut groups: Vec<Vec<usize>> = (0..sections).map(|s| vec![s]).collect();
        let mut group: Vec<usize> = (0..sections).collect();
        let mut neighbours: Vec<Vec<(usize, usize)>> = vec![Vec::new(); sections];
        for i in best_first {
            let [a, b] = [links[i].section, links[i].other];
            if group[a] == group[b] {
                continue;
            }
            neighbours[a].push((b, i));
            neighbours[b].push((a, i));
            let [mut small, mut large] = [group[a], group[b]];
            if groups[small].len() > groups[large].len() {
                (small, large) = (large, small);
            }
            let moved = std::mem::take(&mut groups[small]);
            moved.iter().for_each(|s| group[*s] = large);
            groups[large].extend(moved);
        }
        let root = reference.unwrap_or_else(|| {
            // of groups of one size, the first
            let largest = groups.iter().rev().max_by_key(|group| group.len());
            let mut largest = largest.cloned().unwrap_or_default();
            largest.sort_unstable();
            largest.get(largest.len() / 2).copied().unwrap_or_default()
        });
        let (mut order, mut parents) = (vec![root], vec![None; sections]);
        let mut next = 0;
        while let Some(&section) = order.get(next) {
            next += 1;
            for &(child, link) in &neighbours[section] {
                if child != root && parents[child].is_none() {
                    parents[child] = Some((section, link));
                    order.push(child);
                }
            }
        }
        Self { root, order, parents }
    }

    /// The sections that are not connected to the root.
    pub(super) fn not_placed(&self) -> Vec<usize> {
        let is_lost = |s: &usize| *s != self.root && self.parents[*s].is_none();
        (0..self.parents.len()).filter(is_lost).collect()
    }

    /// The sections that are in pieces: most of the links of such a section are.
    pub(super) fn in_pieces(&self, links: &[Link]) -> Vec<usize> {
        let of = |section: usize| {
            let own = links
                .iter()
                .filter(move |l| l.is_believed() && [l.section, l.other].contains(&section));
            let broken = own.clone().filter(|link| link.pieces.len() > 1).count();
            2 * broken > own.count()
        };
        (0..self.parents.len()).filter(|section| of(*section)).collect()
    }

    /// The links of the tree.
    pub(super) fn links<'a>(&self, links: &'a [Link]) -> impl Iterator<Item = &'a Link> {
        self.parents.iter().flatten().map(|(_, link)| &links[*link])
    }

    /// The displacements along y and x from the aligned stack to each section at the nodes of a
    /// grid, micrometres. A section without a place has the displacements of the nearest one with a
    /// place.
    pub(super) fn displacements(&self, links: &[Link], grid: &Grid) -> Vec<f32> {
        let [sections, ny, nx] = grid.shape;
        let nodes: Vec<[f64; 2]> = (0..ny * nx)
            .map(|i| {
                let [_, y, x] = grid.position([0.0, (i / nx) as f64, (i % nx) as f64]);
                [y, x]
            })
            .collect();
        let mut places: Vec<Vec<[f64; 2]>> = vec![Vec::new(); sections];
        for &section in &self.order {
            places[section] = match self.parents[section] {
                None => nodes.clone(),
                Some((parent, link)) => {
                    let link = &links[link];
                    let is_forward = link.section == parent;
                    let step = |p: &[f64; 2]| {
                        if is_forward { link.forward(*p) } else { link.backward(*p) }
                    };
                    places[parent].iter().map(step).collect()
                }
            };
        }
        let lost = self.not_placed();
        let nearest = |section: usize| {
            if lost.binary_search(&section).is_err() {
                return section;
            }
            let placed = (0..sections).filter(|s| lost.binary_search(s).is_err());
            placed.min_by_key(|s| s.abs_diff(section)).unwrap_or(self.root)
        };
        (0..sections)
            .flat_map(|section| &places[nearest(section)])
            .zip(nodes.iter().cycle())
            .flat_map(|(place, node)| [0, 1].map(|a| (place[a] - node[a]) as f32))
            .collect()
    }
}
