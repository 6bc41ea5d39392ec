"""Go's text/template, as users of docker and podman write it behind ``--format``.

There are fields and nested fields, variables, pipelines, ``if``, ``range``, ``with``, ``break`` and
``continue``, comments, trim markers, the comparison and string functions of Go, and those that docker adds.
Left out are ``define``, ``template`` and ``block``: a format has one template.  The data is what JSON holds; a
member that is callable stands for a method.  A run is bounded in steps, in nesting and in the length of its output, so
that a template cannot hang or fill the memory of a service that takes one from a user.
"""

from __future__ import annotations

from layerfs.cli.gotemplate._execute import Template
from layerfs.cli.gotemplate._values import NIL_LIST, NIL_MAP, Fields

__all__ = ["NIL_LIST", "NIL_MAP", "Fields", "Template"]
