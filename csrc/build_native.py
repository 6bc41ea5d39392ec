"""Makes the extension module ``layerfs._native`` from the C core (cffi, API mode, stable ABI).

The declarations are cut from ``layerfs.h`` itself, so that a declaration that drifts from its definition is an
error of the C compiler.
"""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent


def declarations(header: str) -> str:
    """The lines of ``layerfs.h`` between the two markers, without comments."""
    body = header.split("/* cdef-begin */", 1)[1].split("/* cdef-end */", 1)[0]
    return re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)


ffibuilder = FFI()
ffibuilder.cdef(declarations((HERE / "layerfs.h").read_text()))
ffibuilder.set_source(
    "layerfs._native",
    '#include "layerfs.h"',
    sources=sorted(f"csrc/{path.name}" for path in HERE.glob("*.c")),
    include_dirs=["csrc"],
    depends=sorted(f"csrc/{path.name}" for path in HERE.glob("*.h")),
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden"],
    py_limited_api=True,
)
