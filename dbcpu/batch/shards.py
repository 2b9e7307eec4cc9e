"""Scans split between runs that know nothing of each other, and their manifests put together again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbcpu.batch.records import PageRecord
from dbcpu.batch.report import write_reports
from dbcpu.batch.store import MANIFEST, OWN
from dbcpu.batch.work import Facts
from dbcpu.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbcpu.batch.report import Totals
    from dbcpu.batch.store import Results

logger = logging.getLogger(__name__)
_FOLDER = f"{OWN}/shards"
_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True, order=True)
class Shard:
    """One of several parts of the scans; which one a scan belongs to depends on its name alone.

    Attributes:
        count: of the parts.
        index: of this one, from 1.
    """

    count: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `i/n` names.

        Raises:
            ValueError: it names none.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"{text!r} is no shard i/n, with i from 1 to n")
        return cls(int(count), int(index))

    def __contains__(self, name: str) -> bool:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder(self) -> str:
        """In the results, for what only its runs need."""
        return f"{_FOLDER}/{self.index:04d}-of-{self.count:04d}"

    @property
    def note(self) -> str:
        """In the results, the file that tells of its runs."""
        return f"{self.folder}/run.json"


def unmerged(results: Results) -> list[Shard]:
    """Return the shards that results have manifests of, in order."""
    found = filter(None, map(_NAME.fullmatch, results.folders(_FOLDER)))
    shards = sorted(Shard(int(match[2]), int(match[1])) for match in found)
    return [shard for shard in shards if results.exists(shard.note)]


def check_alone(results: Results, shard: Shard | None) -> None:
    """Refuse to work on shards and on the whole at once; with the own lock held, which is not that of the others.

    Args:
        results: to work on.
        shard: of them; None for the whole.

    Raises:
        OutputError: another run works on them.
    """
    shards = [f"{_FOLDER}/{folder}/lock" for folder in results.folders(_FOLDER)]
    for lock in shards if shard is None else [f"{OWN}/lock"]:
        results.check_unlocked(lock)


def begin_shard(results: Results, shard: Shard, facts: Facts, run_formats: tuple[str, ...]) -> None:
    """Make the shard's folder, with what is known of its pages from runs that were merged.

    Raises:
        UsageError: there are shards of another number.
        OutputError: it cannot be written.
    """
    others = {other.count for other in unmerged(results)} - {shard.count}
    if others:
        raise UsageError(
            f"these results have shards of {others.pop()}, not {shard.count}", remedy="put them together first: merge"
        )
    manifest = f"{shard.folder}/{MANIFEST}"
    if not results.exists(manifest):
        known = (line for line in results.manifest_lines(MANIFEST) if _path(line) in shard)
        results.write_text(manifest, (line.decode() for line in known))
    _note(results, shard, {**vars(facts), "run_formats": run_formats})


def end_shard(
    results: Results, shard: Shard, facts: Facts, run_formats: tuple[str, ...], left_out: Mapping[str, int]
) -> None:
    """Note that a shard's run has come to its end."""
    _note(results, shard, {**vars(facts), "run_formats": run_formats, "left_out": dict(left_out), "has_ended": True})


def merge_shards(results: Results, *, partial: bool) -> Totals:
    """Put the manifests of all shards together, and write the reports of the whole.

    The shards' own manifests then go; their next runs begin with what is in the whole.

    Args:
        results: whose lock this process holds.
        partial: whether shards may be missing or unfinished; all of them then stay.

    Raises:
        UsageError: there are no shards, some are missing or unfinished, or they were made with different settings.
        OutputError: a shard is being worked on, or something cannot be read or written.
    """
    shards = unmerged(results)
    if not shards:
        raise UsageError("there are no shards to merge", remedy="a folder of scans of the name merge is ./merge")
    with contextlib.ExitStack() as locks:
        for shard in shards:
            locks.enter_context(results.locked(f"{shard.folder}/lock"))
        notes = _checked(results, shards, partial=partial)
        facts = Facts(model=notes[0]["model"], fingerprint=notes[0]["fingerprint"], settings=notes[0]["settings"])
        manifest = results.open_manifest(MANIFEST, facts.fingerprint)
        try:
            for shard in shards:
                for line in results.manifest_lines(f"{shard.folder}/{MANIFEST}"):
                    with contextlib.suppress(ValueError):  # a line that a kill has cut
                        manifest.add(PageRecord.from_line(line))
            manifest.finish()
            totals = write_reports(
                results,
                manifest.records,
                facts,
                run_formats=notes[0]["run_formats"],
                overlay=facts.settings["overlay"],
                left_out=sum((Counter(note.get("left_out", {})) for note in notes), Counter()),
            )
        finally:
            manifest.close()
        if not partial:
            for shard in shards:
                results.remove_folder(shard.folder)
    return totals


def _checked(results: Results, shards: list[Shard], *, partial: bool) -> list[dict[str, Any]]:
    """Return the notes of shards that can be merged."""
    count = shards[-1].count
    notes = [json.loads(results.read(shard.note)) for shard in shards]
    if {(shard.count, note["fingerprint"]) for shard, note in zip(shards, notes, strict=True)} != {
        (count, notes[0]["fingerprint"])
    }:
        raise UsageError("these shards were not made with the same model and settings, or not the same number of them")
    ended = {shard.index for shard, note in zip(shards, notes, strict=True) if note.get("has_ended")}
    open_ = [index for index in range(1, count + 1) if index not in ended]
    if open_:
        what = f"of {count} shards, these have not come to their end: {_listed(open_)}"
        if not partial:
            raise UsageError(what, remedy="run them first, or give --partial")
        logger.warning("%s", what)
    return notes


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")


def _note(results: Results, shard: Shard, content: dict[str, Any]) -> None:
    results.write_text(shard.note, [json.dumps(content, indent=2) + "\n"])


def _path(line: bytes) -> str:
    try:
        return PageRecord.from_line(line).path
    except ValueError:
        return ""
