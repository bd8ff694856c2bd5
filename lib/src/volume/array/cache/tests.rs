use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;
use crate::volume::dtype::ByteOrder;

const LEN: usize = 100;
const EACH: u64 = ENTRY + LEN as u64;

fn decoded(byte: u8) -> Decoded {
    let block = Some(Block::whole(&[LEN as u64], ByteOrder::Little));
    Decoded { block, data: vec![byte; LEN] }
}

fn get(cache: &Cache, number: u64, count: &mut usize) -> Option<Arc<Decoded>> {
    let found = cache.get(number, LEN, |_| {
        *count += 1;
        Ok(decoded(number as u8))
    });
    found.unwrap()
}

#[test]
fn a_block_is_decoded_once_until_others_push_it_out() {
    let cache = Cache::new(3 * EACH);
    let mut count = 0;
    for index in [0, 1, 0, 1, 0] {
        assert_eq!(get(&cache, index, &mut count).unwrap().data[0], index as u8);
    }
    assert_eq!(count, 2);
    for index in 2..40 {
        get(&cache, index, &mut count);
    }
    assert!(cache.lock().peak <= cache.limit());
    let before = count;
    get(&cache, 1, &mut count);
    assert_eq!(count, before + 1);
}

#[test]
fn a_failure_is_tried_again_and_takes_no_room() {
    let cache = Cache::new(EACH);
    assert!(cache.get(0, LEN, |_| Err(Error::missing("a", "b"))).is_err());
    let held = |state: &CacheState| (state.bytes, state.slots.len());
    assert_eq!(held(&cache.lock()), (0, 0));
    assert!(get(&cache, 0, &mut 0).is_some());
}

#[test]
fn missing_chunks_count_and_are_given_up_like_others() {
    let cache = Cache::new(1000 * MISSING);
    for number in 0..100_000 {
        cache.get(number, LEN, |_| Ok(Decoded::default())).unwrap();
    }
    let state = cache.lock();
    assert!(state.peak <= cache.limit() && state.slots.len() <= 1000, "{}", state.slots.len());
    assert!(state.slots.len() > 900 && state.queue.len() <= 1000);
}

#[test]
fn a_block_that_has_no_room_is_not_kept_and_one_that_fills_the_cache_is() {
    let cache = Cache::new(EACH - 1);
    assert!(!cache.keeps(LEN) && get(&cache, 0, &mut 0).is_none());
    cache.keep(EACH);
    assert!(cache.keeps(LEN));
    let held = get(&cache, 0, &mut 0).unwrap();
    assert!(get(&cache, 1, &mut 0).is_none(), "the only room is in use");
    drop(held);
    assert!(get(&cache, 1, &mut 0).is_some());
    assert_eq!(cache.lock().peak, EACH);
}

#[test]
fn threads_that_want_one_block_share_its_decoding() {
    let cache = Cache::new(10 * EACH);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for index in 0..5 {
                    let found = cache.get(index, LEN, |_| {
                        count.fetch_add(1, Ordering::Relaxed);
                        Ok(decoded(index as u8))
                    });
                    assert_eq!(found.unwrap().unwrap().data, vec![index as u8; LEN]);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 5);
}

#[cfg(target_os = "linux")]
#[test]
fn entries_take_what_is_counted_for_them() {
    let resident = || -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let run = |make: fn() -> Decoded, expected: usize| {
        let cache = Cache::new(u64::MAX);
        let before = resident();
        for number in 0..400_000 {
            cache.get(number, expected, |_| Ok(make())).unwrap();
        }
        let bytes = cache.lock().bytes;
        (resident().saturating_sub(before), bytes)
    };
    // other tests allocate concurrently, and memory that they free may be reused here
    let (taken, counted) = run(Decoded::default, LEN);
    assert!(taken < counted + counted / 5, "missing: {taken} taken, {counted} counted");
    let (taken, counted) = run(|| decoded(0), LEN);
    assert!(taken < counted + counted / 5, "small: {taken} taken, {counted} counted");
}

proptest! {
    #[test]
    fn the_limit_holds_whatever_is_asked_for(
        limit in 0..20_u64,
        asked in prop::collection::vec((0..30_u64, 0..3_u8), 1..200),
    ) {
        let cache = Cache::new(limit * EACH / 2);
        for (number, kind) in asked {
            let found = cache.get(number, LEN, |_| match kind {
                0 => Ok(Decoded::default()),
                1 => Err(Error::missing("a", "b")),
                _ => Ok(decoded(number as u8)),
            });
            if let Ok(Some(found)) = found
                && found.block.is_some()
            {
                prop_assert_eq!(&found.data, &vec![number as u8; LEN]);
            }
            let state = cache.lock();
            prop_assert!(state.peak <= cache.limit());
            let contents = state.slots.values().map(|slot| slot.lock().as_ref().unwrap().bytes());
            prop_assert_eq!(contents.sum::<u64>(), state.bytes);
        }
    }
}
