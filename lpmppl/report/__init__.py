"""Results read, counted, drawn and written as one self-contained page: `lpmppl.report(tree, folder)`."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xarray import DataTree


class _Verb(types.ModuleType):
    """A package that is also the verb of its name."""

    def __call__(self, tree: DataTree, path: str | Path) -> Path:
        """Write the page of a result to a file, or as report.html into a folder; gives the file's path."""
        from lpmppl.report import page

        return page.write(tree, Path(path))


sys.modules[__name__].__class__ = _Verb
