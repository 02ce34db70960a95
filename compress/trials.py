"""Which families a search grows: the recipe's own, then what Optuna proposes from the space; and for how long."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from compress.goal_settings import SearchSettings
from models.errors import BadInput
from models.files import digest_of
from models.progress import Progress

FILE = "search.db"
WORKER = "worker"
KEEP_EVERY_S = 20.0  # seconds at work are written down
PROPOSALS = 100  # Optuna may propose again what was tried; after so many repeats the space counts as used up


class Trial(NamedTuple):
    """One family: Optuna's number, and the recipe keys that it sets."""

    number: int
    keys: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Return the name of its directory, the same whenever the same keys are tried."""
        return f"family-{digest_of(dict(self.keys))[:8]}" if self.keys else "family"


@final
class Clock:
    """How long a search has been at work, over all the calls that it took; it is written down with its trials."""

    def __init__(self, trials: Trials, *, began: float) -> None:
        """Go on from what was written down, in a call that `began` at this value of `time.monotonic`."""
        self.trials, self.began, self.before, self.kept = trials, began, trials.spent, trials.spent

    @property
    def seconds(self) -> float:
        """Return the seconds at work up to now."""
        return self.before + time.monotonic() - self.began

    def left(self, minutes: float) -> float:
        """Return how many seconds are left of so many minutes, below 0 where there were more."""
        return 60 * minutes - self.seconds

    def keep(self) -> None:
        """Write the seconds down."""
        self.kept = self.trials.spent = self.seconds

    def watched(self, progress: Progress) -> Progress:
        """Return a progress that also writes the seconds down, now and then: a search may be killed at any time."""

        def begin(label: str) -> Callable[[int, int], None]:
            tick = progress(label)

            def told(done: int, total: int) -> None:
                tick(done, total)
                if self.seconds - self.kept >= KEEP_EVERY_S:
                    self.keep()

            return told

        return begin


@final
class Trials:
    """An Optuna study of one search, in a file beside the run or in a database that several searches share."""

    def __init__(self, settings: SearchSettings, *, name: str, directory: Path, seed: int) -> None:
        """Open the study, or go on with the one of that name.

        Raises:
            BadInput: the storage cannot be opened.
        """
        self.space = {key: [json.dumps(choice) for choice in choices] for key, choices in settings.space.items()}
        self.wanted = min(settings.trials, math.prod(map(len, self.space.values())) + 1)
        self.worker = str(directory.resolve())
        self.storage = settings.storage or f"sqlite:///{(directory / FILE).resolve()}"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=seed),
                load_if_exists=True,
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise BadInput(
                f"cannot be opened ({str(error).splitlines()[0]})",
                where="search.storage",
                fix="Give a database URL such as sqlite:///search.db.",
            ) from None
        self._give_up_stale()

    def known(self, name: str) -> float | None:
        """Return the number that a study of this storage wrote down under this name, or None."""
        studies = optuna.get_all_study_summaries(self.storage)
        return next((float(study.user_attrs[name]) for study in studies if name in study.user_attrs), None)

    def remembered(self, name: str, make: Callable[[], float]) -> float:
        """Return a number that all studies of this storage use under this name: the one that was made first."""
        known = self.known(name)
        if known is None:
            known = make()
            self.remember(name, known)
        return known

    def remember(self, name: str, value: float) -> None:
        """Write a number down for all studies of this storage."""
        self.study.set_user_attr(name, value)

    @property
    def spent(self) -> float:
        """Return how many seconds searches in this directory have been at work on the study."""
        return float(self.study.user_attrs.get(self._spent, 0.0))

    @spent.setter
    def spent(self, seconds: float) -> None:
        self.study.set_user_attr(self._spent, seconds)

    @property
    def _spent(self) -> str:
        return f"spent-{digest_of(self.worker)[:12]}"

    def next(self) -> Trial | None:
        """Return the next family to grow, or None when there were enough."""
        for _ in range(PROPOSALS):
            tried = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
            if len(tried) >= self.wanted:
                return None
            if not tried:
                self.study.enqueue_trial({})
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self.worker)
            keys = {} if not tried else {key: trial.suggest_categorical(key, of) for key, of in self.space.items()}
            if tried and any(other.params == keys for other in tried):
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            return Trial(trial.number, {key: json.loads(text) for key, text in keys.items()})
        return None

    def finished(self) -> list[Trial]:
        """Return the families that a search in this directory has grown already, in the order of their numbers."""
        return [
            Trial(trial.number, {key: json.loads(text) for key, text in trial.params.items()})
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state == TrialState.COMPLETE and trial.user_attrs.get(WORKER) == self.worker
        ]

    def tell(self, trial: Trial, score: float) -> None:
        """Write down what came of a family; more is better."""
        self.study.tell(trial.number, score)

    def _give_up_stale(self) -> None:
        """Forget the trials that a search in this directory had begun when it was stopped; they are begun again.

        The directory is locked, so nobody can be at work on them.
        """
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == self.worker:
                self.study.tell(trial.number, state=TrialState.FAIL)
                if trial.params:
                    self.study.enqueue_trial(trial.params)
