"""leeward verify: both sides compared at their newest common point, while everything goes on."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, words
from engine.cli.call import Call, common, group_argument, no_wait
from engine.cli.waiting import carry_out
from engine.requests import Verify, VerifyDoc

BLOCK = 4096
EXIT_DIFFERENT = 1
SHOWN = 10


@click.command()
@group_argument
@click.option("--repair", is_flag=True, help="Send again what differs, by a sync: this side is taken as right.")
@click.option("--strong", is_flag=True, help="Compare by a keyed cryptographic hash (BLAKE2b); slower.")
@no_wait
@common
def verify(call: Call, group: str, repair: bool, strong: bool, no_wait: bool) -> int:
    """Compare every byte of both sides at the newest common point, at the protected site.

    Hosts and syncs go on. Blocks that hosts have written since the point are left out. Exits 1 if blocks differ and
    were not repaired. A repair mends the newest point; older ones show what they did.
    """
    left = 0

    def tell(doc: VerifyDoc) -> None:
        compared = words.size((doc.blocks - doc.skipped) * BLOCK)
        lead = f"Group {doc.group}: {compared} compared at point {words.point(doc.point)}"
        if not doc.mismatched:
            output.line(f"{lead}: both sides are the same, in {words.duration(doc.seconds)}.")
            return
        output.line(f"{lead}: {doc.mismatched} blocks differ, {doc.repaired} are repaired.")
        for found in doc.differences[:SHOWN]:
            output.line(f"  {found.volume}: {found.length} bytes from {found.offset}")

    def count(doc: VerifyDoc) -> VerifyDoc:
        nonlocal left
        left = doc.mismatched - doc.repaired
        return doc

    carry_out(call, Verify(group, repair, strong), tell, no_wait=no_wait, complete=count)
    return EXIT_DIFFERENT if left else 0
