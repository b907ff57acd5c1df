"""The files around the code agree with each other: lock, constraints, Makefile, CI, links between pages."""

from __future__ import annotations

import re

from rig.source import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(text: str) -> set[str]:
    return {line.split(";")[0].rstrip(" \\") for line in text.splitlines() if re.match(r"[a-z0-9]", line)}


def test_every_locked_package_has_a_hash() -> None:
    entries = re.split(r"\n(?=[a-z0-9])", read("requirements.lock"))
    assert len(entries) > 20
    assert not [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry]


def test_the_constraints_are_the_lock_without_hashes() -> None:
    assert pins(read("constraints.txt")) == pins(read("requirements.lock"))


def test_the_lock_names_no_host() -> None:
    assert "://" not in read("requirements.lock") + read("constraints.txt")


def test_ci_runs_what_a_person_runs() -> None:
    assert "make test" in read(".ci/run")


def test_every_target_of_the_makefile_is_explained() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):(.*)$", read("Makefile"), re.MULTILINE)
    assert {"demo", "test", "lint", "types", "crash", "bench", "docs", "help"} <= {name for name, _ in targets}
    assert not [name for name, rest in targets if "##" not in rest]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert not broken
