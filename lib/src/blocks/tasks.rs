//! The tasks of a plan: the blocks of a regular grid, which are derived from their numbers and not
//! stored, or a list of boxes of any sizes.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Identity, Part};
use crate::fingerprint::Fingerprint;
use crate::geom::Box3;

/// The name of a task in messages and receipts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// Index of a block in the grid of blocks, (z, y, x).
    #[serde(rename = "index")]
    Block([usize; 3]),
    /// The name of any other task, such as a tile or a pair of sections.
    #[serde(rename = "name")]
    Name(Box<str>),
}

impl Default for Key {
    fn default() -> Self {
        Self::Block([0; 3])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block([z, y, x]) => write!(f, "block {z},{y},{x}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One unit of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Number of the task in the plan, from 0; independent of how the plan is divided into parts.
    pub id: usize,
    /// Name of the task in messages and receipts.
    pub key: Key,
    /// The output box, in voxels, that only this task writes.
    pub core: Box3,
    /// Amount of work, relative to that of the other tasks.
    pub cost: u64,
    /// Peak memory of the task, bytes.
    pub memory: u64,
    /// Number of the wave: the task begins when all tasks of lower waves are done.
    pub wave: usize,
}

/// A task of [`Plan::list`](super::Plan::list).
#[derive(Clone, Debug, PartialEq)]
pub struct ListedTask {
    /// Name of the task in messages and receipts.
    pub key: Key,
    /// The output box, in voxels, that only this task writes.
    pub core: Box3,
    /// Amount of work, relative to that of the other tasks; 0 counts as 1.
    pub cost: u64,
    /// Peak memory of the task, bytes.
    pub memory: u64,
    /// Number of the wave: the task begins when all tasks of lower waves are done.
    pub wave: usize,
}

/// The tasks of a plan, in order.
#[derive(Clone, Debug)]
pub enum Tasks {
    /// The blocks of a grid, in C order. The cost of a block is its number of voxels.
    BlockGrid(BlockGrid),
    /// A given list of tasks, in order of their waves.
    TaskList(TaskList),
}

/// A box of voxels that is divided into blocks.
#[derive(Clone, Debug)]
pub struct BlockGrid {
    bounds: Box3,
    block: [usize; 3],
    /// Number of blocks along z, y, x.
    grid: [usize; 3],
    /// Peak memory of a task, bytes.
    memory: u64,
}

/// Tasks in order of their waves.
#[derive(Clone, Debug)]
pub struct TaskList {
    items: Vec<ListedTask>,
    /// For each task, the summed cost of the tasks before it; one more element holds the cost of
    /// all tasks.
    before: Vec<u64>,
    /// Fingerprint of names, boxes and waves.
    hash: String,
}

impl BlockGrid {
    pub(super) fn new(bounds: Box3, block: [usize; 3], memory: u64) -> Self {
        let block = block.map(|n| n.max(1));
        let shape = bounds.shape();
        let grid = std::array::from_fn(|a| shape[a].div_ceil(block[a]));
        Self { bounds, block, grid, memory }
    }

    fn len(&self) -> usize {
        self.grid.iter().product()
    }

    fn index(&self, id: usize) -> [usize; 3] {
        let [_, y, x] = self.grid;
        [id / (y * x), id / x % y, id % x]
    }

    fn core(&self, index: [usize; 3]) -> Box3 {
        let min = std::array::from_fn(|a| self.bounds.min[a] + (index[a] * self.block[a]) as i64);
        let max: [i64; 3] = min;
        let max = std::array::from_fn(|a| (max[a] + self.block[a] as i64).min(self.bounds.max[a]));
        Box3 { min, max }
    }

    /// The number of voxels of all blocks before block `id`.
    fn cost_before(&self, id: usize) -> u128 {
        let [depth, height, width] = self.bounds.shape();
        if id >= self.len() {
            return depth as u128 * height as u128 * width as u128;
        }
        let index = self.index(id);
        let size = self.core(index).shape();
        let [z, y, x] = std::array::from_fn(|a| (index[a] * self.block[a]) as u128);
        let (height, width) = (height as u128, width as u128);
        z * height * width + size[0] as u128 * (y * width + size[1] as u128 * x)
    }

    /// The numbers of the blocks that intersect a box, in plan order.
    fn at(&self, part: &Box3) -> impl Iterator<Item = usize> + use<> {
        let part = part.intersect(&self.bounds);
        let ranges: [Range<usize>; 3] = std::array::from_fn(|a| {
            let block = self.block[a] as i64;
            let clamp = |i: i64| i.clamp(0, self.grid[a] as i64) as usize;
            if part.is_empty() {
                return 0..0;
            }
            let low = clamp((part.min[a] - self.bounds.min[a]).div_euclid(block));
            low..clamp((part.max[a] - self.bounds.min[a] + block - 1).div_euclid(block))
        });
        let ([z, y, x], grid) = (ranges, self.grid);
        z.flat_map(move |z| y.clone().map(move |y| (z * grid[1] + y) * grid[2]))
            .flat_map(move |row| x.clone().map(move |x| row + x))
    }
}

impl TaskList {
    /// Sorts the tasks by wave; tasks of a wave keep their order.
    pub(super) fn new(items: impl IntoIterator<Item = ListedTask>) -> Self {
        let mut items: Vec<ListedTask> = items.into_iter().collect();
        items.sort_by_key(|item| item.wave);
        let (mut before, mut sum, mut hash) = (vec![0], 0_u64, Fingerprint::default());
        for item in &mut items {
            item.cost = item.cost.max(1);
            sum = sum.saturating_add(item.cost);
            before.push(sum);
            hash.add(format!("{}\n{}\n{}\n", item.key, item.core, item.wave).as_bytes());
        }
        Self { items, before, hash: hash.hex() }
    }
}

impl Tasks {
    /// Number of tasks.
    pub fn len(&self) -> usize {
        match self {
            Self::BlockGrid(block_grid) => block_grid.len(),
            Self::TaskList(list) => list.items.len(),
        }
    }

    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The task with this number.
    ///
    /// # Panics
    /// If `id` is not less than the number of tasks.
    pub fn get(&self, id: usize) -> Task {
        assert!(id < self.len(), "the plan has {} tasks", self.len());
        match self {
            Self::BlockGrid(block_grid) => {
                let index = block_grid.index(id);
                let core = block_grid.core(index);
                let (key, cost) = (Key::Block(index), core.len() as u64);
                Task { id, key, core, cost, memory: block_grid.memory, wave: 0 }
            }
            Self::TaskList(list) => {
                let ListedTask { key, core, cost, memory, wave } = list.items[id].clone();
                Task { id, key, core, cost, memory, wave }
            }
        }
    }

    /// All tasks in order.
    pub fn iter(&self) -> impl Iterator<Item = Task> + '_ {
        (0..self.len()).map(|id| self.get(id))
    }

    /// The tasks whose core intersects the box `part`, in order. In a block grid, their indices are
    /// computed without a search.
    pub fn at(&self, part: &Box3) -> impl Iterator<Item = Task> + use<'_> {
        let part = *part;
        let (block_grid, list) = match self {
            Self::BlockGrid(block_grid) => (Some(block_grid.at(&part)), None),
            Self::TaskList(list) => (None, Some(list)),
        };
        let meets = move |item: &ListedTask| !item.core.intersect(&part).is_empty();
        let listed = list.into_iter().flat_map(|list| list.items.iter().enumerate());
        let listed = listed.filter(move |(_, item)| meets(item)).map(|(id, _)| id);
        block_grid.into_iter().flatten().chain(listed).map(|id| self.get(id))
    }

    /// The smallest box that contains the cores of all tasks; empty if there are no tasks.
    pub fn bounds(&self) -> Box3 {
        match self {
            Self::BlockGrid(block_grid) => block_grid.bounds,
            Self::TaskList(list) => {
                let cores = list.items.iter().map(|item| item.core);
                cores.reduce(|a, b| a.union(&b)).unwrap_or(Box3::new([0; 3], [0; 3]))
            }
        }
    }

    /// The shape of a block in voxels (z, y, x); in a list, that of the core with the most voxels.
    pub(super) fn block(&self) -> [usize; 3] {
        match self {
            Self::BlockGrid(block_grid) if self.is_empty() => block_grid.block.map(|_| 0),
            Self::BlockGrid(block_grid) => block_grid.core([0; 3]).shape(),
            Self::TaskList(list) => {
                let largest = list.items.iter().max_by_key(|item| item.core.len());
                largest.map_or([0; 3], |item| item.core.shape())
            }
        }
    }

    /// Number of blocks along z, y, x; `None` for a list.
    pub(super) fn grid(&self) -> Option<[usize; 3]> {
        match self {
            Self::BlockGrid(block_grid) => Some(block_grid.grid),
            Self::TaskList(_) => None,
        }
    }

    /// The mean memory of a task, bytes.
    pub(super) fn mean_memory(&self) -> u64 {
        match self {
            Self::BlockGrid(block_grid) => block_grid.memory,
            Self::TaskList(list) => {
                let sum = list.items.iter().map(|item| u128::from(item.memory)).sum::<u128>();
                (sum / list.items.len().max(1) as u128) as u64
            }
        }
    }

    /// The tasks of each wave, as ranges of task numbers.
    pub(super) fn waves(&self) -> Vec<Range<usize>> {
        let mut waves: Vec<Range<usize>> = Vec::new();
        let Self::TaskList(list) = self else {
            waves.push(0..self.len());
            return waves;
        };
        for (id, item) in list.items.iter().enumerate() {
            match waves.last_mut() {
                Some(last) if list.items[last.start].wave == item.wave => last.end = id + 1,
                _ => waves.push(id..id + 1),
            }
        }
        if waves.is_empty() {
            waves.push(0..0);
        }
        waves
    }

    /// The tasks of a part: a contiguous range of each wave. The parts have equal costs in each
    /// wave, up to the cost of one task.
    pub(super) fn share(&self, part: Part) -> Vec<Range<usize>> {
        self.waves().into_iter().map(|wave| self.cut(&wave, part)).collect()
    }

    fn cut(&self, wave: &Range<usize>, part: Part) -> Range<usize> {
        let n = part.n.max(1);
        let k = part.k.clamp(1, n);
        let first = self.cost_before(wave.start);
        let before = |id: usize| (self.cost_before(id) - first) as f64;
        let total = before(wave.end);
        // the first task after part k: the summed cost of the tasks before this task is as near as
        // possible to k/n of the total
        let cut = |k: usize| {
            if k == n {
                return wave.end;
            }
            let wanted = total * (k as f64 / n as f64);
            let (mut low, mut high) = (wave.start, wave.end);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if before(middle) <= wanted {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            let is_nearer = low < wave.end && before(low + 1) - wanted < wanted - before(low);
            low + usize::from(is_nearer)
        };
        cut(k - 1)..cut(k)
    }

    fn cost_before(&self, id: usize) -> u128 {
        match self {
            Self::BlockGrid(block_grid) => block_grid.cost_before(id),
            Self::TaskList(list) => u128::from(list.before[id]),
        }
    }

    /// `identity`, extended by the division into tasks. The result is the same for equal runs.
    pub(super) fn agreement(&self, identity: Identity) -> Identity {
        match self {
            Self::BlockGrid(_) => {
                let bounds =
                    if self.is_empty() { String::new() } else { self.bounds().to_string() };
                identity.with("bounds", bounds).with("block-size", self.block())
            }
            Self::TaskList(list) => identity.with("tasks", &list.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(core: Box3, cost: u64, wave: usize) -> ListedTask {
        ListedTask { key: Key::Name("tile".into()), core, cost, memory: 1, wave }
    }

    fn list(costs: &[(u64, usize)]) -> Tasks {
        let boxes = (0..).map(|i| Box3::new([i, 0, 0], [i + 1, 1, 1]));
        let items = costs.iter().zip(boxes).map(|(&(cost, wave), core)| item(core, cost, wave));
        Tasks::TaskList(TaskList::new(items))
    }

    proptest! {
        #[test]
        fn a_lattice_is_the_tiles_of_its_bounds(
            min in prop::array::uniform3(-9_i64..9),
            shape in prop::array::uniform3(0_usize..9),
            block in prop::array::uniform3(1_usize..5),
        ) {
            let max = std::array::from_fn(|a| min[a] + shape[a] as i64);
            let bounds = Box3::new(min, max);
            let tasks = Tasks::BlockGrid(BlockGrid::new(bounds, block, 1));
            let cores: Vec<Box3> = tasks.iter().map(|task| task.core).collect();
            prop_assert_eq!(&cores, &bounds.tiles(block).collect::<Vec<_>>());
            let mut sum = 0;
            for (id, core) in cores.iter().enumerate() {
                prop_assert_eq!(tasks.cost_before(id), sum);
                sum += core.len() as u128;
            }
            prop_assert_eq!(tasks.cost_before(cores.len()), sum);
        }

        #[test]
        fn parts_are_all_tasks_once_and_have_equal_shares_of_the_cost_of_every_wave(
            costs in prop::collection::vec((0_u64..1000, 0_usize..3), 0..40),
            n in 1_usize..9,
        ) {
            let tasks = list(&costs);
            let shares: Vec<_> = (1..=n).map(|k| tasks.share(Part { k, n })).collect();
            for (w, wave) in tasks.waves().into_iter().enumerate() {
                let all: Vec<usize> = shares.iter().flat_map(|share| share[w].clone()).collect();
                prop_assert_eq!(all, wave.clone().collect::<Vec<_>>());
                let cost = |range: &Range<usize>| range.clone().map(|id| tasks.get(id).cost).sum::<u64>();
                let most = wave.clone().map(|id| tasks.get(id).cost).max().unwrap_or(0);
                for share in &shares {
                    let fair = cost(&wave) as f64 / n as f64;
                    let error = (cost(&share[w]) as f64 - fair).abs();
                    prop_assert!(error <= most as f64, "{error} of {fair}");
                }
            }
        }

        #[test]
        fn tasks_at_a_box_are_those_that_meet_it_in_order(
            min in prop::array::uniform3(-9_i64..20),
            shape in prop::array::uniform3(1_i64..12),
        ) {
            let max = std::array::from_fn(|a| min[a] + shape[a]);
            let part = Box3::new(min, max);
            let bounds = Box3::new([-4, 2, 0], [9, 11, 14]);
            let block_grid = Tasks::BlockGrid(BlockGrid::new(bounds, [4, 3, 5], 1));
            let listed = block_grid.iter().map(|task| item(task.core, 1, 0));
            for tasks in [&Tasks::TaskList(TaskList::new(listed)), &block_grid] {
                let meets = |task: &Task| !task.core.intersect(&part).is_empty();
                let wanted: Vec<Task> = tasks.iter().filter(meets).collect();
                prop_assert_eq!(tasks.at(&part).collect::<Vec<_>>(), wanted);
            }
        }
    }

    #[test]
    fn parts_of_equal_tasks_differ_by_at_most_one() {
        for (count, n) in [(10, 3), (7, 7), (3, 5), (0, 2), (64, 1)] {
            let tasks = list(&vec![(5, 0); count]);
            let sizes: Vec<usize> = (1..=n).map(|k| tasks.share(Part { k, n })[0].len()).collect();
            let [least, most] = [sizes.iter().min(), sizes.iter().max()];
            assert!(most.unwrap() - least.unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn lists_that_differ_agree_on_nothing() {
        let agreement = |items: &[(u64, usize)]| list(items).agreement(Identity::of("test"));
        assert_eq!(agreement(&[(1, 0), (2, 0)]), agreement(&[(7, 0), (9, 0)]));
        assert_ne!(agreement(&[(1, 0), (2, 0)]), agreement(&[(1, 0), (2, 1)]));
        assert_ne!(agreement(&[(1, 0), (2, 0)]), agreement(&[(1, 0)]));
    }

    #[test]
    fn a_key_is_written_as_an_index_or_a_name() {
        let text = |key: Key| serde_json::to_string(&key).unwrap();
        assert_eq!(text(Key::Block([1, 2, 3])), r#"{"index":[1,2,3]}"#);
        assert_eq!(text(Key::Name("12-13".into())), r#"{"name":"12-13"}"#);
    }
}
