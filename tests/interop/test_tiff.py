"""TIFF and PNG of tifffile and Pillow are read by us, and our TIFF by tifffile.

Run by `make test` in the tests' own Python, with VOXLOOM_BIN set to the folder of the programs.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

BIN = Path(os.environ.get("VOXLOOM_BIN", Path(__file__).parents[2] / "target" / "release"))
SHAPE = (5, 34, 45)


def ours(program, *args, ok=True):
    run = subprocess.run([BIN / program, *map(str, args)], capture_output=True, text=True)
    assert not ok or run.returncode == 0, run.stderr
    return run


def voxels(dtype, shape=SHAPE):
    random = np.random.default_rng(7)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return random.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def back(location, tmp_path, *more):
    out = tmp_path / "back.npy"
    ours("transcode", location, "--to", "npy", "-o", out, "--overwrite", *more)
    return np.load(out)


def refused(location, *words):
    run = ours("transcode", location, "--to", "npy", "-o", f"{location}.npy", "--spacing", "1,1,1", ok=False)
    assert run.returncode == 1 and not Path(f"{location}.npy").exists(), run.stderr
    assert all(word in run.stderr for word in words) and "damaged" not in run.stderr, run.stderr


DTYPES = [
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64", "bool",
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_tifffile_opens_in_ours(tmp_path, dtype, order):
    array = voxels(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=order, photometric="minisblack")
    found = back(tmp_path / "a.tif", tmp_path, "--spacing", "1,1,1")
    assert np.array_equal(found, array.astype(found.dtype))
    assert found.dtype == {"float16": "float32", "bool": "uint8"}.get(dtype, dtype)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_every_compression_of_tifffile_opens_in_ours(tmp_path, dtype, compression, predictor, layout):
    if compression in (None, "packbits") and predictor:
        pytest.skip("no predictor without a dictionary")
    array = voxels(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", array, compression=compression, predictor=predictor,
        photometric="minisblack", **layout,
    )
    assert np.array_equal(back(tmp_path / "a.tif", tmp_path, "--spacing", "1,1,1"), array)


@pytest.mark.parametrize("big", [False, True])
def test_an_imagej_hyperstack_of_tifffile_opens_in_ours(tmp_path, big):
    array = voxels("uint16", (3, 4, 2, 20, 30))
    tifffile.imwrite(
        tmp_path / "a.tif", array, imagej=not big, bigtiff=big, resolution=(2, 4),
        metadata={"axes": "TZCYX", "spacing": 0.7, "unit": "um"},
    )
    more = ["--spacing", "0.7,0.25,0.5"] if big else []
    found = back(tmp_path / "a.tif", tmp_path, "--channel", "1", "--time", "2", *more)
    assert np.array_equal(found, array[2, :, 1])


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "CTZYX", "ZCTYX"])
def test_ome_tiff_of_tifffile_opens_in_ours(tmp_path, axes):
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 30}
    array = voxels("uint16", tuple(sizes[axis] for axis in axes))
    tifffile.imwrite(
        tmp_path / "a.ome.tif", array, ome=True, photometric="minisblack",
        metadata={
            "axes": axes, "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "\u00b5m", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "\u00b5m",
        },
    )
    found = back(tmp_path / "a.ome.tif", tmp_path, "--channel", "1", "--time", "1")
    order = [axes.index(axis) for axis in "TCZYX"]
    assert np.array_equal(found, array.transpose(order)[1, 1])


def test_images_of_an_ome_tiff_are_chosen(tmp_path):
    arrays = [voxels("uint16"), voxels("uint16")[:3] // 2]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, array in zip(["left", "right"], arrays):
            writer.write(array, photometric="minisblack", metadata={"axes": "ZYX", "Name": name})
    refused(tmp_path / "a.ome.tif", "--image", "left", "right")
    for i, name in enumerate(["left", "right"]):
        for choice in [str(i), name]:
            found = back(tmp_path / "a.ome.tif", tmp_path, "--image", choice, "--spacing", "1,1,1")
            assert np.array_equal(found, arrays[i])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_of_tifffile_are_channels_in_ours(tmp_path, planar):
    array = voxels("uint8", (20, 30, 3))
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    refused(tmp_path / "a.tif", "3 channels")
    for c in range(3):
        found = back(tmp_path / "a.tif", tmp_path, "--spacing", "1,1,1", "--channel", c)
        assert np.array_equal(found[0], array[..., c])


@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (16, 32)}], ids=["strips", "tiles"])
def test_jpeg_in_tiff_opens_in_ours(tmp_path, layout):
    y, x = np.mgrid[:48, :64]
    array = np.stack([(y * 3 + x + 10 * z).astype("uint8") for z in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", array, compression="jpeg", photometric="minisblack", **layout)
    theirs = tifffile.imread(tmp_path / "a.tif").astype(int)
    found = back(tmp_path / "a.tif", tmp_path, "--spacing", "1,1,1").astype(int)
    # two JPEG decoders may round the inverse cosine transform differently
    assert np.abs(found - theirs).max() <= 2


def test_group_4_fax_of_pillow_opens_in_ours(tmp_path):
    array = voxels("bool", (40, 50))
    Image.fromarray(array).save(tmp_path / "a.tif", compression="group4")
    found = back(tmp_path / "a.tif", tmp_path, "--spacing", "1,1,1")
    assert np.array_equal(found[0], tifffile.imread(tmp_path / "a.tif").astype("uint8"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "LA", "RGB", "RGBA"])
def test_png_of_pillow_opens_in_ours(tmp_path, mode):
    base = voxels("uint8", (20, 30))
    image = Image.fromarray(base)
    if mode == "I;16":
        image = Image.fromarray(voxels("uint16", (20, 30)))
    elif mode == "P":
        image = Image.fromarray(base % 7).convert("L")
        image = image.quantize(7)
    elif mode != "L":
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    wanted = np.asarray(image)
    if mode == "1":
        wanted = wanted.astype("uint8") * 255
    wanted = wanted[..., None] if wanted.ndim == 2 else wanted
    for c in range(wanted.shape[-1]):
        more = ["--channel", c] if wanted.shape[-1] > 1 else []
        found = back(tmp_path / "a.png", tmp_path, "--spacing", "1,1,1", *more)
        assert np.array_equal(found[0], wanted[..., c])


@pytest.mark.parametrize(
    "compression,name", [("jpeg2000", "JPEG 2000"), ("lerc", "LERC"), ("webp", "WebP"), ("jpegxl", "JPEG XL")]
)
def test_what_ours_does_not_read_is_named(tmp_path, compression, name):
    array = voxels("uint8", (20, 32, 3) if compression == "webp" else (20, 32))
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression)
    refused(tmp_path / "a.tif", name, "deflate")


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in ("float16", "bool")])
def test_tiff_of_ours_opens_in_tifffile(tmp_path, dtype):
    array = voxels(dtype)
    np.save(tmp_path / "a.npy", array)
    ours("transcode", tmp_path / "a.npy", "--to", "tiff", "-o", tmp_path / "a.tif", "--spacing", "2,0.5,0.25")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert np.array_equal(file.asarray(), array) and file.asarray().dtype == dtype
        assert file.imagej_metadata["slices"] == SHAPE[0] and file.imagej_metadata["spacing"] == 2
