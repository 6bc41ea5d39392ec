"""Builds: Dockerfiles as users write them, over the engine's layers.

lines, parser, instructions   text -> what it says, every mistake with file and line
plan                          stages: which there are, which are needed
context, tree, ignore         where files come from, read without following links
cache, fingerprint, stamp     what need not be done again
stage, running                one instruction after the other: a command in a snapshot,
copying, placing              files into a layer
output                        images, archives, trees
check                         what docker's linter warns of
building                      ``build``: all of it in order
"""

from layerfs.build.building import build
from layerfs.build.options import BuildOptions, BuildParts, BuildResult, Output, Secret
from layerfs.build.progress import NO_BUILD_PROGRESS, BuildProgress

__all__ = [
    "NO_BUILD_PROGRESS",
    "BuildOptions",
    "BuildParts",
    "BuildProgress",
    "BuildResult",
    "Output",
    "Secret",
    "build",
]
