"""Every component of every plugin, found by name, checked, identified and built."""

from robustbench_lab.catalog.catalog import Catalog
from robustbench_lab.catalog.entry import Entry

__all__ = ["Catalog", "Entry"]
