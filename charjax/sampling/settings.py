"""What a text is written by, beside its prime and length."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from charjax.config.checks import AtLeast, check_fields, check_instance
from charjax.config.data import OnUnknown
from charjax.errors import InputError, suggestion
from charjax.sampling.options import SamplingKeywords, SamplingOptions


class WritingKeywords(SamplingKeywords, total=False):
    """The fields of Settings and of its options as keywords."""

    seed: int
    on_unknown: OnUnknown
    best_of: int
    first_row: int
    options: SamplingOptions | None


@dataclass(frozen=True)
class Settings:
    """Seed and rows, and how each character is drawn; checked when it is built."""

    seed: Annotated[int, AtLeast(0, 2**32 - 1)] = 0
    """The same seed gives the same text."""

    on_unknown: OnUnknown = "error"
    """What to do with characters of a prime that the model does not know."""

    best_of: Annotated[int, AtLeast(1)] = 1
    """Write so many texts for each, and take the one with the highest mean
    log-probability."""

    first_row: Annotated[int, AtLeast(0)] = 0
    """The number of the first prime in a longer list. A row's text depends on its number,
    not on the rows beside it."""

    options: SamplingOptions = field(default_factory=SamplingOptions)
    """How each character is drawn."""

    def __post_init__(self) -> None:
        check_instance("options", self.options, SamplingOptions)
        check_fields(self)

    @classmethod
    def of(cls, keywords: Any) -> "Settings":
        """The settings of some keywords, in which fields win over `options`.

        >>> Settings.of({"seed": 1, "top_k": 5}).options.top_k
        5
        """
        options = keywords.get("options")
        options = SamplingOptions() if options is None else options
        check_instance("options", options, SamplingOptions)
        own = {each.name for each in fields(cls)}
        known = own | {each.name for each in fields(SamplingOptions)}
        if unknown := sorted(keywords.keys() - known):
            raise InputError(
                f"there is no option `{unknown[0]}`; {suggestion(unknown[0], known)}"
            )
        changed = {name: keywords[name] for name in keywords if name not in own}
        mine = {name: keywords[name] for name in keywords if name in own - {"options"}}
        return cls(**mine, options=replace(options, **changed))
