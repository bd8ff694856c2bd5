"""Files that we write are read by other libraries, and files that they write are read by us.

Run by `make test` in the tests' own Python, with VOXLOOM_BIN set to the folder of the programs.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path

import numcodecs
import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
import tensorstore
import zarr

BIN = Path(os.environ.get("VOXLOOM_BIN", Path(__file__).parents[2] / "target" / "release"))
SHARED = Path(os.environ.get("VOXLOOM_SHARED", Path(__file__).parents[3] / "shared"))
DTYPES = ["uint8", "uint16", "int16", "uint32", "uint64", "float32", "float64"]
SHAPE = (21, 34, 45)
SPACING = (2.0, 0.5, 0.25)
ORIGIN = (10.0, -3.0, 0.125)


def ours(program, *args, ok=True):
    run = subprocess.run([BIN / program, *map(str, args)], capture_output=True, text=True)
    assert not ok or run.returncode == 0, run.stderr
    return run


def voxels(dtype):
    random = np.random.default_rng(7)
    if dtype.startswith("float"):
        return random.normal(size=SHAPE).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, SHAPE, dtype=dtype, endpoint=True)


def flags(values):
    return ",".join(str(v) for v in values)


@pytest.fixture(params=DTYPES)
def source(request, tmp_path):
    """A `.npy` volume and its array."""
    array = voxels(request.param)
    np.save(tmp_path / "source.npy", array)
    return tmp_path / "source.npy", array


def transcode(source, out, *more):
    ours(
        "transcode", source, "-o", out, "--spacing", flags(SPACING), f"--origin={flags(ORIGIN)}", *more
    )


def read_with_ours(location, tmp_path, *more):
    out = tmp_path / "back.npy"
    ours("transcode", location, "--to", "npy", "-o", out, "--overwrite", *more)
    return np.load(out)


def facts(location, *more):
    return json.loads(ours("inspect", location, "--json", *more).stdout)


# ours -> theirs


@pytest.mark.parametrize("codec", ["blosc", "raw", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["zarr3", "zarr2"])
def test_zarr_of_ours_opens_in_zarr_python_and_tensorstore(source, tmp_path, version, codec):
    path, array = source
    out = tmp_path / "out.zarr"
    transcode(path, out, "--to", version, "--codec", codec, "--chunk", "16,16,16")
    assert np.array_equal(zarr.open_array(out / "0", mode="r")[...], array)
    driver = {"zarr3": "zarr3", "zarr2": "zarr"}[version]
    store = {"driver": driver, "kvstore": {"driver": "file", "path": str(out / "0")}}
    assert np.array_equal(tensorstore.open(store, read=True).result().read().result(), array)


def test_shards_of_ours_open_in_zarr_python_and_tensorstore(tmp_path):
    array = voxels("uint16")
    np.save(tmp_path / "a.npy", array)
    out = tmp_path / "out.zarr"
    transcode(tmp_path / "a.npy", out, "--to", "zarr3", "--chunk", "8,8,8", "--shard", "16,32,32")
    opened = zarr.open_array(out / "0", mode="r")
    assert opened.shards == (16, 32, 32) and opened.chunks == (8, 8, 8)
    assert np.array_equal(opened[...], array)
    store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(out / "0")}}
    assert np.array_equal(tensorstore.open(store, read=True).result().read().result(), array)


@pytest.mark.parametrize("codec", ["raw", "gzip", "zstd", "blosc"])
def test_n5_of_ours_opens_in_tensorstore(source, tmp_path, codec):
    path, array = source
    out = tmp_path / "out.n5" / "s0"
    transcode(path, out, "--to", "n5", "--codec", codec, "--chunk", "16,16,16")
    store = {"driver": "n5", "kvstore": {"driver": "file", "path": str(out)}}
    assert np.array_equal(tensorstore.open(store, read=True).result().read().result().T, array)
    attributes = json.loads((out / "attributes.json").read_text())
    assert attributes["dimensions"] == list(SHAPE[::-1])


@pytest.mark.parametrize("version", ["zarr3", "zarr2"])
def test_ome_zarr_of_ours_has_axes_units_scale_and_translation(tmp_path, version):
    array = voxels("uint16")
    np.save(tmp_path / "a.npy", array)
    out = tmp_path / "out.zarr"
    transcode(tmp_path / "a.npy", out, "--to", version, "--chunk", "16,16,16")
    ours("downsample", out, "--factor", "2,2,2", "--levels", "1")
    node = next(iter(ome_zarr.reader.Reader(ome_zarr.io.parse_url(str(out)))()))
    assert [axis["name"] for axis in node.metadata["axes"]] == ["z", "y", "x"]
    assert all(axis["unit"] == "micrometer" for axis in node.metadata["axes"])
    (scale, shift), (scale1, shift1) = node.metadata["coordinateTransformations"]
    assert scale["scale"] == list(SPACING) and shift["translation"] == list(ORIGIN)
    assert np.allclose(scale1["scale"], np.array(SPACING) * 2)
    assert np.allclose(shift1["translation"], np.array(ORIGIN) + np.array(SPACING) / 2)
    assert np.array_equal(np.asarray(node.data[0]), array)
    whole = array[:20, :34, :44].astype(np.uint64).reshape(10, 2, 17, 2, 22, 2).sum((1, 3, 5))
    assert np.array_equal(np.asarray(node.data[1])[:10, :17, :22], (whole + 4) // 8)


# theirs -> ours


@pytest.mark.parametrize("dtype,version", list(itertools.product(DTYPES, [2, 3])))
def test_zarr_of_zarr_python_opens_in_ours(tmp_path, dtype, version):
    array = voxels(dtype)
    path = tmp_path / "theirs.zarr"
    zarr.create_array(path, data=array, chunks=(16, 16, 16), zarr_format=version)
    assert np.array_equal(read_with_ours(path, tmp_path, "--spacing", flags(SPACING)), array)


def test_shards_of_zarr_python_open_in_ours(tmp_path):
    array = voxels("uint16")
    zarr.create_array(tmp_path / "s.zarr", data=array, chunks=(8, 8, 8), shards=(16, 16, 16))
    assert np.array_equal(read_with_ours(tmp_path / "s.zarr", tmp_path, "--spacing", "1,1,1"), array)


def test_big_endian_zarr_opens_in_ours(tmp_path):
    array = voxels("uint16").astype(">u2")
    zarr.create_array(tmp_path / "b.zarr", data=array, chunks=(16, 16, 16), zarr_format=2)
    assert np.array_equal(read_with_ours(tmp_path / "b.zarr", tmp_path, "--spacing", "1,1,1"), array)


@pytest.mark.parametrize(
    "compression",
    [{"type": "raw"}, {"type": "gzip"}, {"type": "bzip2"}, {"type": "xz"},
     {"type": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}, {"type": "zstd"}],
    ids=lambda c: c["type"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_n5_of_tensorstore_opens_in_ours(tmp_path, dtype, compression):
    array = voxels(dtype)
    path = tmp_path / "theirs.n5" / "s0"
    store = tensorstore.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "dimensions": SHAPE[::-1], "blockSize": [16, 16, 16], "dataType": dtype,
                "compression": compression,
            },
        },
        create=True,
    ).result()
    store.write(array.T).result()
    assert np.array_equal(read_with_ours(path, tmp_path, "--spacing", "1,1,1"), array)


def test_ome_zarr_of_five_axes_and_other_units_opens_in_ours(tmp_path):
    array = np.stack([voxels("uint16") // 2, voxels("uint16")])[None]
    group = zarr.open_group(tmp_path / "five.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=array, chunks=(1, 1, 16, 16, 16))
    space = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    group.attrs["multiscales"] = [{
        "version": "0.4",
        "axes": [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "scale", "scale": [1, 1, 2000, 500, 250]},
            {"type": "translation", "translation": [0, 0, 10000, 0, 0]},
        ]}],
    }]
    location = tmp_path / "five.zarr"
    refused = ours("inspect", location, ok=False)
    assert refused.returncode == 1 and "--channel" in refused.stderr
    back = read_with_ours(location, tmp_path, "--channel", "1", "--time", "0")
    assert np.array_equal(back, array[0, 1])
    known = facts(location, "--channel", "1")
    assert np.allclose(known["spacing"], SPACING) and np.allclose(known["origin"], [10, 0, 0])


@pytest.mark.skipif(not SHARED.exists(), reason="SKIPPED: shared data absent")
def test_bigstreams_tutorial_opens_with_its_sum_and_voxel_size(tmp_path):
    location = SHARED / "data" / "bigstream-tutorial" / "fix.n5" / "lowres"
    assert int(read_with_ours(location, tmp_path).sum(dtype=np.uint64)) == 5262943917
    known = facts(location)
    assert np.allclose(known["spacing"], [1.68, 1.84, 1.84])


# theirs -> ours: further types, codecs and layouts


def spaced(path, tmp_path):
    return read_with_ours(path, tmp_path, "--spacing", "1,1,1")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "bool", "float16"])
def test_the_other_types_of_zarr_python_open_in_ours(tmp_path, dtype, version):
    random = np.random.default_rng(3)
    array = random.integers(-3, 100, SHAPE) if dtype != "bool" else random.integers(0, 2, SHAPE)
    array = array.astype(dtype)
    path = tmp_path / "theirs.zarr"
    zarr.create_array(path, data=array, chunks=(16, 16, 16), zarr_format=version)
    assert np.array_equal(spaced(path, tmp_path), array)


@pytest.mark.parametrize(
    "codec",
    ["zstd", "zlib", "gzip", "bz2", "lzma", "lz4", "blosc", "crc32c", "crc32", "adler32", "fletcher32",
     "shuffle"],
)
def test_codecs_of_numcodecs_open_in_ours(tmp_path, codec):
    array = voxels("uint16")
    name = f"numcodecs.{codec}"
    configuration = {"elementsize": 2} if codec == "shuffle" else {}
    written = zarr.registry.get_codec_class(name)(**configuration)
    role = {"filters": None, "compressors": [written]}
    path = tmp_path / "theirs.zarr"
    zarr.create_array(path, data=array, chunks=(16, 16, 16), **role)
    metadata = json.loads((path / "zarr.json").read_text())
    assert metadata["codecs"][-1]["name"] == name
    assert np.array_equal(spaced(path, tmp_path), array)


@pytest.mark.parametrize(
    "compressor",
    ["Zlib", "GZip", "BZ2", "LZMA", "LZ4", "Zstd", "Blosc"],
)
def test_compressors_and_filters_of_zarr_2_open_in_ours(tmp_path, compressor):
    array = voxels("uint16")
    path = tmp_path / "theirs.zarr"
    filters = [
        numcodecs.Delta(dtype="<u2"), numcodecs.Shuffle(elementsize=2), numcodecs.Fletcher32(),
    ]
    zarr.create_array(
        path, data=array, chunks=(16, 16, 16), zarr_format=2, filters=filters,
        compressors=getattr(numcodecs, compressor)(),
    )
    assert np.array_equal(spaced(path, tmp_path), array)


def test_scaled_and_rounded_values_of_numcodecs_open_in_ours(tmp_path):
    array = np.round(voxels("float32") * 100) / 100
    for name, filters in {
        "scaled": [numcodecs.FixedScaleOffset(offset=0, scale=100, dtype="<f4", astype="<i4")],
        "quantised": [numcodecs.Quantize(digits=2, dtype="<f4")],
        "rounded": [numcodecs.BitRound(keepbits=12)],
    }.items():
        path = tmp_path / f"{name}.zarr"
        zarr.create_array(
            path, data=array, chunks=(16, 16, 16), zarr_format=2, filters=filters,
            compressors=numcodecs.GZip(),
        )
        theirs = zarr.open_array(path, mode="r")[...]
        assert np.allclose(spaced(path, tmp_path), theirs, rtol=1e-6), name


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_in_another_order_open_in_ours(tmp_path, version):
    array = voxels("uint16")
    path = tmp_path / "theirs.zarr"
    more = {"order": "F"} if version == 2 else {
        "filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))],
    }
    zarr.create_array(path, data=array, chunks=(7, 16, 9), zarr_format=version, **more)
    assert np.array_equal(spaced(path, tmp_path), array)


@pytest.mark.parametrize("endian", ["little", "big"])
def test_shards_within_shards_of_tensorstore_open_in_ours(tmp_path, endian):
    array = voxels("uint16")
    path = tmp_path / "theirs.zarr"
    bytes_codec = {"name": "bytes", "configuration": {"endian": endian}}
    inner = {"name": "sharding_indexed", "configuration": {
        "chunk_shape": [4, 8, 8], "codecs": [bytes_codec, {"name": "gzip"}],
        "index_location": "start"}}
    outer = {"name": "sharding_indexed", "configuration": {
        "chunk_shape": [8, 16, 16], "codecs": [inner]}}
    store = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "shape": SHAPE, "data_type": "uint16", "codecs": [outer],
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 32, 32]}},
            },
        },
        create=True,
    ).result()
    store.write(array).result()
    assert np.array_equal(spaced(path, tmp_path), array)
    assert facts(path, "--spacing", "1,1,1")["chunk"] == [4, 8, 8]


@pytest.mark.parametrize("fill", [7, "NaN", "Infinity", "0x7fc00000"])
def test_fill_values_of_zarr_python_are_those_of_ours(tmp_path, fill):
    path = tmp_path / "theirs.zarr"
    zarr.create_array(path, shape=SHAPE, dtype="float32", chunks=(16, 16, 16), fill_value=0.0)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["fill_value"] = fill
    (path / "zarr.json").write_text(json.dumps(metadata))
    theirs = zarr.open_array(path, mode="r")[...]
    assert np.array_equal(spaced(path, tmp_path), theirs, equal_nan=True)


def test_the_axes_units_and_resolution_of_tensorstores_n5_open_in_ours(tmp_path):
    array = voxels("uint16")
    path = tmp_path / "theirs.n5"
    store = tensorstore.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "dimensions": SHAPE[::-1], "blockSize": [16, 16, 16], "dataType": "uint16",
                "compression": {"type": "gzip"}, "axes": ["x", "y", "z"],
                "units": ["nm", "nm", "um"], "resolution": [250.0, 500.0, 2.0],
            },
        },
        create=True,
    ).result()
    store.write(array.T).result()
    assert np.array_equal(read_with_ours(path, tmp_path), array)
    assert np.allclose(facts(path)["spacing"], SPACING)
