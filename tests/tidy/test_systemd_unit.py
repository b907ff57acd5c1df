"""The systemd unit: systemd accepts every word of it, and it keeps what a restart needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rig.source import ROOT

UNIT = ROOT / "deploy" / "systemd" / "leeward.service"


def installed(folder: Path) -> Path:
    """The unit with a program that exists here, under its own name."""
    text = UNIT.read_text(encoding="utf-8")
    program = str(Path(sys.executable).parent / "leeward")
    copy = folder / UNIT.name
    copy.write_text(text.replace("/opt/leeward/bin/leeward", program), encoding="utf-8")
    assert copy.read_text(encoding="utf-8") != text
    return copy


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    # An unknown key is only a line of output, with exit status 0.
    verify = ["systemd-analyze", "verify", "--man=no", str(installed(tmp_path))]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(installed(tmp_path))]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_live_maps_outlive_a_restart_and_readiness_is_told() -> None:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    assert {"Type=notify", "RuntimeDirectory=leeward", "RuntimeDirectoryPreserve=yes"} <= set(lines)
