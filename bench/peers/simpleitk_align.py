"""SimpleITK as BigStream 5.1 calls it, on one block: an affine or a cubic B-spline; prints nothing.

    simpleitk_align.py affine|bspline FIXED.npy MOVING.npy SPACING_ZYX OUT.npy

OUT.npy is the moving image on the fixed grid, z,y,x. The settings are those of the reference case
(`simpleitk_align/params.txt`): every second voxel, Mattes mutual information, 25 steps, one thread.
"""

import sys

import numpy as np
import SimpleITK as sitk

model, fixed, moving, spacing, out = sys.argv[1:]
spacing = [float(v) for v in spacing.split(",")]
CONTROL_POINTS = 20.0
ALIGNMENT = 1.84
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def image(path, thinned):
    voxels = np.load(path).astype(np.float32)
    step = [max(1, round(ALIGNMENT / s)) if thinned else 1 for s in spacing]
    found = sitk.GetImageFromArray(np.ascontiguousarray(voxels[tuple(slice(None, None, s) for s in step)]))
    found.SetSpacing([s * n for s, n in zip(spacing, step)][::-1])
    return found


fix, mov = image(fixed, True), image(moving, True)
method = sitk.ImageRegistrationMethod()
method.SetMetricAsMattesMutualInformation()
method.SetMetricSamplingStrategy(method.NONE)
method.SetInterpolator(sitk.sitkLinear)
method.SetShrinkFactorsPerLevel([1])
method.SetSmoothingSigmasPerLevel([0.25])
method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
rate = 0.25 if model == "affine" else 2.5
method.SetOptimizerAsRegularStepGradientDescent(learningRate=rate, minStep=0.0, numberOfIterations=25)
method.SetOptimizerScalesFromPhysicalShift()
if model == "affine":
    method.SetInitialTransform(sitk.AffineTransform(3), inPlace=True)
else:
    extent = [n * s for n, s in zip(fix.GetSize(), fix.GetSpacing())]
    mesh = [max(1, int(e / CONTROL_POINTS)) for e in extent]
    first = sitk.BSplineTransformInitializer(fix, mesh, order=3)
    method.SetInitialTransformAsBSpline(first, inPlace=True, scaleFactors=[1])
found = method.Execute(fix, mov)
whole = sitk.Resample(image(moving, False), image(fixed, False), found, sitk.sitkLinear, 0.0)
np.save(out, sitk.GetArrayFromImage(whole))
