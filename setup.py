"""Extensions only; everything else about the package is in pyproject.toml.

Every ext/NAME.pyx becomes gridmad.NAME.  setuptools runs Cython by itself when it
is present, so cythonize() is not called: with it the .pyx files would be missing
from the sdist, and no wheel could be built from that.
"""

from pathlib import Path

from setuptools import Extension, setup

HEADERS = sorted(str(path) for path in Path("ext").glob("*.pxd"))

setup(
    ext_modules=[
        Extension(
            f"gridmad.{path.stem}",
            [str(path)],
            depends=HEADERS,
            extra_compile_args=["-O2", "-g0"],
        )
        for path in sorted(Path("ext").glob("*.pyx"))
    ]
)
