"""Edits of an image configuration: new history and layers, and the instructions of ``--change``.

Everything here works on the configuration document as a plain ``dict``, so that members which this program
does not know (of newer specifications, or of other engines) survive an edit.  Inputs are never changed in
place: a new document comes back.
"""

from layerfs.imageconfig.documents import new_config, timestamp
from layerfs.imageconfig.instructions import apply_changes, check_instruction, edit_section, environment

__all__ = ["apply_changes", "check_instruction", "edit_section", "environment", "new_config", "timestamp"]
