"""How Sphinx builds these pages: `make docs`, warnings as errors."""

from __future__ import annotations

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Leeward"
author = "the Leeward authors"
copyright = author  # Sphinx's name for it
release = version = _project["version"]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # trees and tables in code blocks are no language

html_theme = "furo"
html_title = f"Leeward {release}"
html_copy_source = False
html_show_copyright = False
