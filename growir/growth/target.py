"""What TARGET of `growir grow` means: a run file, data (a table or an .npz file), or the bundled digits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growir.data.table import is_table
from growir.errors import RunError
from growir.growth.config import DIGITS, RunConfig, over, parse_run
from growir.growth.settings import Typed, read_settings
from growir.nearest import neighbours


@dataclass(frozen=True, slots=True)
class Target:
    """What a target says of a run.

    Attributes:
        source: The target as it was typed.
        given: The settings that it makes, as in a decoded run file; a relative path counts from here.
        usual: Those that hold where neither it nor the command line makes one.
    """

    source: str
    given: Mapping[str, Any]
    usual: Mapping[str, Any]

    def config(self, typed: Mapping[str, Any], started: RunConfig | None = None) -> RunConfig:
        """The configuration with what was typed beside the target, which goes before what the target says.

        Args:
            typed: As in a decoded run file.
            started: That of the run to go on with, whose settings hold where none is given.

        Raises:
            RunError: No data is named, or settings contradict each other.
        """
        usual = dict(self.usual) if started is None else started.model_dump(mode="json", exclude_none=True)
        said = over(self.given, typed)
        if started is None and "network" in said:
            usual.pop("policy", None)  # which is the usual one of growth from nothing
        config = parse_run(over(usual, said), self.source)
        if not config.data.path:
            raise RunError(f"{self.source}: [data] path is missing; give a .csv or .npz file, or digits")
        return config


def read_target(target: str) -> Target:
    """What a target says.

    Raises:
        RunError: With every wrong or unknown key of the run file.
    """
    if target == "digits":
        usual = DIGITS.model_dump(mode="json", exclude_none=True, exclude={"schedule"})
        return Target(target, {"data": {"path": target}}, usual)
    path = Path(target)
    usual = {"name": _run_name(path)}
    if path.suffix.lower() == ".npz" or is_table(path):
        return Target(target, {"data": {"path": target}}, usual)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        wanted = f"give a run file, a .csv or .npz file, or digits{neighbours(path)}"
        raise RunError(f"{target}: cannot be read: {error.strerror or error}; {wanted}") from None
    except (ValueError, RecursionError) as error:  # decoding, TOML, numbers of 5000 digits, endless nesting
        if path.suffix.lower() != ".toml":
            raise RunError(
                f"{target}: this is no run file; tables end in .csv or .tsv, arrays in .npz, and a run file in .toml: "
                f"{error}"
            ) from None
        raise RunError(f"{target}: this is not a valid TOML run file: {error}") from None
    # As in most tools, a relative path counts from the file that says it.
    placed = parse_run({**usual, **data}, target).located(lambda named: str(path.parent / named))
    data["data"] = {key: getattr(placed.data, key) for key in data.get("data", {})}
    if "network" in data:
        data["network"] = placed.network
    return Target(target, data, usual)


def read_run(target: str, typed: Sequence[Typed] = ()) -> RunConfig:
    """The configuration of a new run by its target and the settings typed beside it. Raises RunError."""
    return read_target(target).config(read_settings(typed))


def _run_name(path: Path) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in path.stem).strip("-")[:60] or "run"
