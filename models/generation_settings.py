"""How a model writes: its special tokens, and what bounds and ranks what is written. Knows neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from models.errors import BadFile, BadInput, Unsupported

MAX_TOKENS = 128  # written where nothing says how many
# What changes the words and is not ours, with the value that changes nothing.
OTHER_KEYS: dict[str, Any] = {
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "min_p": 0.0,
    "top_h": 0.0,
}


class Ending(str, Enum):
    """When a beam search ends: as soon as there are enough texts (`FULL`), when the best that runs is worse than all of
    them as it stands (`LIKELY`), or when it cannot become better (`NEVER`); `early_stopping` of `transformers`.
    """

    FULL = "full"
    LIKELY = "likely"
    NEVER = "never"


_ENDINGS: dict[Any, Ending] = {True: Ending.FULL, False: Ending.LIKELY, None: Ending.LIKELY, "never": Ending.NEVER}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How words are drawn: by logits divided by `temperature`, of the `top_k` likeliest (0: of all), of these of the
    likeliest that together have a share of `top_p` (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Generation:
    """How a model writes. Tokens are numbers, lengths count what is written, without `start` and with what ends it.

    `start` begins what a decoder writes behind an encoder, `end` are the tokens that end a text, `bos` is kept for who
    reads it. The first word is `forced_first`, the last that there is room for `forced_last`, where given; `banned` are
    never written. Scores of texts are divided by their length to the power of `length_penalty`. No `no_repeat` tokens
    stand together twice; logits of words that were written before are divided by `repetition_penalty`. With
    `renormalize` the shares that all this leaves are made to sum to one.
    """

    start: int | None = None
    end: tuple[int, ...] = ()
    bos: int | None = None
    max_tokens: int = MAX_TOKENS
    min_tokens: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    ending: Ending = Ending.LIKELY
    no_repeat: int = 0
    repetition_penalty: float = 1.0
    forced_first: int | None = None
    forced_last: int | None = None
    banned: tuple[int, ...] = ()
    renormalize: bool = False
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise BadInput("; ".join(problems), where="generation")

    @property
    def looks_back(self) -> bool:
        """Return whether what was written changes what may be written."""
        return bool(self.no_repeat) or self.repetition_penalty != 1.0

    @property
    def tokens(self) -> tuple[int, ...]:
        """Return every token that is named."""
        some = (self.start, *self.end, self.bos, self.forced_first, self.forced_last, *self.banned)
        return tuple(token for token in some if token is not None)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self) | {"end": list(self.end), "banned": list(self.banned), "ending": self.ending.value}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Generation:
        """Return the settings written by `to_json`.

        Raises:
            BadFile: a key is unknown, or a value is of the wrong type.
        """
        try:
            known = dict(value)
            sampling = known.pop("sampling", None)
            parts: dict[str, Any] = {name: tuple(known.pop(name, ())) for name in ("end", "banned")}
            parts["ending"] = Ending(known.pop("ending", Ending.LIKELY))
            parts["sampling"] = None if sampling is None else Sampling(**sampling)
            return Generation(**known, **parts)
        except (BadInput, TypeError, ValueError) as error:
            raise BadFile(f"not settings of generation ({error})", where="generation.json") from None


def read_generation(config: Mapping[str, Any], *, behind_encoder: bool) -> Generation:
    """Return the settings of a Hugging Face `generation_config.json`, or of the `config.json` of before there was one.

    Its lengths count what a decoder starts with, and a prompt: of a model without an encoder they say nothing of what
    is written.

    Raises:
        Unsupported: settings that change what is written and are not ours, all in one message.
    """
    foreign = [name for name, value in OTHER_KEYS.items() if config.get(name) not in (None, value)]
    foreign += ["bad_words_ids"] if any(len(words) != 1 for words in config.get("bad_words_ids") or ()) else []
    if foreign:
        raise Unsupported(
            f"generation with {', '.join(sorted(foreign))}",
            where="generation_config.json",
            fix="Take it out of the file to write without it.",
        )
    longest, shortest = config.get("max_new_tokens"), config.get("min_new_tokens")
    if behind_encoder:
        longest = _or(longest, config.get("max_length"), less=1)
        shortest = _or(shortest, config.get("min_length"), less=1)
    banned = [words[0] for words in config.get("bad_words_ids") or ()] + list(config.get("suppress_tokens") or ())
    start = _or(config.get("decoder_start_token_id"), config.get("bos_token_id"))
    sampling = Sampling(
        temperature=float(_or(config.get("temperature"), 1.0)),
        top_k=int(_or(config.get("top_k"), 50)),  # the default of transformers
        top_p=float(_or(config.get("top_p"), 1.0)),
    )
    return Generation(
        start=start if behind_encoder else None,
        end=_ends(config.get("eos_token_id")),
        bos=config.get("bos_token_id"),
        max_tokens=max(1, int(_or(longest, MAX_TOKENS))),
        min_tokens=max(0, int(_or(shortest, 0))),
        beams=int(_or(config.get("num_beams"), 1)),
        length_penalty=float(_or(config.get("length_penalty"), 1.0)),
        ending=_ENDINGS[config.get("early_stopping")],
        no_repeat=int(_or(config.get("no_repeat_ngram_size"), 0)),
        repetition_penalty=float(_or(config.get("repetition_penalty"), 1.0)),
        forced_first=config.get("forced_bos_token_id"),
        forced_last=next(iter(_ends(config.get("forced_eos_token_id"))), None),
        banned=tuple(token for token in banned if token not in _ends(config.get("eos_token_id"))),
        renormalize=bool(config.get("renormalize_logits", False)),
        sampling=sampling if config.get("do_sample") else None,
    )


def token_keys(settings: Generation) -> dict[str, Any]:
    """Return the special tokens as a Hugging Face `config.json` says them."""
    ends = settings.end[0] if len(settings.end) == 1 else list(settings.end) or None
    start = {} if settings.start is None else {"decoder_start_token_id": settings.start}
    return {"bos_token_id": settings.bos, "eos_token_id": ends, **start}


def written_generation(settings: Generation, *, pad: int) -> dict[str, Any]:
    """Return what `generation_config.json` says of the settings; `pad` fills up what is shorter in a batch."""
    drawn = settings.sampling
    stopping = {Ending.FULL: True, Ending.LIKELY: False, Ending.NEVER: "never"}[settings.ending]
    given: dict[str, Any] = {
        **token_keys(settings),
        "pad_token_id": pad,
        "max_new_tokens": settings.max_tokens,
        "min_new_tokens": settings.min_tokens or None,
        "num_beams": settings.beams,
        "length_penalty": settings.length_penalty,
        "early_stopping": stopping,
        "no_repeat_ngram_size": settings.no_repeat or None,
        "repetition_penalty": settings.repetition_penalty if settings.repetition_penalty != 1.0 else None,
        "forced_bos_token_id": settings.forced_first,
        "forced_eos_token_id": settings.forced_last,
        "bad_words_ids": [[token] for token in settings.banned] or None,
        "renormalize_logits": settings.renormalize or None,
        **({} if drawn is None else {"do_sample": True, **asdict(drawn)}),
    }
    return {name: value for name, value in given.items() if value is not None}


def _ends(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(one) for one in value) if isinstance(value, list) else (int(value),)


def _or(value: Any, other: Any, *, less: int = 0) -> Any:
    """Return a value, or where there is none the other, made less."""
    return value if value is not None or other is None else other - less


def _problems(settings: Generation) -> list[str]:
    wrong = [f"token {token!r} is no token's number" for token in settings.tokens if not _is_whole(token, least=0)]
    least = {"max_tokens": 1, "min_tokens": 0, "beams": 1, "no_repeat": 0}
    sizes = {name: getattr(settings, name) for name in least}
    wrong += [f"{name} is {size!r}" for name, size in sizes.items() if not _is_whole(size, least=least[name])]
    if not wrong and settings.min_tokens > settings.max_tokens:
        wrong.append(f"min_tokens {settings.min_tokens} is more than max_tokens {settings.max_tokens}")
    if not _is_number(settings.length_penalty) or abs(settings.length_penalty) > 100:
        wrong.append(f"length_penalty is {settings.length_penalty!r}")
    if not _is_number(settings.repetition_penalty) or settings.repetition_penalty <= 0:
        wrong.append(f"repetition_penalty is {settings.repetition_penalty!r}")
    drawn = settings.sampling
    if drawn is None:
        return wrong
    wrong += ["words are drawn, and a beam search draws none"] if settings.beams != 1 else []
    wrong += (
        [] if _is_number(drawn.temperature) and drawn.temperature > 0 else [f"temperature is {drawn.temperature!r}"]
    )
    wrong += [] if _is_whole(drawn.top_k, least=0) else [f"top_k is {drawn.top_k!r}"]
    return wrong + ([] if _is_number(drawn.top_p) and 0 < drawn.top_p <= 1 else [f"top_p is {drawn.top_p!r}"])


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1 << 24


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
