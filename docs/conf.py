"""Sphinx configuration: Markdown sources, one theme, nothing else."""

project = "Modelmesh"
author = "The Modelmesh authors"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "Modelmesh"
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository outside docs/
