"""How the guide is built; tables of products, codes and parameters come from the code itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tables import write_tables

import skyloom

project = "skyloom"
author = "the skyloom developers"
copyright = "2026, the skyloom developers"
version = release = skyloom.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build", "_generated/*"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
html_theme = "pydata_sphinx_theme"
html_title = f"skyloom {version}"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
html_static_path: list[str] = []

write_tables(Path(__file__).parent / "_generated")
