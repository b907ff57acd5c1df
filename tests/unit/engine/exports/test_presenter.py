"""The table of kinds of export, over a real NBD server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import NameTaken, UnknownName
from engine.exports.presenter import NBD, Presenter
from rig.fileio import FileIO
from rig.nbd import NbdClient, NbdRefused
from rig.served import ServedFiles


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFiles]:
    with ServedFiles(tmp_path) as served:
        yield served


@pytest.fixture
def io(tmp_path: Path) -> Iterator[FileIO]:
    path = tmp_path / "image"
    path.write_bytes(b"abc")
    io = FileIO(str(path))
    yield io
    io.close()


def test_what_is_presented_is_reached_by_its_uri_until_it_is_withdrawn(served: ServedFiles, io: FileIO) -> None:
    presenter = Presenter({NBD: served.server})
    uri = served.on_loop(lambda: presenter.present("vol", io, read_only=True, description="words"))
    assert uri == presenter.uri("vol")
    assert presenter.exports() == [(NBD, "vol")]
    with NbdClient(uri) as client:
        assert client.pread(3, 0) == b"abc"
        assert served.on_loop(lambda: presenter.is_busy("vol"))
    served.call(presenter.withdraw("vol"))
    served.call(presenter.withdraw("vol"))
    assert presenter.exports() == []
    with pytest.raises(NbdRefused):
        NbdClient(uri)


def test_names_and_kinds_that_are_not_here_are_refused(served: ServedFiles, io: FileIO) -> None:
    presenter = Presenter({NBD: served.server})
    with pytest.raises(UnknownName):
        presenter.present("vol", io, read_only=True, kind="fax")
    served.on_loop(lambda: presenter.present("vol", io, read_only=True))
    with pytest.raises(NameTaken):
        presenter.present("vol", io, read_only=True)
    assert presenter.kinds() == [NBD]
