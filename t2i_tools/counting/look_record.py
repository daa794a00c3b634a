"""What early looks were worth so far, per model, steps and sampler; and whether to end a trial at one.

Let d be |counted at the look - wanted|, capped at 2, with shares w_d, and p_d the chance that an image looked at with d
is exact at its end. Trials that go on only if d <= D cost f + c + (1 - f) sum_{d<=D} w_d images each (the look comes
after the share f of the denoising, and costs c), and are exact with sum_{d<=D} w_d p_d. The D with most exact images
per compute is taken, and none where not looking gives more: a look that misleads switches itself off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, first_line
from t2i_tools.files import replacing
from t2i_tools.models.anatomy import denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

COST_BEFORE = 0.1  # of a look, in images, before one is measured
FAR = 2  # larger distances d count as this one
ENOUGH = 24  # images looked at that went on: by then trials that go on anyway need no look
# Before anything was seen: so many looks at each d, and (exact, ended) images; from 32 images of the bundled model.
SEEN_BEFORE, EXACT_BEFORE, ENDED_BEFORE = (1.0, 1.0, 1.0), (9.0, 1.0, 0.1), (10.0, 10.0, 10.0)


@dataclass
class LookRecord:
    """How often a look saw each d (`seen`), and of the images that went on, how many were exact (`exact`, `ended`)."""

    seen: list[int] = field(default_factory=lambda: [0] * (FAR + 1))
    exact: list[int] = field(default_factory=lambda: [0] * (FAR + 1))
    ended: list[int] = field(default_factory=lambda: [0] * (FAR + 1))

    def is_whole(self) -> bool:
        """Return whether it holds numbers of images, as a record that was read may not."""
        return all(
            isinstance(counts, list) and len(counts) == FAR + 1 and all(type(one) is int and one >= 0 for one in counts)
            for counts in vars(self).values()
        )

    def is_known(self) -> bool:
        """Return whether enough images were looked at and drawn to their end."""
        return sum(self.ended) >= ENOUGH

    def note(self, distance: int, is_exact: bool | None) -> None:
        """Take in a look. is_exact: whether the image was exact at its end, None where the look ended it."""
        d = min(distance, FAR)
        self.seen[d] += 1
        if is_exact is not None:
            self.ended[d] += 1
            self.exact[d] += is_exact

    def reach(self, at: float, cost: float) -> int | None:
        """Return the largest d with which a trial goes on, None where looks are not worth their cost.

        Args:
            at: share of the denoising before the look.
            cost: of the look, in images' worth.
        """
        seen = [n + before for n, before in zip(self.seen, SEEN_BEFORE, strict=True)]
        shares = [n / sum(seen) for n in seen]
        chances = [
            (exact + exact_before) / (ended + ended_before)
            for exact, ended, exact_before, ended_before in zip(
                self.exact, self.ended, EXACT_BEFORE, ENDED_BEFORE, strict=True
            )
        ]
        gains = [share * chance for share, chance in zip(shares, chances, strict=True)]
        rates: dict[int | None, float] = {None: sum(gains)}
        for d in range(FAR):
            rates[d] = sum(gains[: d + 1]) / (at + cost + (1 - at) * sum(shares[: d + 1]))
        return max(rates, key=lambda d: rates[d])


class LookRecords:
    """The records of several models, steps and samplers. Hand one to several searches to let each learn of the others.

    Args:
        records: key -> record, empty at first.
    """

    def __init__(self, records: Mapping[str, LookRecord] | None = None) -> None:
        self.records = dict(records or {})

    def of(self, pipe: DiffusionPipeline, steps: int | None) -> LookRecord:
        """Return the record of this model with this sampler and so many steps; a new one where there is none."""
        return self.records.setdefault(record_key(pipe, steps), LookRecord())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, complete or not at all.

        Raises:
            InputError: the place cannot be written.
        """
        with replacing(Path(path)) as part:
            part.write_text(json.dumps(self.as_dict(), indent=1))

    def as_dict(self) -> dict[str, Any]:
        """Return the records as JSON's own types, copied."""
        return {key: asdict(record) for key, record in self.records.items()}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LookRecords:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or broken.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"cannot read the early looks of {path}: {first_line(error)}") from error

    @classmethod
    def from_dict(cls, rows: Mapping[str, Any]) -> LookRecords:
        """Read what `as_dict` returned.

        Raises:
            ValueError, TypeError, AttributeError: it is something else.
        """
        records = cls({key: LookRecord(**row) for key, row in rows.items()})
        if not all(record.is_whole() for record in records.records.values()):
            raise ValueError(f"they are not {FAR + 1} numbers of images each")
        return records


@dataclass
class Looks:
    """The early looks of one search.

    Args:
        record: what they were worth so far.
        at: share of the denoising before a look.
        cost: of a look, in images' worth of denoising; None until it is measured.
    """

    record: LookRecord
    at: float
    cost: float | None = None
    _is_warm: bool = field(default=False, repr=False)

    def reach(self) -> int | None:
        """Return the largest distance with which a trial goes on; None for no look."""
        return self.record.reach(self.at, self.expected_cost)

    def note(self, distance: int, is_exact: bool | None, measured: float) -> float:
        """Record a look and return what one costs: the second measurement, for the first includes warming up."""
        self.record.note(distance, is_exact)
        if self.cost is None and self._is_warm:
            self.cost = measured
        self._is_warm = True
        return self.expected_cost

    @property
    def expected_cost(self) -> float:
        """What a look costs as far as is known, in images' worth of denoising."""
        return COST_BEFORE if self.cost is None else self.cost


def record_key(pipe: DiffusionPipeline, steps: int | None) -> str:
    """Name a model by its denoiser's class and first weights, with sampler, prediction type and steps."""
    model, scheduler = denoiser(pipe), pipe.scheduler
    weights = next(model.parameters()).detach().flatten()[:1024].float().cpu().numpy().tobytes()
    kind = scheduler.config.get("prediction_type", "flow")
    name = f"{type(model).__name__} {hashlib.sha256(weights).hexdigest()[:12]}"
    return f"{name}, {type(scheduler).__name__} {kind}, {steps or 'default'} steps"


def as_rows(record: LookRecord) -> dict[str, Any]:
    """Return a record as JSON's own types."""
    return {name: list(values) for name, values in vars(record).items()}
