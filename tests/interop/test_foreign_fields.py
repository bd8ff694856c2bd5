"""Fields, splines and composites of other tools are interpreted as these tools define them.

Run like `test_formats.py`. SimpleITK stands for ITK; nibabel reads and writes NIfTI, h5py HDF5.
"""

import gzip

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import zarr

from test_transforms import (
    STRAIGHT, TOLERANCE, TURNED, a_field, an_affine, apply_itk, apply_ours, ours, our_chain, some_points)

GRID = ["--shape", "9,11,10", "--out-spacing", "20,20,20"]
NODES = np.stack(np.meshgrid(*(np.arange(n) * 20.0 for n in (9, 11, 10)), indexing="ij"), -1).reshape(-1, 3)


def a_spline(order, dimension=3):
    fixed = sitk.Image([20, 22, 18][:dimension], sitk.sitkUInt8)
    fixed.SetSpacing([0.01] * dimension)
    spline = sitk.BSplineTransformInitializer(fixed, [3, 4, 2][:dimension], order)
    numbers = np.random.default_rng(4).normal(0, 0.004, len(spline.GetParameters()))
    spline.SetParameters([float(v) for v in numbers])
    return spline


def nibabel_field(path, vectors, intent, p1=0.0, name="", slope=None, units="mm"):
    """Writes `vectors` (x, y, z, component) with an affine in RAS, nodes 40, 50 and 45 um apart;
    returns the positions of the nodes, RAS, millimetres."""
    affine = np.diag([-0.04, -0.05, 0.045, 1])
    affine[:3, 3] = (0.02, 0.03, -0.015)
    image = nibabel.Nifti1Image(vectors[:, :, :, None, :].astype(np.float32), affine)
    image.header.set_intent("vector", (), name)
    image.header["intent_code"] = intent
    image.header["intent_p1"] = p1
    image.header.set_xyzt_units(units)
    if slope is not None:
        image.header["scl_slope"] = slope
    nibabel.save(image, path)
    if slope is not None:  # nibabel writes a slope of its own
        data = bytearray(path.read_bytes())
        data[112:120] = np.float32([slope, 0]).tobytes()
        path.write_bytes(bytes(data))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in vectors.shape[:3]), indexing="ij"), -1)
    return nibabel.affines.apply_affine(affine, index)


def ras(points):
    """Our points (z, y, x, micrometres, LPS) as x, y, z in millimetres, RAS; `of_ras` is the
    inverse."""
    return points[:, ::-1] / 1e3 * (-1, -1, 1)


def of_ras(points):
    return (points * (-1, -1, 1) * 1e3)[:, ::-1]


# MetaImage


@pytest.mark.parametrize("direction", [STRAIGHT, TURNED], ids=["straight", "turned"])
@pytest.mark.parametrize("suffix,compressed", [(".mha", False), (".mha", True), (".mhd", False), (".mhd", True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fields_in_metaimage_take_points_to_the_same_places(tmp_path, suffix, compressed, dtype, direction):
    field = a_field(direction, dtype)
    sitk.WriteImage(field, str(tmp_path / f"field{suffix}"), compressed)
    said = ours("transcode", tmp_path / f"field{suffix}", "-o", tmp_path / "t.json").stderr
    assert "MetaImage: fixed-to-moving, x,y,z, LPS, millimetres" in said
    points = some_points()
    again = sitk.ReadImage(str(tmp_path / f"field{suffix}"), sitk.sitkVectorFloat64)
    want = apply_itk(sitk.DisplacementFieldTransform(again), points)
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - want).max() < TOLERANCE


# splines


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_splines_of_every_order_are_exact_at_the_nodes(tmp_path, order, suffix):
    spline = a_spline(order)
    sitk.WriteTransform(spline, str(tmp_path / f"t{suffix}"))
    ours("transcode", tmp_path / f"t{suffix}", *GRID, "-o", tmp_path / "t.json")
    got = apply_ours(tmp_path, [tmp_path / "t.json"], NODES)
    assert abs(got - apply_itk(spline, NODES)).max() < 2 * TOLERANCE


@pytest.mark.parametrize("order", [1, 2, 3])
def test_splines_of_a_plane_move_within_it(tmp_path, order):
    spline = a_spline(order, 2)
    sitk.WriteTransform(spline, str(tmp_path / "t.tfm"))
    ours("transcode", tmp_path / "t.tfm", "--shape", "1,11,10", "--out-spacing", "1,20,20", "-o", tmp_path / "t.json")
    nodes = NODES[NODES[:, 0] == 0]
    got = apply_ours(tmp_path, [tmp_path / "t.json"], nodes)
    want = np.array([spline.TransformPoint([float(v) / 1e3 for v in p[:0:-1]]) for p in nodes])[:, ::-1] * 1e3
    assert abs(got[:, 1:] - want).max() < 2 * TOLERANCE and (got[:, 0] == 0).all()


# HDF5


def test_composites_in_hdf5_take_points_to_the_same_places(tmp_path):
    euler = sitk.Euler3DTransform((0.1, 0.12, 0.09), 0.1, -0.2, 0.3, (0.004, -0.006, 0.002))
    transform = sitk.CompositeTransform([an_affine(), euler])
    sitk.WriteTransform(transform, str(tmp_path / "t.h5"))
    ours("transcode", tmp_path / "t.h5", "-o", tmp_path / "t.json")
    points = some_points()
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - apply_itk(transform, points)).max() < TOLERANCE


@pytest.mark.parametrize("direction", [STRAIGHT, TURNED], ids=["straight", "turned"])
def test_a_composite_of_a_field_and_a_matrix_as_ants_writes_it(tmp_path, direction):
    field = sitk.DisplacementFieldTransform(a_field(direction))
    transform = sitk.CompositeTransform([an_affine(), field])
    sitk.WriteTransform(transform, str(tmp_path / "Composite.h5"))
    ours("transcode", tmp_path / "Composite.h5", "-o", tmp_path / "t.json")
    points = some_points()
    got = apply_ours(tmp_path, [tmp_path / "t.json"], points)
    assert abs(got - apply_itk(transform, points)).max() < 5 * TOLERANCE  # vectors are float32


def bigwarp(vectors, spacing, offset, path=None, group=None, **attributes):
    """Writes a field as n5-imglib2's N5DisplacementField does; HDF5 lists the dimensions in
    reverse."""
    array = group.create_dataset(path, data=vectors, chunks=(4, 4, 4, 3), compression="gzip", shuffle=True)
    array.attrs["spacing"] = np.array(spacing, float)
    array.attrs["offset"] = np.array(offset, float)
    for key, value in attributes.items():
        array.attrs[key] = value
    return array


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("name", ["dfield", "0/dfield"])
def test_fields_of_bigwarp_in_hdf5_are_pulled_by_their_grid_and_their_matrix(tmp_path, quantised, name):
    rng = np.random.default_rng(2)
    stored = rng.integers(-3000, 3000, (6, 7, 8, 3)) if quantised else rng.normal(0, 3, (6, 7, 8, 3))
    multiplier = {"quantization_multiplier": 0.001} if quantised else {}
    affine = np.array([[1.05, 0.1, 0.02, 4], [-0.03, 0.9, 0.2, -6], [0.05, 0.01, 1.1, 2.0]])
    spacing, offset = (40.0, 50.0, 45.0), (-20.0, -30.0, -15.0)
    with h5py.File(tmp_path / "warp.h5", "w") as file:
        bigwarp(stored.astype(np.int16 if quantised else np.float32), spacing, offset, name, file,
                affine=affine.ravel(), **multiplier)
    ours("transcode", tmp_path / "warp.h5", "-o", tmp_path / "t.json")
    image = sitk.GetImageFromArray(np.asarray(stored * (0.001 if quantised else 1.0), np.float64), isVector=True)
    image.SetSpacing(spacing)
    image.SetOrigin(offset)
    points = some_points()
    moved = apply_itk(sitk.DisplacementFieldTransform(image), points, 1.0)
    want = (moved[:, ::-1] @ affine[:, :3].T + affine[:, 3])[:, ::-1]
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - want).max() < 5 * TOLERANCE


def test_what_hdf5_is_not_known_is_named_with_the_way_out(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = np.zeros((4, 5, 6), np.uint16)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = np.zeros((4, 5, 6, 3)), np.zeros((4, 5, 6, 3))
    for name, words in [("other.h5", "volume of the shape [4, 5, 6]"), ("two.h5", "a, b; images in HDF5 are not read")]:
        refused = ours("transcode", tmp_path / name, "-o", tmp_path / "t.json", ok=False)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    refused = ours("transcode", tmp_path / "two.h5", "--name", "a", "-o", tmp_path / "t.json", ok=False)
    assert refused.returncode == 1 and "--from bigwarp-field" in refused.stderr


# NIfTI of NiftyReg, SPM and others, through nibabel


@pytest.mark.parametrize("kind", ["deformation", "displacement", "spm"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_positions_and_displacements_in_ras_take_points_to_the_same_places(tmp_path, kind, suffix):
    vectors = np.random.default_rng(1).normal(0, 0.003, (8, 7, 6, 3))
    path = tmp_path / f"t{suffix}"
    name, p1 = {"deformation": ("NREG_TRANS", 0), "displacement": ("NREG_TRANS", 1), "spm": ("Mapping", 0)}[kind]
    place = nibabel_field(path, vectors, 1007, p1, name)
    if kind != "displacement":
        nibabel_field(path, place + vectors, 1007, p1, name)
    ours("transcode", path, "-o", tmp_path / "t.json")
    image = sitk.GetImageFromArray(vectors.transpose(2, 1, 0, 3) * (-1, -1, 1), isVector=True)
    image.SetSpacing((0.04, 0.05, 0.045))
    image.SetOrigin((-0.02, -0.03, -0.015))
    points = some_points()
    got = apply_ours(tmp_path, [tmp_path / "t.json"], points)
    # the file holds positions of some tenths of a millimetre in single precision
    assert abs(got - apply_itk(sitk.DisplacementFieldTransform(image), points)).max() < 5e-5


def cubic(t):
    return np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6


def test_control_points_take_points_where_niftyreg_takes_them(tmp_path):
    """As in `reg_spline_getDeformationField`: the weighted sum of the positions of four control
    points along each axis."""
    vectors = np.random.default_rng(6).normal(0, 0.003, (8, 7, 6, 3))
    place = nibabel_field(tmp_path / "cpp.nii.gz", vectors, 1007, 2, "NREG_TRANS")
    positions = place + vectors
    nibabel_field(tmp_path / "cpp.nii.gz", positions, 1007, 2, "NREG_TRANS")
    grid = ["--shape", "5,6,7", "--out-spacing", "20,20,20", "--out-origin", "40,30,30"]
    ours("transcode", tmp_path / "cpp.nii.gz", *grid, "-o", tmp_path / "t.json")
    nodes = np.stack(np.meshgrid(*(np.arange(n) * 20.0 for n in (5, 6, 7)), indexing="ij"), -1).reshape(-1, 3)
    nodes += (40, 30, 30)
    want = []
    for p in ras(nodes):
        index = (p - (0.02, 0.03, -0.015)) / (-0.04, -0.05, 0.045)
        first = np.floor(index).astype(int) - 1
        w = [cubic(i - f - 1) for i, f in zip(index, first)]
        around = positions[first[0]:first[0] + 4, first[1]:first[1] + 4, first[2]:first[2] + 4]
        want.append(np.einsum("i,j,k,ijkc->c", *w, around))
    got = apply_ours(tmp_path, [tmp_path / "t.json"], nodes)
    assert abs(got - of_ras(np.array(want))).max() < 5e-5


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, 2.0])
def test_slopes_are_those_of_nibabel(tmp_path, slope):
    vectors = np.random.default_rng(1).normal(0, 0.003, (8, 7, 6, 3))
    nibabel_field(tmp_path / "t.nii", vectors, 1006, slope=slope)
    read = np.asarray(nibabel.load(tmp_path / "t.nii").dataobj)[:, :, :, 0]
    ours("transcode", tmp_path / "t.nii", "-o", tmp_path / "t.json")
    image = sitk.GetImageFromArray(read.transpose(2, 1, 0, 3) * (-1, -1, 1), isVector=True)
    image.SetSpacing((0.04, 0.05, 0.045))
    image.SetOrigin((-0.02, -0.03, -0.015))
    points = some_points()
    got = apply_ours(tmp_path, [tmp_path / "t.json"], points)
    assert abs(got - apply_itk(sitk.DisplacementFieldTransform(image), points)).max() < 1e-5


def test_where_the_two_forms_differ_we_say_so_and_take_the_one_that_itk_takes(tmp_path):
    sitk.WriteImage(a_field(), str(tmp_path / "t.nii"))
    image = nibabel.load(tmp_path / "t.nii")
    affine = image.affine.copy()
    affine[:3, 3] += (0.01, 0.02, 0.03)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "two.nii")
    said = ours("transcode", tmp_path / "two.nii", "-o", tmp_path / "t.json").stderr
    assert "qform and an sform that differ" in said
    again = sitk.ReadImage(str(tmp_path / "two.nii"), sitk.sitkVectorFloat64)
    points = some_points((50), (50, 50, 50), (120, 140, 120))
    want = apply_itk(sitk.DisplacementFieldTransform(again), points)
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - want).max() < 1e-5


def test_our_fields_are_read_by_nibabel_with_their_units_and_intent(tmp_path):
    sitk.WriteImage(a_field(), str(tmp_path / "theirs.nrrd"))
    ours("transcode", tmp_path / "theirs.nrrd", "-o", tmp_path / "out.nii.gz")
    image = nibabel.load(tmp_path / "out.nii.gz")
    assert image.shape == (8, 7, 6, 1, 3) and image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_intent()[0] == "vector"
    assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-7)
    data = np.asarray(image.dataobj)[:, :, :, 0].transpose(2, 1, 0, 3)
    assert np.allclose(data, sitk.GetArrayFromImage(a_field()), atol=1e-7)


# NRRD


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii", "hex"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_encoding_of_nrrd_is_read(tmp_path, encoding, endian):
    import bz2
    field = sitk.GetArrayFromImage(a_field(dtype=np.float32))
    raw = field.astype("<f4" if endian == "little" else ">f4").tobytes()
    data = {"raw": lambda: raw, "gzip": lambda: gzip.compress(raw), "bzip2": lambda: bz2.compress(raw),
            "ascii": lambda: " ".join(repr(float(v)) for v in field.ravel()).encode(),
            "hex": lambda: raw.hex().encode()}[encoding]()
    head = ("NRRD0005\ntype: float\ndimension: 4\nspace: left-posterior-superior\nsizes: 3 8 7 6\n"
            "space directions: none (0.04,0,0) (0,0.05,0) (0,0,0.045)\nkinds: vector domain domain domain\n"
            f"endian: {endian}\nencoding: {encoding}\nspace origin: (-0.02,-0.03,-0.015)\n\n")
    (tmp_path / "t.nrrd").write_bytes(head.encode() + data)
    ours("transcode", tmp_path / "t.nrrd", "-o", tmp_path / "t.json")
    points = some_points()
    want = apply_itk(sitk.DisplacementFieldTransform(a_field(dtype=np.float64)), points)
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - want).max() < TOLERANCE


# Zarr as BigWarp writes it, and a file of ours in a parameter file of elastix


def test_a_field_of_bigwarp_in_zarr_is_read_as_in_n5(tmp_path):
    vectors = np.zeros((6, 7, 8, 3), np.float32) + (5, -3, 2)
    group = zarr.open_group(tmp_path / "warp.zarr", mode="w", zarr_format=2)
    array = group.create_array("dfield", data=vectors, chunks=(4, 4, 4, 3))
    array.attrs["spacing"] = [40.0, 50.0, 45.0]
    ours("transcode", tmp_path / "warp.zarr" / "dfield", "-o", tmp_path / "t.json")
    points = some_points()
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - points - (2, -3, 5)).max() < TOLERANCE


def test_a_file_of_ours_in_a_file_of_elastix(tmp_path):
    ours("transcode", our_chain(tmp_path), "-o", tmp_path / "t.tfm")
    (tmp_path / "TransformParameters.0.txt").write_text(
        '(FixedImageDimension 3)\n(Transform "File")\n(TransformFileName "t.tfm")\n'
        '(InitialTransformParameterFileName "NoInitialTransform")\n')
    ours("transcode", tmp_path / "TransformParameters.0.txt", "-o", tmp_path / "again.json")
    points = some_points()
    want = apply_ours(tmp_path, [tmp_path / "ours.json"], points)
    assert abs(apply_ours(tmp_path, [tmp_path / "again.json"], points) - want).max() < TOLERANCE
