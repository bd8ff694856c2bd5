"""Seeds that need h5py: small HDF5 files as BigWarp and ITK write them.

    python fuzz/seeds.py        (with h5py and numpy)
"""
from pathlib import Path

import h5py
import numpy as np

FOLDER = Path(__file__).parent / "seeds" / "hdf5"


def bigwarp(path):
    """Quantised displacements with an affine beside them, as `jitk-tps` writes them."""
    with h5py.File(path, "w", libver="latest") as file:
        vectors = np.arange(3 * 2 * 3 * 4, dtype="i2").reshape(2, 3, 4, 3)
        array = file.create_dataset("dfield", data=vectors, chunks=(2, 3, 4, 3), compression="gzip")
        array.attrs["spacing"] = [1.0, 2.0, 3.0]
        array.attrs["offset"] = [0.0, 5.0, -1.0]
        array.attrs["multiplier"] = 0.01
        array.attrs["affine"] = [1.0, 0, 0, 4, 0, 1, 0, 5, 0, 0, 1, 6]


def itk(path):
    """A composite of an affine and a displacement field, in the layout of `HDF5TransformIO`."""
    text = h5py.string_dtype("ascii")
    with h5py.File(path, "w") as file:
        file.create_dataset("ITKVersion", data="5.4.0", dtype=text)
        for number, (kind, parameters, fixed) in enumerate([
            ("CompositeTransform_double_3_3", None, None),
            ("AffineTransform_double_3_3", [1.0, 0, 0, 0, 1, 0, 0, 0, 1, 4, 5, 6], [0.0, 0, 0]),
            ("DisplacementFieldTransform_double_3_3", np.linspace(-1, 1, 3 * 2 * 3 * 4),
             [4.0, 3, 2, 0, 0, 0, 1, 1, 2, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
        ]):
            group = file.create_group(f"TransformGroup/{number}")
            group.create_dataset("TransformType", data=[kind], dtype=text)
            if parameters is not None:
                group.create_dataset("TransformParameters", data=np.array(parameters))
                group.create_dataset("TransformFixedParameters", data=np.array(fixed))


FOLDER.mkdir(parents=True, exist_ok=True)
bigwarp(FOLDER / "bigwarp.h5")
itk(FOLDER / "itk.h5")
