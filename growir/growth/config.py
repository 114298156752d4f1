"""What a growth run is told: data, policy, training, budget. Run file, command line and `growir.grow` share the models.

Of each setting under "Attributes" `growir grow --settings` shows the first sentence, and where the default depends on
something the one that begins with "By default".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field, ValidationError, field_validator

from growir.errors import Problem, RunError, cut, listed
from growir.fields import field_problems
from growir.growth.sections import MAX_CHOICES, MOST, Count, NonNegative, Rate, Section, Share, Word
from growir.moments import FreshState
from growir.nearest import suggestion
from growir.ops import ACTIVATIONS
from growir.ops.base import MAX_REAL, PositiveInt

Directions = Literal["random", "fitted"]
Strategy = Literal["whole", "restricted", "bic", "widen"]
# One list of words: of a union only the first half would be named to who wrote none of them.
Way = Literal["whole", "restricted", "bic", "widen", "tournament"]
MAX_THREADS = 1024
MAX_PATH = 32_768  # characters, more than any system takes
# Multiply-accumulates of a training step up to which one thread takes it. Below, two are at most a quarter faster, and
# where other work shares the cores they wait for each other for many times as long; above, they need half the time and
# little more processor time than one (benchmarks/threads.py).
SMALL_STEP = 50_000_000


class DataConfig(Section):
    """Which data, and what is learned from it before any weight.

    Attributes:
        path: A table (.csv, .tsv), an .npz file, or "digits". An .npz file holds x_train and y_train, and x_test and
            y_test if it has a test part. By default what `growir grow` is given, where that is data.
        target: The column of a table that is learned. By default none, and a table needs it.
        ignore: Columns of a table that are not read.
        categories: Columns of a table that hold words, also where they look like numbers. So they do however many words
            there are.
        separator: The character between the cells of a table. By default a comma, or a tab in .tsv files.
        missing: "refuse" rows of a table that lack a value, or "drop" them.
        task: "classification", "regression", or "auto" to see by the targets. Words, whole numbers and one-hot rows are
            then classes, anything else is regression.
        test: A file to test on, or the share of the samples to hold out; 0 for none. The file is a table or an .npz
            file with x_test and y_test; without a test part there are no test scores. By default a fifth, of each
            class. Data with a test part of its own takes neither.
        standardise: By one mean and std ("global"), one per input ("feature"), "none", or "auto". Auto is global where
            a sample has two or more axes (an image), else per feature.
        variance: The share of the inputs' total variance that is kept. The inputs that vary least are left out, which
            leaves more of the budget to neurons. Of a list, each is tried by a short fit, and the part of the data that
            chooses decides. By default one of [0.9, 0.95, 0.98] for images, else 1. Inputs of images are in one unit.
    """

    path: Annotated[str, Field(max_length=MAX_PATH)] = ""
    task: Literal["auto", "classification", "regression"] = "auto"
    target: Word | None = None
    ignore: Annotated[tuple[Word, ...], Field(max_length=MAX_CHOICES)] = ()
    categories: Annotated[tuple[Word, ...], Field(max_length=MAX_CHOICES)] = ()
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing: Literal["refuse", "drop"] = "refuse"
    test: Annotated[float, Field(strict=True, ge=0, lt=1)] | Annotated[str, Field(max_length=MAX_PATH)] | None = None
    standardise: Literal["auto", "global", "feature", "none"] = "auto"
    variance: Share | Annotated[tuple[Share, ...], Field(min_length=1, max_length=MAX_CHOICES)] | None = None

    @field_validator("variance", mode="before")
    @classmethod
    def _shares_are_shares(cls, value: object) -> object:
        # Of a number or a list, the message for a wrong list would ask for a number.
        if type(value) in (list, tuple):
            entries = cast("Sequence[object]", value)
            wrong = [x for x in entries if isinstance(x, bool) or not isinstance(x, int | float) or not 0 < x <= 1]
            if wrong or not entries:
                found = f"{wrong[0]!r} is none" if wrong else "the list is empty"
                raise ValueError(f"a list holds shares above 0 and at most 1, but {found}")
        return value

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the variance to choose from."""
        return tuple(dict.fromkeys(self.variance)) if isinstance(self.variance, tuple) else (self.variance or 1.0,)

    def keeping(self, share: float) -> DataConfig:
        """The same for one share of the variance."""
        return self.model_copy(update={"variance": share})

    @field_validator("test", mode="before")
    @classmethod
    def _share_or_file(cls, value: object) -> object:
        # Of a number or a text, the message for a wrong number would ask for a text too. A number in quotes is no file.
        number = isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[-+.\de]*\d\.?", value))
        if number and not (isinstance(value, int | float) and 0 <= value < 1 and not isinstance(value, bool)):
            raise ValueError("a share is 0 or more, and less than 1; or name a file to test on")
        return value

    @field_validator("separator")
    @classmethod
    def _separates(cls, value: str | None) -> str | None:
        if value in ('"', "\n", "\r", " ", "."):
            raise ValueError("this cannot stand between cells; take a comma, a semicolon, a tab or a bar")
        return value

    @field_validator("path", "test", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        try:
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError:
            raise ValueError("this name is not valid UTF-8, and run.toml could not repeat it; rename it") from None
        return value


class DagConfig(Section):
    """DAG growth by expressivity bottleneck.

    Attributes:
        name: Growth by expressivity bottleneck, the only policy yet.
        strategy: "whole", "restricted", "bic", "widen", or the best of several, "tournament". Consider every move
            ("whole"); those that feed or widen the state with the largest bottleneck ("restricted"), and of these the
            one with the smallest Bayesian information criterion, for as long as that falls ("bic"); one hidden state
            between data and output and then its widenings only ("widen", with kernels a chain of maps, each of half the
            size), which trains best where inputs are many and the budget is small; or grow a network by each strategy
            in `branches`, fit each on two thirds of the data as the final fit will, and keep the one that does best on
            the last third ("tournament").
        branches: The strategies of a tournament, the simplest first. A later one must be better by more than chance.
        neurons: Neurons of a new state or a widening. Fewer where the budget ends. By default as many as a third of the
            parameter budget pays for. That is between data and output, at most 8192: a few large steps end in better
            networks than many small. Channels of a new map are eight by default, and a map doubles.
        activation: Of new states; of a list, each is tried.
        kernels: Kernel sizes of convolutions; none keeps to fully connected layers.
        directions: Incoming weights of new neurons, "random" or "fitted". Fitted are the best of a pool that holds the
            closed-form directions too, those of vectors then fitted by descent.
        samples: The most samples of each part that candidates are measured on.
        ridge: Regularisation of every least-squares solve. It is relative to the mean square of its features. By
            default each solve chooses among three on held-out samples.
        significance: The largest probability of error that a growth may have. Growth ends where no candidate improves
            the selection part, at once or after the training that follows, with a smaller probability of error than
            this (one-sided, paired by sample, each candidate by itself: of many, one may pass by chance); 1 takes any
            improvement, and what trains to one or not. By default 1 for "widen", else 0.05. Width pays after a full
            training.
    """

    name: Literal["dag"] = "dag"
    strategy: Way = "tournament"
    branches: Annotated[tuple[Strategy, ...], Field(min_length=1, max_length=MAX_CHOICES)] = ("widen", "whole")
    neurons: PositiveInt | None = None
    activation: Word | Annotated[tuple[Word, ...], Field(max_length=MAX_CHOICES)] = "relu"
    kernels: Annotated[tuple[Annotated[int, Field(strict=True, gt=0, le=31)], ...], Field(max_length=MAX_CHOICES)] = ()
    directions: Directions = "random"
    samples: Count = 6000
    ridge: Rate | None = None
    significance: Share | None = None

    def branch(self, strategy: Strategy) -> DagConfig:
        """The policy of one branch of a tournament."""
        return self.model_copy(update={"strategy": strategy})

    @property
    def error_rate(self) -> float:
        """The probability of error that a growth may have."""
        return self.significance or (1.0 if self.strategy == "widen" else 0.05)

    @property
    def activations(self) -> tuple[str, ...]:
        """Those of new states."""
        return (self.activation,) if isinstance(self.activation, str) else tuple(dict.fromkeys(self.activation))

    @field_validator("activation")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("the list is empty; name at least one activation")
        for name in (value,) if isinstance(value, str) else value:
            if name not in ACTIVATIONS:
                near = suggestion(name, ACTIVATIONS)
                raise ValueError(f"there is no such activation; there are {', '.join(ACTIVATIONS)}.{near}")
        return value

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        even = [size for size in value if size % 2 == 0]
        if even:
            raise ValueError(f"kernel sizes must be odd, to keep positions centred: {even[0] + 1} instead of {even[0]}")
        return tuple(dict.fromkeys(value))


class TrainConfig(Section):
    """How weights are trained between growths and at the end; AdamW throughout.

    Attributes:
        batch_size: Samples a step. By default 64, or 256 from 10 000 training samples on.
        epochs_between: Passes over the data after each growth. That is two thirds of the training data, at a constant
            rate. By default a quarter of epochs_final, or 1 from 10 000 samples on.
        epochs_final: Passes over all training data by the found network. They are on a one-cycle schedule. By default
            30 to 60, by the number of samples.
        epochs_trial: Passes over the data by each network of a tournament. That is two thirds of the training data, on
            the final schedule. By default half of epochs_final. What is ahead after a short fit may be behind after a
            long one.
        learning_rate: Between growths.
        learning_rate_final: The peak of the final schedule.
        weight_decay: Decoupled weight decay, between growths and at the end.
        keep_final: The final fit starts with each matrix times this. Below 1 the fit keeps the
            directions that growth found and not its confidence: weights that were trained on a part of the data end
            in worse minima than young ones do (Ash and Adams 2020). By default 0.2 from 10 000 samples on where growth
            began from nothing, else 1.
        fresh: AdamW's second moments of new weights: "small", "mean" or "zero". By default small. That is a
            ten-thousandth of the old ones' mean; docs/live.md has what was measured.
    """

    batch_size: Count | None = None
    epochs_between: Count | None = None
    epochs_final: Count | None = None
    epochs_trial: Count | None = None
    learning_rate: Rate = 3e-3
    learning_rate_final: Rate = 1e-2
    weight_decay: NonNegative = 0.1
    keep_final: Share | None = None
    fresh: FreshState | None = None

    def resolved(self, samples: int) -> TrainConfig:
        """The same with every default that depends on the data filled in."""
        batch = self.batch_size or (64 if samples < 10_000 else 256)
        final = self.epochs_final or min(60, max(30, round(3000 * batch / samples)))
        between = self.epochs_between or (max(1, round(final / 4)) if samples < 10_000 else 1)
        keep = self.keep_final or (1.0 if samples < 10_000 else 0.2)
        given: dict[str, object] = {
            "batch_size": batch,
            "epochs_final": final,
            "epochs_between": between,
            "epochs_trial": self.epochs_trial or math.ceil(final / 2),
            "keep_final": keep,
            "fresh": self.fresh or "small",
        }
        return self.model_copy(update=given)


class BudgetConfig(Section):
    """Where growth ends, whichever comes first.

    Attributes:
        parameters: The most parameters the network may have. By default two per sample, at most 50 000, at least
            enough for eight neurons. The eight neurons stand beside a linear layer. It also decides how many neurons a
            growth adds.
        macs: The most multiply-accumulates per sample. By default no limit.
        steps: The most growths.
        seconds: A safety stop on wall-clock time. By default no limit. A run that it ended says so and is not
            reproducible.
    """

    parameters: Count | None = None
    macs: Count | None = None
    steps: Count = 20
    seconds: Annotated[float, Field(strict=True, gt=0, le=MAX_REAL, allow_inf_nan=False)] | None = None


class RunConfig(Section):
    """One growth run.

    Attributes:
        name: Of the run directory and the graph; a file's name, if it has one.
        seed: Everything random is a function of it.
        threads: Of torch. By default one where a training step is small, else torch's choice. Small is one of at most
            `SMALL_STEP`. Results are the same to the bit only at one number.
    """

    name: Word = "run"
    seed: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    threads: Annotated[int, Field(strict=True, gt=0, le=MAX_THREADS)] | None = None
    data: DataConfig = DataConfig()
    policy: DagConfig = DagConfig()
    train: TrainConfig = TrainConfig()
    budget: BudgetConfig = BudgetConfig()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", value):
            raise ValueError("it names folders: at most 60 letters, digits, - and _, starting with a letter or digit")
        return value

    def located(self, place: Callable[[str], str]) -> RunConfig:
        """The same with each data file where `place` says it is. Raises RunError if that cannot be."""
        files = {"path": self.data.path, "test": self.data.test}
        if self.data.path == "digits":
            del files["path"]
        return self.updated(data={k: place(file) for k, file in files.items() if isinstance(file, str) and file})

    def updated(self, *, data: Mapping[str, object]) -> RunConfig:
        """The same with other settings of [data]. Raises RunError if that cannot be."""
        settings = self.model_dump(exclude_none=True)
        settings["data"] |= data
        return parse_run(settings, self.name)

    def started_from(self, given: bool) -> RunConfig:
        """The same for a run that starts from a given network, whose weights the final fit keeps unless told not to."""
        if not given or self.train.keep_final is not None:
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"keep_final": 1.0})})

    def going_on_from(self, started: RunConfig) -> RunConfig:
        """The same for going on with a run, on as many threads unless told otherwise.

        What the run's file does not name was unknown when it started, and stays off.
        """
        given: dict[str, object] = {"threads": self.threads or started.threads}
        before = {"keep_final": 1.0, "fresh": "mean"}
        unknown = {k: v for k, v in before.items() if getattr(started.train, k) is getattr(self.train, k) is None}
        if unknown:
            given["train"] = self.train.model_copy(update=unknown)
        if started.data.variance is None and self.data.variance is None:
            given["data"] = self.data.model_copy(update={"variance": 1.0})
        return self.model_copy(update=given)

    def resolved(self, samples: int, inputs: Sequence[int], outputs: int, macs: int = 0) -> RunConfig:
        """The same with every default that depends on the data filled in; `threads` stays None if torch is to choose.

        Args:
            samples: Training samples.
            inputs: Shape of one sample.
            outputs: Numbers the network predicts.
            macs: Multiply-accumulates per sample of the network that growth starts from.
        """
        # Convolutions read all of an image; a vector beside them is rarely worth a choice.
        images = (0.98,) if self.policy.kernels else (0.9, 0.95, 0.98)
        variance = self.data.variance or (images if len(inputs) > 1 else 1.0)
        if isinstance(variance, tuple) and len(variance) == 1:
            (variance,) = variance
        data = self.data.model_copy(update={"variance": variance})
        least = (math.prod(inputs) + 1) * (outputs + 8) + 8 * outputs
        parameters = self.budget.parameters or max(least, min(50_000, 2 * samples))
        budget = self.budget.model_copy(update={"parameters": parameters})
        train = self.train.resolved(samples)
        # In a fully connected layer a parameter is used once, in a convolution once at each position of the image.
        positions = math.prod(sorted(inputs)[-2:]) if self.policy.kernels else 1
        largest = max(macs, min(parameters * positions, budget.macs or MOST))
        small = min(train.batch_size or samples, samples) * largest <= SMALL_STEP
        threads = self.threads or (1 if small else None)
        return self.model_copy(update={"threads": threads, "data": data, "train": train, "budget": budget})

    def to_toml(self) -> str:
        """The run file that gives this configuration."""
        data = self.model_dump(mode="json", exclude_none=True)
        lines = [f"{key} = {_toml(value)}" for key, value in data.items() if not isinstance(value, dict)]
        for key, value in data.items():
            if isinstance(value, dict):
                section = cast("dict[str, object]", value)
                lines += ["", f"[{key}]", *(f"{name} = {_toml(entry)}" for name, entry in section.items())]
        return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    # JSON's spelling is TOML's, but for characters: surrogate pairs are none, and DEL must be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


DIGITS = RunConfig(
    name="digits",
    threads=1,  # layers this small only wait for each other on more
    data=DataConfig(path="digits", task="classification", standardise="global"),
    train=TrainConfig(weight_decay=0.3),
    budget=BudgetConfig(parameters=5000),
)


SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "policy": DagConfig,
    "train": TrainConfig,
    "budget": BudgetConfig,
}


def parse_run(data: Mapping[str, Any], source: str) -> RunConfig:
    """A configuration from decoded TOML. Raises RunError naming every wrong key."""
    found = checked_run(data)
    if isinstance(found, RunConfig):
        return found
    raise RunError(listed(found, cut(source), "wrong entries"))


def checked_run(data: Mapping[str, Any]) -> RunConfig | list[Problem]:
    """A configuration from decoded TOML, or all that is wrong with it."""
    problems: list[Problem] = []
    rest, valid = dict(data), dict[str, BaseModel]()
    for key, model in SECTIONS.items():
        section = rest.pop(key, {})
        if not isinstance(section, dict):
            given = cut(json.dumps(section, default=str))
            problems.append(Problem(key, f"this is a section, [{key}], but {given} is given"))
            continue
        try:
            valid[key] = model.model_validate(section)
        except ValidationError as error:
            problems += field_problems(f"[{key}]", f"[{key}]", error, model)
    try:
        config = RunConfig.model_validate(rest)
    except ValidationError as error:
        return [*problems, *field_problems("", "a run file", error, RunConfig)]
    return problems or config.model_copy(update=valid)
