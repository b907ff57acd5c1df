"""The version of Leeward, in one place: pyproject.toml says the same, and a test compares them.

This module must never import anything: `leeward version` has to be quick.
"""

VERSION = "0.1.0"
