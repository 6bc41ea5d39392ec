"""Build of the C core; everything else about the package stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["csrc/build_native.py:ffibuilder"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
