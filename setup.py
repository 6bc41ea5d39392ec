"""Build of the C core: the extension module and the launcher; everything else stands in pyproject.toml."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools._distutils.errors import LinkError
from setuptools.command.build_ext import build_ext

SHARED = ("mount.c", "mount_old.c", "report.c", "util.c")
FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden"]


class BuildCore(build_ext):
    """The extension module as ever, then ``layerfs/_supervisor``, a program of its own beside it."""

    def run(self) -> None:
        """Build both."""
        super().run()
        target = self._program()
        sources = [*sorted(Path("csrc/supervisor").glob("*.c")), *(Path("csrc", name) for name in SHARED)]
        headers = [*Path("csrc").glob("*.h"), *Path("csrc/supervisor").glob("*.h")]
        needed = [*sources, *headers, Path(__file__)]
        if target.exists() and all(path.stat().st_mtime < target.stat().st_mtime for path in needed):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._with_musl(sources, target):
            return
        objects = self.compiler.compile(
            [str(path) for path in sources], output_dir=f"{self.build_temp}/supervisor", extra_postargs=FLAGS
        )
        try:
            # Static, so that it starts fast and needs nothing of the place it runs in.
            self.compiler.link_executable(objects, str(target), extra_postargs=["-static", "-s"])
        except LinkError:
            self.compiler.link_executable(objects, str(target), extra_postargs=["-s"])

    def _with_musl(self, sources: list[Path], target: Path) -> bool:
        """Make the program with musl, where that is installed and no other compiler is asked for; whether it is made.

        A program of glibc first asks the processor for its caches. A virtual machine answers that by its host,
        which takes 0.6 ms, a quarter of what the launcher takes for a container.
        """
        compiler = shutil.which("musl-gcc")
        if compiler is None or "CC" in os.environ:
            return False
        # The kernel's headers, which are no part of musl.
        places = ["/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
        found = [word for place in places for word in ("-idirafter", place)]
        command = [compiler, *FLAGS, *found, "-static", "-s", "-o", str(target), *map(str, sources)]
        self.announce(" ".join(command), level=2)
        return subprocess.run(command, check=False).returncode == 0

    def _program(self) -> Path:
        root = Path("src") if self.inplace else Path(self.build_lib)
        return root / "layerfs" / "_supervisor"

    def get_outputs(self) -> list[str]:
        """What a wheel is made of."""
        return [*super().get_outputs(), str(self._program())]


setup(
    cffi_modules=["csrc/build_native.py:ffibuilder"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
