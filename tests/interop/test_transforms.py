"""Transforms of other tools are interpreted as these tools define them, and ours by them as we do.

Run like `test_formats.py`. SimpleITK stands for ITK, whose files ANTs, greedy and elastix read and
write.
"""

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import zarr

BIN = Path(os.environ.get("VOXLOOM_BIN", Path(__file__).parents[2] / "target" / "release"))
TOLERANCE = 1e-6  # micrometres
CENTER, SHIFT = (0.1, 0.12, 0.09), (0.004, -0.006, 0.002)
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def ours(program, *args, ok=True):
    run = subprocess.run([BIN / program, *map(str, args)], capture_output=True, text=True)
    assert not ok or run.returncode == 0, run.stderr
    return run


def write_points(path, points):
    """`points` are z, y, x micrometres."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["z_um", "y_um", "x_um"])
        rows.writerows([[repr(float(v)) for v in p] for p in points])


def read_points(path):
    with open(path, newline="") as file:
        return np.array([[float(row[f"{a}_um"]) for a in "zyx"] for row in csv.DictReader(file)])


def apply_ours(tmp_path, transforms, points):
    write_points(tmp_path / "in.csv", points)
    flags = [f for t in transforms for f in ("--transform", t)]
    ours("apply-transform", "--points", tmp_path / "in.csv", *flags, "-o", tmp_path / "out.csv", "--overwrite")
    return read_points(tmp_path / "out.csv")


def apply_itk(transform, points, unit=1e3):
    """Maps points (z, y, x, micrometres) with ITK, whose points are x, y, z in units of `unit`
    micrometres."""
    moved = [transform.TransformPoint([float(v) / unit for v in p[::-1]]) for p in points]
    return np.array(moved)[:, ::-1] * unit


def some_points(count=50, low=(12, 25, 21), high=(150, 180, 170)):
    return np.random.default_rng(3).uniform(low, high, (count, 3))


def an_affine():
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.05, 0.1, 0.02, -0.03, 0.9, 0.2, 0.05, 0.01, 1.1))
    affine.SetCenter(CENTER)
    affine.SetTranslation(SHIFT)
    return affine


def transforms_of_itk():
    turn = (0.1, 0.2, 0.3, np.sqrt(1 - 0.14))
    euler = sitk.Euler3DTransform(CENTER, 0.1, -0.2, 0.3, SHIFT)
    zyx = sitk.Euler3DTransform(euler)
    zyx.SetComputeZYX(True)
    skew = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    return {
        "affine": an_affine(),
        "euler": euler,
        "euler_zyx": zyx,
        "translation": sitk.TranslationTransform(3, SHIFT),
        "scale": sitk.ScaleTransform(3, (1.1, 0.9, 1.2)),
        "versor": sitk.VersorRigid3DTransform(turn, SHIFT, CENTER),
        "similarity": sitk.Similarity3DTransform(1.2, turn, SHIFT, CENTER),
        "scale_versor": sitk.ScaleVersor3DTransform((1.1, 0.9, 1.2), turn, SHIFT, CENTER),
        "scale_skew": sitk.ScaleSkewVersor3DTransform((1.1, 0.9, 1.2), skew, turn, SHIFT, CENTER),
        "compose": sitk.ComposeScaleSkewVersor3DTransform((1.1, 0.9, 1.2), skew[:3], turn, SHIFT, CENTER),
        "composite": sitk.CompositeTransform([an_affine(), euler]),
    }


def a_field(direction=STRAIGHT, dtype=np.float64, seed=1):
    """Displacements of some micrometres on a coarse grid that covers the points."""
    vectors = np.random.default_rng(seed).normal(0, 0.003, (6, 7, 8, 3)).astype(np.float32).astype(dtype)
    image = sitk.GetImageFromArray(vectors, isVector=True)
    image.SetSpacing((0.04, 0.05, 0.045))
    image.SetOrigin((-0.02, -0.03, -0.015) if direction == STRAIGHT else (0.05, -0.08, -0.015))
    image.SetDirection(direction)
    return image


# theirs -> ours


# ITK writes no composites as MATLAB
@pytest.mark.parametrize("name,suffix", [
    (name, suffix) for name in transforms_of_itk() for suffix in (".tfm", ".txt", ".mat")
    if (name, suffix) != ("composite", ".mat")])
def test_matrices_of_itk_take_points_to_the_same_places(tmp_path, name, suffix):
    transform = transforms_of_itk()[name]
    sitk.WriteTransform(transform, str(tmp_path / f"t{suffix}"))
    said = ours("transcode", tmp_path / f"t{suffix}", "-o", tmp_path / "t.json").stderr
    assert "fixed-to-moving, x,y,z, LPS, millimetres" in said
    points = some_points()
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - apply_itk(transform, points)).max() < TOLERANCE


@pytest.mark.parametrize("unit,micrometres", [("nm", 1e-3), ("um", 1.0), ("mm", 1e3)])
def test_another_unit_is_taken_where_it_is_said(tmp_path, unit, micrometres):
    transform = an_affine()
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    ours("transcode", tmp_path / "t.tfm", "--unit", unit, "-o", tmp_path / "t.json")
    got = apply_ours(tmp_path, [tmp_path / "t.json"], some_points())
    assert abs(got - apply_itk(transform, some_points(), micrometres)).max() < TOLERANCE


def test_the_inverse_of_a_matrix_of_itk_takes_points_back(tmp_path):
    transform = transforms_of_itk()["composite"]
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    ours("transcode", tmp_path / "t.tfm", "--invert", "-o", tmp_path / "t.json")
    points = some_points()
    got = apply_ours(tmp_path, [tmp_path / "t.json"], points)
    assert abs(apply_itk(transform, got) - points).max() < TOLERANCE


@pytest.mark.parametrize("direction", [STRAIGHT, TURNED], ids=["straight", "turned"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix,compressed", [(".nrrd", True), (".nrrd", False), (".nii", False), (".nii.gz", True)])
def test_fields_of_itk_take_points_to_the_same_places(tmp_path, suffix, compressed, dtype, direction):
    path = tmp_path / f"field{suffix}"
    sitk.WriteImage(a_field(direction, dtype), str(path), compressed)
    # NIfTI rounds its header to single precision, so we compare with the field that ITK reads again
    again = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    ours("transcode", path, "-o", tmp_path / "t.json")
    points = some_points()
    got = apply_ours(tmp_path, [tmp_path / "t.json"], points)
    want = apply_itk(sitk.DisplacementFieldTransform(again), points)
    # a NIfTI header has rotated axes in single precision, which matters over hundreds of
    # micrometres
    tolerance = 1e-5 if suffix != ".nrrd" and direction == TURNED else TOLERANCE
    assert abs(got - want).max() < tolerance


def test_a_straight_field_of_itk_becomes_one_field_and_a_turned_one_is_told(tmp_path):
    sitk.WriteImage(a_field(), str(tmp_path / "straight.nrrd"))
    sitk.WriteImage(a_field(TURNED), str(tmp_path / "turned.nrrd"))
    ours("transcode", tmp_path / "straight.nrrd", "--to", "field", "-o", tmp_path / "f.zarr")
    points = some_points()
    want = apply_itk(sitk.DisplacementFieldTransform(a_field()), points)
    assert abs(apply_ours(tmp_path, [tmp_path / "f.zarr"], points) - want).max() < TOLERANCE
    refused = ours("transcode", tmp_path / "turned.nrrd", "--to", "field", "-o", tmp_path / "t.zarr", ok=False)
    assert refused.returncode == 1 and "--to json" in refused.stderr and not (tmp_path / "t.zarr").exists()


def test_a_spline_of_itk_is_exact_at_the_nodes_of_the_grid_it_is_sampled_on(tmp_path):
    fixed = sitk.Image([20, 22, 18], sitk.sitkUInt8)
    fixed.SetSpacing((0.01, 0.01, 0.01))
    spline = sitk.BSplineTransformInitializer(fixed, (3, 4, 2), 3)
    numbers = np.random.default_rng(4).normal(0, 0.004, len(spline.GetParameters()))
    spline.SetParameters([float(v) for v in numbers])
    transform = sitk.CompositeTransform([an_affine(), spline])
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    refused = ours("transcode", tmp_path / "t.tfm", "-o", tmp_path / "t.json", ok=False)
    assert refused.returncode == 1 and "--onto" in refused.stderr
    grid = ["--shape", "9,11,10", "--out-spacing", "20,20,20"]
    ours("transcode", tmp_path / "t.tfm", *grid, "-o", tmp_path / "t.json")
    nodes = np.stack(np.meshgrid(*(np.arange(n) * 20.0 for n in (9, 11, 10)), indexing="ij"), -1).reshape(-1, 3)
    got = apply_ours(tmp_path, [tmp_path / "t.json"], nodes)
    assert abs(got - apply_itk(transform, nodes)).max() < 2 * TOLERANCE


# ours -> theirs


def our_chain(tmp_path, name="ours.json"):
    """Writes a chain of one matrix, in micrometres; returns its path."""
    rows = [[1.02, 0.05, -0.01, 4.0], [0.02, 0.95, 0.1, -7.0], [-0.03, 0.04, 1.1, 11.0]]
    chain = {"type": "affine", "affine": rows, "direction": "fixed-to-moving", "axes": ["z", "y", "x"],
             "unit": "micrometer"}
    (tmp_path / name).write_text(json.dumps(chain))
    return tmp_path / name


@pytest.mark.parametrize("target,suffix", [("itk", ".tfm"), ("itk", ".txt"), ("ants", ".mat")])
@pytest.mark.parametrize("unit,micrometres", [(None, 1e3), ("um", 1.0)])
def test_our_matrices_take_points_to_the_same_places_in_itk(tmp_path, target, suffix, unit, micrometres):
    chain = our_chain(tmp_path)
    flags = ["--to-unit", unit] if unit else []
    ours("transcode", chain, "--to", target, "-o", tmp_path / f"t{suffix}", *flags)
    transform = sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
    points = some_points()
    want = apply_ours(tmp_path, [chain], points)
    assert abs(apply_itk(transform, points, micrometres) - want).max() < TOLERANCE


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz"])
def test_our_fields_take_points_to_the_same_places_in_itk(tmp_path, suffix):
    sitk.WriteImage(a_field(), str(tmp_path / "theirs.nrrd"))
    ours("transcode", tmp_path / "theirs.nrrd", "--to", "field", "-o", tmp_path / "f.zarr")
    target = "nrrd" if suffix == ".nrrd" else "nifti"
    ours("transcode", tmp_path / "f.zarr", "--to", target, "-o", tmp_path / f"out{suffix}")
    field = sitk.ReadImage(str(tmp_path / f"out{suffix}"), sitk.sitkVectorFloat64)
    assert field.GetSize() == (8, 7, 6) and np.allclose(field.GetDirection(), STRAIGHT)
    points = some_points()
    want = apply_ours(tmp_path, [tmp_path / "f.zarr"], points)
    # the header of NIfTI is in single precision, so the positions of its nodes are slightly off
    tolerance = TOLERANCE if suffix == ".nrrd" else 1e-5
    assert abs(apply_itk(sitk.DisplacementFieldTransform(field), points) - want).max() < tolerance


def test_our_chain_of_a_field_and_a_matrix_becomes_one_field_of_itk(tmp_path):
    sitk.WriteImage(a_field(), str(tmp_path / "theirs.nrrd"))
    ours("transcode", tmp_path / "theirs.nrrd", "--to", "field", "-o", tmp_path / "f.zarr")
    rows = [[1.02, 0.05, -0.01, 4.0], [0.02, 0.95, 0.1, -7.0], [-0.03, 0.04, 1.1, 11.0]]
    (tmp_path / "c.json").write_text(json.dumps({
        "type": "sequence", "direction": "fixed-to-moving", "axes": ["z", "y", "x"], "unit": "micrometer",
        "transformations": [{"type": "displacements", "path": "f.zarr"}, {"type": "affine", "affine": rows}]}))
    grid = ["--shape", "9,10,10", "--out-spacing", "20,20,20"]
    ours("transcode", tmp_path / "c.json", *grid, "--to", "nrrd", "-o", tmp_path / "out.nrrd")
    field = sitk.ReadImage(str(tmp_path / "out.nrrd"), sitk.sitkVectorFloat64)
    nodes = np.stack(np.meshgrid(*(np.arange(n) * 20.0 for n in (9, 10, 10)), indexing="ij"), -1).reshape(-1, 3)
    got = nodes + sitk.GetArrayFromImage(field).reshape(-1, 3)[:, ::-1] * 1e3
    want = apply_ours(tmp_path, [tmp_path / "c.json"], nodes)
    assert abs(got - want).max() < 5 * TOLERANCE  # vectors of up to 30 um in single precision
    assert not (tmp_path / "out.nrrd.voxloom").exists()


# OME-NGFF and BigStream: arrays


def test_our_ngff_says_in_zarr_python_what_our_chain_says(tmp_path):
    sitk.WriteImage(a_field(), str(tmp_path / "theirs.nrrd"))
    ours("transcode", tmp_path / "theirs.nrrd", "-o", tmp_path / "c.json")
    ours("transcode", tmp_path / "c.json", "--to", "ngff", "-o", tmp_path / "t.zarr")
    group = zarr.open_group(tmp_path / "t.zarr", mode="r")
    scene = group.attrs["ome"]["scene"]
    (sequence,) = scene["coordinateTransformations"]
    assert (sequence["input"]["name"], sequence["output"]["name"]) == ("fixed", "moving")
    assert {s["name"] for s in scene["coordinateSystems"]} == {"fixed", "moving"}
    (step,) = sequence["transformations"]
    assert step["type"] == "displacements"
    level = group[step["path"]].attrs["ome"]["multiscales"][0]
    assert [a["type"] for a in level["coordinateSystems"][0]["axes"]] == ["space"] * 3 + ["displacement"]
    scale, shift = level["datasets"][0]["coordinateTransformations"][0]["transformations"]
    array = group[step["path"]][level["datasets"][0]["path"]][...]
    index = np.argwhere(np.ones(array.shape[:3], bool))
    nodes = index * scale["scale"][:3] + shift["translation"][:3]
    got = nodes + array.reshape(-1, 3)
    assert abs(got - apply_ours(tmp_path, [tmp_path / "c.json"], nodes)).max() < TOLERANCE
    # and back again
    ours("transcode", tmp_path / "t.zarr", "-o", tmp_path / "again.json")
    points = some_points()
    want = apply_ours(tmp_path, [tmp_path / "c.json"], points)
    assert abs(apply_ours(tmp_path, [tmp_path / "again.json"], points) - want).max() < TOLERANCE


def ngff_group(path, transformations, axes="zyx", unit="micrometer"):
    group = zarr.open_group(path, mode="w")
    listed = [{"name": a, "type": "space", "unit": unit} for a in axes]
    systems = [{"name": name, "axes": listed} for name in ("here", "there")]
    group.attrs["ome"] = {"version": "0.6", "scene": {
        "coordinateSystems": systems, "coordinateTransformations": transformations}}
    return group


def test_every_matrix_of_ngff_is_read_in_its_order(tmp_path):
    ends = {"input": {"name": "here"}, "output": {"name": "there"}}
    ngff_group(tmp_path / "t.zarr", [{"type": "sequence", **ends, "transformations": [
        {"type": "scale", "scale": [2, 3, 4]},
        {"type": "translation", "translation": [1, 2, 3]},
        {"type": "rotation", "rotation": [[0, -1, 0], [1, 0, 0], [0, 0, 1]]},
        {"type": "mapAxis", "mapAxis": [2, 0, 1]},
        {"type": "affine", "affine": [[1, 0.5, 0, 1], [0, 1, 0, 0], [0, 0, 1, -1]]},
        {"type": "inverseOf", "transformation": {"type": "scale", "scale": [2, 2, 2]}},
    ]}], unit="nanometer")
    ours("transcode", tmp_path / "t.zarr", "-o", tmp_path / "t.json")
    points = some_points(5)
    p = points * 1e3 * [2, 3, 4] + [1, 2, 3]
    p = np.stack([-p[:, 1], p[:, 0], p[:, 2]], -1)
    p = p[:, [2, 0, 1]]
    p = (p @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]).T + [1, 0, -1]) / 2
    assert abs(apply_ours(tmp_path, [tmp_path / "t.json"], points) - p / 1e3).max() < TOLERANCE
    ours("transcode", tmp_path / "t.zarr", "--invert", "-o", tmp_path / "back.json")
    back = apply_ours(tmp_path, [tmp_path / "t.json", tmp_path / "back.json"], points)
    assert abs(back - points).max() < TOLERANCE


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_a_bijection_of_ngff_is_read_either_way(tmp_path, axes):
    ends = {"input": {"name": "here"}, "output": {"name": "there"}}
    field = {"type": "displacements", "path": "coordinateTransformations/d"}
    group = ngff_group(tmp_path / "t.zarr", [{"type": "bijection", **ends, "forward": field, "inverse": {
        "type": "translation", "translation": [1, 2, 3]}}], axes)
    vectors = np.random.default_rng(8).normal(0, 3, (6, 7, 8, 3)).astype(np.float32)
    array = group.create_array("coordinateTransformations/d", data=vectors)
    array.attrs["ome"] = {
        "coordinateSystems": [{"name": "d", "axes": [
            *({"name": a, "type": "space", "unit": "micrometer"} for a in axes), {"name": "d", "type": "displacement"}]}],
        "coordinateTransformations": [
            {"type": "scale", "scale": [40, 30, 25, 1], "input": "", "output": "d"},
            {"type": "translation", "translation": [-5, -6, -7, 0], "input": "", "output": "d"}]}
    ours("transcode", tmp_path / "t.zarr", "-o", tmp_path / "t.json")
    index = np.argwhere(np.ones((6, 7, 8), bool))
    nodes = index * [40, 30, 25] + [-5, -6, -7]
    order = [axes.index(a) for a in "zyx"]
    got = apply_ours(tmp_path, [tmp_path / "t.json"], nodes[:, order])
    assert abs(got - (nodes + vectors.reshape(-1, 3))[:, order]).max() < TOLERANCE
    ours("transcode", tmp_path / "t.zarr", "--invert", "-o", tmp_path / "b.json")
    back = apply_ours(tmp_path, [tmp_path / "b.json"], nodes[:, order])
    assert abs(back - (nodes + [1, 2, 3])[:, order]).max() < TOLERANCE


def test_fields_of_bigstream_are_read_when_it_is_said_what_they_are(tmp_path):
    vectors = np.random.default_rng(8).normal(0, 3, (6, 7, 8, 3)).astype(np.float32)
    zarr.create_array(tmp_path / "deform.zarr", data=vectors, chunks=(4, 4, 4, 3), zarr_format=2)
    np.save(tmp_path / "deform.npy", vectors)
    nodes = np.argwhere(np.ones((6, 7, 8), bool)) * [40.0, 30.0, 25.0]
    for name in ("deform.zarr", "deform.npy"):
        refused = ours("transcode", tmp_path / name, "-o", tmp_path / "t.json", ok=False)
        assert refused.returncode == 1 and "--from bigstream-displacements" in refused.stderr
        ours("transcode", tmp_path / name, "--from", "bigstream-displacements", "--spacing", "40,30,25",
             "-o", tmp_path / "t.json", "--overwrite")
        got = apply_ours(tmp_path, [tmp_path / "t.json"], nodes)
        assert abs(got - nodes - vectors.reshape(-1, 3)).max() < TOLERANCE
    # BigStream 2021 stores positions, and all axes and components are x, y, z
    positions = (nodes.reshape(6, 7, 8, 3) + vectors)[..., ::-1].transpose(2, 1, 0, 3)
    np.save(tmp_path / "positions.npy", np.ascontiguousarray(positions, np.float64))
    ours("transcode", tmp_path / "positions.npy", "--from", "bigstream-positions", "--spacing", "40,30,25",
         "-o", tmp_path / "p.json")
    got = apply_ours(tmp_path, [tmp_path / "p.json"], nodes)
    assert abs(got - nodes - vectors.reshape(-1, 3)).max() < TOLERANCE
