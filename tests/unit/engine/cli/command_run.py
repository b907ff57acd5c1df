"""What a run of `leeward` left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output; anything before or after it fails the test."""
        assert self.out.count("\n") == 1
        assert self.err == ""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        (error,) = self.json.values()
        assert set(error) == {"code", "message", "remedy", "details"}
        return error
