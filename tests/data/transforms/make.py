"""Writes the files of this folder: transforms made by the tools whose formats `transcode` reads,
and the points to which those tools map a set of points.

No test runs this script, since its files are small and are kept in the repository. To make them
again, in an environment with the packages of `requirements.txt` beside this script:

    python make.py
"""

import csv
import re
from pathlib import Path

import h5py
import itk
import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy3D

HERE = Path(__file__).parent
RANDOM = np.random.default_rng(11)
# the range of the points, x, y, z in millimetres: a sample of a few hundred micrometres
LOW, HIGH = np.array([0.02, 0.05, 0.01]), np.array([0.20, 0.25, 0.18])
POINTS = LOW + (HIGH - LOW) * RANDOM.random((40, 3))


def table(name, points):
    """Writes points, x, y, z in millimetres, as our table of points in micrometres."""
    with open(HERE / name, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["z_um", "y_um", "x_um"])
        rows.writerows([[repr(float(v) * 1e3) for v in p[::-1]] for p in points])


def keep(name, transform, points=POINTS, suffixes=(".tfm",)):
    for suffix in suffixes:
        sitk.WriteTransform(transform, str(HERE / f"{name}{suffix}"))
    table(f"{name}.csv", [transform.TransformPoint(list(map(float, p))) for p in points])


def versor(angle, axis):
    axis = np.array(axis) / np.linalg.norm(axis)
    return [*(float(v) for v in axis * np.sin(angle / 2)), float(np.cos(angle / 2))]


def matrices():
    center, shift = (0.1, 0.12, 0.09), (0.004, -0.006, 0.002)
    turn = versor(0.2, (1, 2, 3))
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.05, 0.1, 0.02, -0.03, 0.9, 0.2, 0.05, 0.01, 1.1))
    affine.SetCenter(center)
    affine.SetTranslation(shift)
    keep("itk_affine", affine, suffixes=(".tfm", ".txt", ".mat"))
    euler = sitk.Euler3DTransform(center, 0.1, 0.2, 0.3, shift)
    keep("itk_euler", euler, suffixes=(".tfm", ".mat"))
    zyx = sitk.Euler3DTransform(center, 0.1, 0.2, 0.3, shift)
    zyx.SetComputeZYX(True)
    keep("itk_euler_zyx", zyx)
    keep("itk_translation", sitk.TranslationTransform(3, shift))
    keep("itk_scale", sitk.ScaleTransform(3, (1.1, 0.9, 1.2)))
    keep("itk_versor", sitk.VersorRigid3DTransform(turn, shift, center))
    keep("itk_similarity", sitk.Similarity3DTransform(1.2, turn, shift, center))
    keep("itk_scale_versor", sitk.ScaleVersor3DTransform((1.1, 0.9, 1.2), turn, shift, center))
    skew = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    keep("itk_scale_skew_versor", sitk.ScaleSkewVersor3DTransform((1.1, 0.9, 1.2), skew, turn, shift, center))
    composed = sitk.ComposeScaleSkewVersor3DTransform((1.1, 0.9, 1.2), skew[:3], turn, shift, center)
    keep("itk_compose_scale_skew_versor", composed)
    keep("itk_composite", sitk.CompositeTransform([affine, euler, sitk.TranslationTransform(3, shift)]))
    plane = sitk.Similarity2DTransform(1.1, 0.3, shift[:2], center[:2])
    sitk.WriteTransform(plane, str(HERE / "itk_similarity_2d.tfm"))
    moved = [plane.TransformPoint(list(map(float, p[:2]))) for p in POINTS]
    table("itk_similarity_2d.csv", [(*q, p[2]) for p, q in zip(POINTS, moved)])
    return affine, euler


def splines(affine):
    mesh = (3, 4, 2)
    fixed = sitk.Image([24, 26, 18], sitk.sitkUInt8)
    fixed.SetSpacing((0.01, 0.01, 0.011))
    fixed.SetOrigin((0.0, 0.01, -0.005))
    spline = sitk.BSplineTransformInitializer(fixed, mesh, 3)
    spline.SetParameters([float(v) for v in RANDOM.normal(0, 0.003, len(spline.GetParameters()))])
    # a few digits are sufficient and keep the files small
    spline.SetParameters([round(v, 6) for v in spline.GetParameters()])
    keep("itk_bspline", spline)
    keep("itk_composite_bspline", sitk.CompositeTransform([affine, spline]))


def fields():
    """Displacements on a coarse grid: with straight, with rotated and with mirrored axes."""
    shape = (6, 7, 8)
    random = np.random.default_rng(5)
    vectors = np.round(random.normal(0, 0.004, (*shape, 3)), 5).astype(np.float32).astype(np.float64)
    cos, sin = np.cos(0.3), np.sin(0.3)
    turned = (cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0)
    for name, direction, origin in [
        ("field", (1, 0, 0, 0, 1, 0, 0, 0, 1), (0.0, 0.02, -0.01)),
        ("field_turned", turned, (0.06, -0.02, -0.01)),
        ("field_mirrored", (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0.24, 0.28, -0.01)),
    ]:
        image = sitk.GetImageFromArray(vectors, isVector=True)
        image.SetSpacing((0.033, 0.041, 0.043))
        image.SetOrigin(origin)
        image.SetDirection(direction)
        for suffix in (".nrrd", ".nii", ".nii.gz"):
            sitk.WriteImage(sitk.Cast(image, sitk.sitkVectorFloat32), str(HERE / f"{name}{suffix}"), suffix == ".nrrd")
        # NIfTI rounds its header to single precision, so the tool must map the points by the field
        # that it has read again
        for suffix in (".nrrd", ".nii"):
            again = sitk.ReadImage(str(HERE / f"{name}{suffix}"), sitk.sitkVectorFloat64)
            transform = sitk.DisplacementFieldTransform(again)
            points = [transform.TransformPoint(list(map(float, p))) for p in POINTS]
            table(f"{name}{suffix}.csv", points)


def blobs(centers, shape=(24, 28, 32)):
    z, y, x = np.mgrid[tuple(slice(n) for n in shape)]
    out = np.zeros(shape, np.float32)
    for c in centers:
        out += 100 * np.exp(-((x - c[0]) ** 2 / 40 + (y - c[1]) ** 2 / 30 + (z - c[2]) ** 2 / 20))
    return out.astype(np.float32)


def elastix():
    """Four steps of elastix on two small images with rotated axes, and the points to which
    transformix maps the test points."""
    cos, sin = np.cos(0.2), np.sin(0.2)
    direction = itk.matrix_from_array(np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]))

    def image(centers):
        out = itk.image_from_array(blobs(centers))
        out.SetSpacing((0.5, 0.6, 0.7))
        out.SetOrigin((1.0, 2.0, 3.0))
        out.SetDirection(direction)
        return out

    fixed = image([(16, 14, 12), (8, 8, 8), (24, 20, 16)])
    moving = image([(17, 13, 12.5), (9, 7, 9), (26, 19, 16)])
    parameters = itk.ParameterObject.New()
    for kind in ("rigid", "similarity", "affine", "bspline"):
        name = "rigid" if kind == "similarity" else kind
        settings = parameters.GetDefaultParameterMap(name, 1)
        if kind == "similarity":
            settings["Transform"] = ["SimilarityTransform"]
        settings["MaximumNumberOfIterations"] = ["20"]
        settings["NumberOfSpatialSamples"] = ["500"]
        settings["AutomaticTransformInitialization"] = ["false"]
        settings["WriteResultImage"] = ["false"]
        settings["RandomSeed"] = ["7"]
        if kind == "bspline":
            settings["FinalGridSpacingInPhysicalUnits"] = ["6"]
        parameters.AddParameterMap(settings)
    itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, output_directory=str(HERE), log_to_console=False
    )
    for path in sorted(HERE.glob("TransformParameters.*.R0.txt")):
        path.unlink()
    names = {f"TransformParameters.{i}.txt": f"elastix_{i}.txt" for i in range(4)}
    for old, new in names.items():
        text = (HERE / old).read_text()
        for other, renamed in names.items():
            text = re.sub(rf'"[^"]*{re.escape(other)}"', f'"{renamed}"', text)
        (HERE / old).unlink()
        (HERE / new).write_text(text)
    (HERE / "elastix.log").unlink(missing_ok=True)
    added = (HERE / "elastix_3.txt").read_text().replace('"Compose"', '"Add"')
    (HERE / "elastix_add.txt").write_text(added)
    index = np.random.default_rng(3).random((30, 3)) * [30, 26, 22] + 0.5
    turn = itk.array_from_matrix(direction)
    points = [np.array([1.0, 2.0, 3.0]) + turn @ (i * [0.5, 0.6, 0.7]) for i in index]
    table("elastix_points.csv", points)
    listed = "point\n%d\n" % len(points) + "\n".join(" ".join(repr(float(v)) for v in p) for p in points)
    (HERE / "points.txt").write_text(listed + "\n")
    for name in ("elastix_0", "elastix_1", "elastix_2", "elastix_3", "elastix_add"):
        table(f"{name}.csv", transformix(name, moving, len(points)))
    (HERE / "points.txt").unlink()


def transformix(name, moving, count):
    """The points mapped by the chain of a parameter file, with the six decimals (of millimetres)
    that transformix prints."""
    chain, file = [], f"{name}.txt"
    while file != "NoInitialTransform":
        chain.insert(0, HERE / file)
        file = re.search(r'InitialTransformParameterFileName "([^"]*)"', (HERE / file).read_text())[1]
    parameters = itk.ParameterObject.New()
    for path in chain:
        parameters.AddParameterFile(str(path))
    run = itk.TransformixFilter.New(moving)
    run.SetTransformParameterObject(parameters)
    run.SetFixedPointSetFileName(str(HERE / "points.txt"))
    run.SetOutputDirectory(str(HERE))
    run.LogToConsoleOff()
    run.UpdateLargestPossibleRegion()
    rows = (HERE / "outputpoints.txt").read_text().splitlines()
    out = [[float(v) for v in re.search(r"OutputPoint = \[([^\]]*)\]", row)[1].split()] for row in rows]
    for left in ("outputpoints.txt", "transformix.log"):
        (HERE / left).unlink(missing_ok=True)
    assert len(out) == count
    return out


def greedy():
    """A matrix (RAS) and a warp of greedy, and the points to which ITK maps test points by each and
    by both: first the warp, then the matrix."""
    def image(centers):
        out = sitk.GetImageFromArray(blobs(centers, (12, 14, 16)))
        out.SetSpacing((1.0, 1.2, 1.4))
        out.SetOrigin((1.0, 2.0, 3.0))
        return out

    fixed, moving = image([(8, 7, 6), (4, 4, 4)]), image([(9, 6.5, 6), (4.5, 3.5, 4.5)])
    tool = Greedy3D()
    matrix, warp = str(HERE / "greedy.mat"), str(HERE / "greedy_warp.nii.gz")
    tool.execute(f"-i fixed moving -n 20x10 -a -dof 12 -m SSD -o {matrix}", fixed=fixed, moving=moving)
    tool.execute(f"-i fixed moving -it {matrix} -n 20x10 -m SSD -o {warp}", fixed=fixed, moving=moving)
    tool.execute(f"-rf fixed -rm moving resliced -r {warp} {matrix}", fixed=fixed, moving=moving, resliced=None)
    mirror = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = mirror @ np.loadtxt(matrix) @ mirror
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel())
    affine.SetTranslation(lps[:3, 3])
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(warp, sitk.sitkVectorFloat64))
    both = sitk.CompositeTransform([affine, field])
    # check that greedy means the same: it resliced the moving image in the same way
    ours = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, both, sitk.sitkLinear))
    theirs = sitk.GetArrayFromImage(tool["resliced"])
    inner = (slice(2, -2),) * 3
    assert abs(ours - theirs)[inner].max() < 0.05, abs(ours - theirs)[inner].max()
    index = np.random.default_rng(4).random((30, 3)) * [13, 11, 9] + 1
    points = [fixed.TransformContinuousIndexToPhysicalPoint([float(v) for v in i]) for i in index]
    table("greedy_points.csv", points)
    table("greedy.csv", [affine.TransformPoint(p) for p in points])
    table("greedy_warp.csv", [field.TransformPoint(p) for p in points])
    table("greedy_both.csv", [both.TransformPoint(p) for p in points])


def landmarks():
    """Landmarks as BigWarp writes them, micrometres, and points mapped by ITK's thin-plate spline
    through them, on which BigWarp's is modelled."""
    random = np.random.default_rng(9)
    for axes in (2, 3):
        fixed = random.random((14, axes)) * 200
        moving = fixed * 1.05 + 10 + random.normal(0, 4, (14, axes))
        points = random.random((25, axes)) * 200
        with open(HERE / f"bigwarp_{axes}d.landmarks.csv", "w") as file:
            for i, (m, f) in enumerate(zip(moving, fixed)):
                cells = [f"Pt-{i}", "true", *(repr(float(v)) for v in m), *(repr(float(v)) for v in f)]
                file.write(",".join(f'"{cell}"' for cell in cells) + "\n")
        spline = itk.ThinPlateR2LogRSplineKernelTransform[itk.D, axes].New()
        sets = []
        for values in (fixed, moving):
            set_of = type(spline.GetSourceLandmarks()).New()
            for i, p in enumerate(values):
                set_of.SetPoint(i, [float(v) for v in p])
            sets.append(set_of)
        spline.SetSourceLandmarks(sets[0])
        spline.SetTargetLandmarks(sets[1])
        spline.ComputeWMatrix()
        moved = [list(spline.TransformPoint([float(v) for v in p])) for p in points]
        flat = (lambda p: list(p) + [0.0] * (3 - len(p)))
        table(f"bigwarp_{axes}d_points.csv", [np.array(flat(p)) / 1e3 for p in points])
        table(f"bigwarp_{axes}d.csv", [np.array(flat(p)) / 1e3 for p in moved])


def hdf5(affine):
    """A composite of ITK, and a quantised field as n5-imglib2 writes it."""
    random = np.random.default_rng(12)
    small = sitk.GetImageFromArray(random.normal(0, 0.003, (3, 4, 5, 3)), isVector=True)
    small.SetSpacing((0.06, 0.08, 0.07))
    both = sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(small)])
    keep("composite", both, suffixes=(".h5",))
    with h5py.File(HERE / "composite.h5", "a") as file:
        file["OSName"][0] = file["OSVersion"][0] = ""  # the system of whoever runs this script
    with h5py.File(HERE / "warp.h5", "w") as file:
        stored = random.integers(-3000, 3000, (4, 5, 6, 3)).astype(np.int16)
        field = file.create_dataset("dfield", data=stored, chunks=(2, 3, 4, 3), compression="gzip", shuffle=True)
        field.attrs["spacing"], field.attrs["offset"] = [40.0, 50.0, 45.0], [-20.0, -30.0, -15.0]
        field.attrs["quantization_multiplier"] = 0.001
        affine = np.array([[1.05, 0.1, 0.02, 4], [-0.03, 0.9, 0.2, -6], [0.05, 0.01, 1.1, 2]])
        field.attrs["affine"] = affine.ravel()
    # the nodes (0, 0, 0) and (1, 1, 1), moved by the displacement and then by the matrix
    nodes = [np.array([-20.0, -30.0, -15.0]) + i * np.array([40.0, 50.0, 45.0]) for i in (0, 1)]
    moved = [p + stored[i, i, i] * 0.001 for i, p in enumerate(nodes)]
    table("warp.csv", [(affine[:, :3] @ p + affine[:, 3]) / 1e3 for p in moved])


if __name__ == "__main__":
    table("points.csv", POINTS)
    affine, _ = matrices()
    splines(affine)
    fields()
    elastix()
    greedy()
    landmarks()
    hdf5(affine)
