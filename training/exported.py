"""What an export leaves in a folder: files, each with its hash and its distance from the original, and one card."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.atomic import explained, write_atomically, write_json

PASSING = ("files", "about", "versions")
"""Entries of a card in which two exports of one thing may differ."""


@dataclass(frozen=True)
class Written:
    """One file of an export.

    Attributes:
        content: Its bytes.
        parity: Largest difference of its outputs from those of what was exported, by batch size; empty for weights.
    """

    content: bytes
    parity: Mapping[str, float] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """What the card says of it."""
        entry = {"sha256": sha256(self.content), "bytes": len(self.content)}
        return entry | ({"parity": dict(self.parity)} if self.parity else {})


def sha256(content: bytes) -> str:
    """The hash by which a card knows a file."""
    return hashlib.sha256(content).hexdigest()


def standing(folder: Path, card_name: str, weights: Mapping[str, Written]) -> dict[str, Any]:
    """The card that lies in a folder, if it is of these very weights; otherwise, or if it is damaged, nothing.

    Args:
        folder: Where it may lie.
        card_name: Its name.
        weights: The files, by name, that it must be of.
    """
    try:
        card = json.loads((folder / card_name).read_bytes())
        same = all(card["files"][name]["sha256"] == sha256(file.content) for name, file in weights.items())
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return card if same else {}


def write(
    folder: Path,
    files: Mapping[str, Written],
    card_name: str,
    card: Mapping[str, Any],
    programs: Collection[str],
    renew: bool = True,
) -> None:
    """Write the files, then the card that names them, each whole or not at all.

    Args:
        folder: Where they go; made if missing.
        files: By name, in the order in which they are written.
        card_name: The card's name.
        card: What JSON can hold; `files` is added: what lies there, with hashes.
        programs: Names that an export may leave out. One that lies there and is not among the files stays if it was
            made from the very same weights under an equal card (versions and `about` apart: programs may hold settings
            that no weight does), and is removed if not.
        renew: Where there are such weights already, with a card that tells about them: write all of it again. False
            leaves that as it is.

    Raises:
        UsageError: If the file system refuses.
    """
    weights = {name: file for name, file in files.items() if name not in programs}
    there = standing(folder, card_name, weights)
    if not renew and there.get("about") and all(_intact(folder / name, there["files"][name]) for name in weights):
        return
    earlier = there.get("files", {}) if _settings(there) == _settings(card) else {}
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        absent = set(programs) - files.keys()
        kept = {name: earlier[name] for name in earlier if name in absent and _intact(folder / name, earlier[name])}
        for name in absent - kept.keys():
            (folder / name).unlink(missing_ok=True)
    for name, file in files.items():
        write_atomically(folder / name, file.content)
    entries = {name: file.entry() for name, file in files.items()} | kept
    write_json(folder / card_name, {**card, "files": entries})


def _settings(card: Mapping[str, Any]) -> Any:
    """What of a card the programs depend on besides the weights, as JSON gives it back."""
    return json.loads(json.dumps({name: value for name, value in card.items() if name not in PASSING}))


def _intact(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file is the one that its entry in the card was written for."""
    return path.is_file() and sha256(path.read_bytes()) == entry["sha256"]


def table(files: Mapping[str, Written], exact: str) -> str:
    """What was written: sizes, hashes, and the worst difference, in whose place `exact` stands for weights."""
    lines = [f"{'file':20s} {'bytes':>11s}  {'largest difference':18s}  sha256"]
    for name, file in files.items():
        worst = f"{max(file.parity.values()):.1e}" if file.parity else exact
        lines.append(f"{name:20s} {len(file.content):11,d}  {worst:18s}  {sha256(file.content)[:16]}...")
    return "\n".join(lines)
