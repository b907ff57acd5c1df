"""What is installed from the wheel: the three packages, what they need beside code, the command, the licence."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from rig.source import PRODUCT, ROOT, product


def test_the_wheel_holds_all_of_the_product_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("leeward-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {module.path for module in product()} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "engine").rglob("*.sql")} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PRODUCT)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "leeward = engine.cli.main:main" in scripts
