"""`leeward init`: make the data directory of a new site. The records come last: without them there is no site.

This module must never touch a directory that holds a site.
"""

from __future__ import annotations

import secrets
from datetime import UTC
from pathlib import Path

from blockstore.disk import Disk
from engine import model, settings
from engine.clock import SystemClock
from engine.errors import BadValue, SiteExists
from engine.link import identity
from engine.records.database import Database
from engine.records.lock import DataLock
from engine.requests import InitDoc


def create_site(data: Path, name: str, listen: str, nbd: str, api: str) -> InitDoc:
    """Make the site and return what others must know of it. Raises SiteExists, BadValue, SettingsInvalid, OSError."""
    disk = Disk()
    folder = str(data.absolute())
    for what, text in (("--listen", listen), ("--nbd", nbd), ("--api", api)):
        try:
            settings.parse_address(text)
        except ValueError as error:
            raise BadValue(what=f"address for {what}", value=text, reason=str(error)) from None
    if disk.exists(f"{folder}/meta.db"):
        raise SiteExists(path=folder)
    foreign = [entry for entry in disk.list(folder) if entry not in ("lock", "leeward.toml", "identity", "ballast")]
    if foreign:
        raise BadValue(what="data directory", value=folder, reason=f"it is not empty ({foreign[0]} is in it)")
    disk.make_dir(folder)
    with DataLock.take(folder, disk):
        if disk.exists(f"{folder}/leeward.toml"):
            disk.unlink(f"{folder}/leeward.toml")  # of an init that did not get as far as the records
        made = settings.write_default(folder, name, listen=listen, nbd=nbd, api=api)
        for leftover in disk.list(f"{folder}/identity"):
            disk.unlink(f"{folder}/identity/{leftover}")  # likewise: nobody was ever told of it
        mine = identity.create(Path(folder) / "identity", name)
        site = model.Site(model.SiteId(secrets.token_bytes(16)), name)
        Database.create(folder, site, SystemClock().now().astimezone(UTC)).close()
    return InitDoc(
        name=name,
        site_id=site.id.hex(),
        fingerprint=mine.fingerprint,
        data=folder,
        listen=str(made.listen),
        nbd=str(made.nbd),
        api=str(made.api),
    )
