//! Compares this module with the `n5` crate on local files: reading of raw, gzip, bzip2, xz and
//! LZ4-frame blocks, and writing of raw and gzip blocks.

use n5::ndarray::{BoundingBox, N5NdarrayReader};
use n5::prelude::*;
use n5::smallvec::smallvec;
use proptest::prelude::*;
use std::fs;

use super::*;
use crate::geom::Box3;
use crate::volume::{Codec, Existing, Format, Output, Select, Volume};

fn compressions() -> Vec<n5::compression::CompressionType> {
    ["raw", "gzip", "bzip2", "xz", "lz4"]
        .into_iter()
        .map(|name| serde_json::from_value(json!({"type": name})).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_the_n5_crate_writes_reads_the_same(
        shape in proptest::array::uniform3(1u64..12),
        block in proptest::array::uniform3(1u32..8),
        which in 0usize..5,
        seed in any::<i16>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a.n5");
        let n5 = N5Filesystem::open_or_create(root.to_str().unwrap()).unwrap();
        let attributes = DatasetAttributes::new(
            shape.iter().copied().collect(),
            block.iter().copied().collect(),
            DataType::INT16,
            compressions()[which].clone(),
        );
        n5.create_dataset("volume", &attributes).unwrap();
        let value = |x: u64, y: u64, z: u64| seed.wrapping_add((x + 17 * y + 301 * z) as i16);
        let counts: Vec<u64> =
            (0..3).map(|a| shape[a].div_ceil(u64::from(block[a]))).collect();
        for k in 0..counts[2] {
            for j in 0..counts[1] {
                for i in 0..counts[0] {
                    let at = [i, j, k];
                    let start: Vec<u64> = (0..3).map(|a| at[a] * u64::from(block[a])).collect();
                    let size: Vec<u64> =
                        (0..3).map(|a| u64::from(block[a]).min(shape[a] - start[a])).collect();
                    let mut data = Vec::new();
                    for z in 0..size[2] {
                        for y in 0..size[1] {
                            data.extend(
                                (0..size[0]).map(|x| value(start[0] + x, start[1] + y, start[2] + z)),
                            );
                        }
                    }
                    let size = size.iter().map(|n| *n as u32).collect();
                    let block = SliceDataBlock::new(size, smallvec![i, j, k], data);
                    n5.write_block("volume", &attributes, &block).unwrap();
                }
            }
        }
        let location = root.join("volume").display().to_string();
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        let volume = Volume::open(&location, &select).unwrap();
        prop_assert_eq!(volume.grid().shape, [shape[2], shape[1], shape[0]].map(|n| n as usize));
        let found = volume.read::<i16>(&volume.grid().bounds()).unwrap();
        let mut at = found.into_iter();
        for z in 0..shape[2] {
            for y in 0..shape[1] {
                for x in 0..shape[0] {
                    prop_assert_eq!(at.next(), Some(value(x, y, z)));
                }
            }
        }
    }

    #[test]
    fn what_we_write_the_n5_crate_reads_the_same(
        shape in proptest::array::uniform3(1usize..12),
        chunk in proptest::array::uniform3(1usize..8),
        gzip in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a.n5");
        let spec = Spec {
            grid: Grid::new(shape, [1.0; 3], [0.0; 3]),
            dtype: Dtype::F32,
            chunk,
            shard: None,
            codec: if gzip { Codec::Gzip } else { Codec::Raw },
            format: Format::N5,
        };
        let location = root.display().to_string();
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        let value = |z: i64, y: i64, x: i64| (x + 20 * y + 400 * z) as f32 + 0.5;
        for tile in Box3::of_shape(shape).tiles(output.unit()) {
            let mut voxels = Vec::new();
            for z in tile.min[0]..tile.max[0] {
                for y in tile.min[1]..tile.max[1] {
                    voxels.extend((tile.min[2]..tile.max[2]).map(|x| value(z, y, x)));
                }
            }
            output.write(&tile, &voxels).unwrap();
        }
        let n5 = N5Filesystem::open(root.to_str().unwrap()).unwrap();
        let attributes = n5.get_dataset_attributes("s0").unwrap();
        prop_assert_eq!(attributes.get_dimensions()[0] as usize, shape[2]);
        let everything = BoundingBox::new(
            smallvec![0; 3],
            attributes.get_dimensions().iter().copied().collect(),
        );
        let found = n5.read_ndarray::<f32>("s0", &attributes, &everything).unwrap();
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    prop_assert_eq!(found[[x, y, z]], value(z as i64, y as i64, x as i64));
                }
            }
        }
    }
}

#[test]
fn every_compression_comes_back() {
    let bytes: Vec<u8> = (0..50_000u32).map(|i| (i / 3 % 250) as u8).collect();
    for compression in [
        Compression::Raw,
        Compression::Gzip { level: 5, zlib: false },
        Compression::Gzip { level: 1, zlib: true },
        Compression::Bzip2 { level: 9 },
        Compression::Lz4 { block: 4096 },
        Compression::Xz { preset: 1 },
        Compression::Zstd { level: 3 },
        Compression::Blosc { cname: "lz4".into(), level: 5, shuffle: 1 },
        Compression::Blosc { cname: "zstd".into(), level: 1, shuffle: 2 },
    ] {
        let mut packed = Vec::new();
        compression.encode(&bytes, 2, &mut packed).unwrap();
        let mut out = Vec::new();
        compression.decode(&packed, bytes.len(), &mut out).unwrap();
        assert_eq!(out, bytes, "{compression:?}");
        let attributes = json!({"compression": compression.to_json()});
        let read = Compression::from_attributes("a", attributes.as_object().unwrap()).unwrap();
        assert_eq!(read, compression);
        let half = &packed[..packed.len() / 2];
        assert!(compression.decode(half, bytes.len(), &mut out).is_err());
    }
}

#[test]
fn the_block_of_the_specification_is_read() {
    // "Examples" of the specification: a block 1 x 2 x 3 with six int16, raw, and lz4 in the
    // framing of lz4-java
    let folder = tempfile::tempdir().unwrap();
    let head: &[u8] = &[0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    let raw: &[u8] = &[0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6];
    let mut lz4 = Vec::new();
    Compression::Lz4 { block: 65_536 }.encode(raw, 2, &mut lz4).unwrap();
    for (name, payload) in [("raw", raw), ("lz4", &lz4)] {
        let path = folder.path().join(name);
        let attributes = json!({"dimensions": [1, 2, 3], "blockSize": [1, 2, 3],
            "dataType": "int16", "compression": {"type": name}});
        fs::create_dir_all(path.join("0/0")).unwrap();
        fs::write(path.join("attributes.json"), attributes.to_string()).unwrap();
        fs::write(path.join("0/0/0"), [head, payload].concat()).unwrap();
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        let volume = Volume::open(&path.display().to_string(), &select).unwrap();
        let found = volume.read::<i16>(&Box3::of_shape([3, 2, 1])).unwrap();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
    }
}
