"""What a growth run is told: data, policy, training, budget. Run file, command line and `growir.grow` share the models.

Of each setting under "Attributes" `growir grow --settings` shows the first sentence, and where the default depends on
something the one that begins with "By default".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator

from growir.errors import Problem, RunError, cut, listed
from growir.fields import field_problems
from growir.growth.budget import BudgetConfig
from growir.growth.naming import is_named
from growir.growth.policy import PolicySettings
from growir.growth.recipe import OptimizerConfig, RateConfig, Stopping
from growir.growth.registry import CONTEST, DEFAULT, GIVEN, Known, policy_names, settings_class
from growir.growth.schedule import SCHEDULES, Alternating, Named, Scheduled, schedule_class
from growir.growth.sections import (
    MAX_CHOICES,
    MOST,
    Count,
    FolderName,
    NonNegative,
    Positive,
    Rate,
    Section,
    Share,
    Whole,
    Word,
    run_file,
    told_as,
)
from growir.moments import FreshState
from growir.nearest import one_of

MAX_THREADS = 1024
KEEP = 0.2  # of the weights, where the final fit begins with small ones (experiments/final_fit)
FEW_STEPS = 100  # of a trial; in fewer, sizes are ranked by how fast they start
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
            leaves more of the budget to neurons. Of a list, each is tried by a short fit, and the selection part of
            the data decides. By default one of [0.9, 0.95, 0.98] for images, else 1. Inputs of images are in one unit.
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

    def located(self, folder: Path) -> DataConfig:
        """The same with its files in a folder, where they are told without one."""
        files = {"path": self.path, "test": self.test}
        if not self.path or self.path == "digits" or is_named(self.path):
            del files["path"]
        found = {key: str((folder / file).absolute()) for key, file in files.items() if isinstance(file, str)}
        return self.model_copy(update=found)

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


class TrainConfig(Section):
    """How weights are trained between growths and at the end.

    Attributes:
        batch_size: Samples a step. By default 64, or 256 from 10 000 training samples on.
        epochs_between: Passes over the data after each growth. That is two thirds of the training data, at a constant
            rate. By default a quarter of epochs_final, or 1 from 10 000 samples on.
        epochs_final: Passes over all training data by the found network. They are on a one-cycle schedule. By default
            30 to 60, by the number of samples.
        epochs_trial: Passes over the data by each network of a tournament, and in each of a schedule's trials. That is
            two thirds of the training data, on the final schedule. By default half of epochs_final, and at least 100
            steps. What is ahead after a short fit may be behind after a long one.
        learning_rate: Of AdamW between growths. Of another optimizer [optimizer] learning_rate says it.
        learning_rate_final: The peak of AdamW's final schedule. Of another optimizer it is its learning_rate.
        weight_decay: AdamW's decoupled weight decay, between growths and at the end.
        rate: How the learning rate goes between growths: "constant", "cosine", "one_cycle", "steps", "wsd", or a table
            with a name and more; docs/training.md has them. It spans the whole of growth where the schedule knows how
            long that is, else each training.
        clip: The largest norm of all gradients together; longer ones are scaled to it. By default no limit.
        amp: The type that autocast computes in, "bfloat16" or "float16", the latter on CUDA. By default none.
        accumulate: Batches whose gradients are added up for a step.
        stopping: When a training between growths ends early, a table with patience, in epochs, and by. By default
            never.
        device: Where the network is: "cpu", "cuda", "cuda:1", "mps". By default the CPU.
        checkpoint: When a run that is stopped can go on: after each "phase" of training, each "epoch", or each so many
            steps.
        keep_final: The final fit starts with each matrix times this. Below 1 the fit keeps the
            directions that growth found and not its confidence: weights that were trained on a part of the data end
            in worse minima than young ones do (Ash and Adams 2020). By default "found" where there are trials. Each
            is then fitted from 1 and from 0.2, and the final fit starts as the better one did. Without trials it is 0.2
            from 10 000 samples on where growth began from nothing, else 1.
        weights_final: What the final fit starts from: the "grown" weights, or "new" ones, as the found architecture has
            them before any training. Gauss-Newton morphisms reports networks that were trained anew.
        recalibrate: Batches from which running statistics of norms are taken anew, before a growth is measured and
            after it; 0 leaves them as they are. Networks without such statistics are not concerned.
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
    keep_final: Annotated[Share | Literal["found"], told_as('a share above 0 and at most 1, or "found"')] | None = None
    weights_final: Literal["grown", "new"] = "grown"
    fresh: FreshState | None = None
    rate: RateConfig = RateConfig()
    clip: Positive | None = None
    amp: Literal["bfloat16", "float16"] | None = None
    accumulate: Count = 1
    stopping: Stopping | None = None
    device: Word | None = None
    checkpoint: Annotated[
        Literal["phase", "epoch"] | Count, told_as('"phase", "epoch", or a whole number of steps above 0')
    ] = "phase"
    recalibrate: Whole = 30

    @field_validator("rate", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    def resolved(self, samples: int) -> TrainConfig:
        """The same with every default that depends on the data filled in."""
        batch = self.batch_size or (64 if samples < 10_000 else 256)
        final = self.epochs_final or min(60, max(30, round(3000 * batch / samples)))
        between = self.epochs_between or (max(1, round(final / 4)) if samples < 10_000 else 1)
        steps = math.ceil(samples / batch)
        keep = KEEP if samples >= 10_000 and self.weights_final == "grown" else 1.0
        trial = self.epochs_trial or max(math.ceil(final / 2), math.ceil(FEW_STEPS / steps))
        given: dict[str, object] = {
            "batch_size": batch,
            "epochs_final": final,
            "epochs_between": between,
            "epochs_trial": trial,
            "keep_final": self.keep_final or keep,
            "fresh": self.fresh or "small",
        }
        return self.model_copy(update=given)


class ObjectiveConfig(Section):
    """What is minimised.

    Attributes:
        name: "cross_entropy", "mse", or "package.module:function", a function of the network's outputs and the target
            that gives a loss for each sample. By default cross-entropy of classes, else mse.
        axis: Where the logits of a dense prediction have the classes, 1 or -1. By default as the shapes say.
    """

    name: Word | None = None
    axis: Literal[1, -1] | None = None


class RunConfig(Section):
    """One growth run.

    Attributes:
        name: Of the run directory and the graph; a file's name, if it has one.
        network: What growth starts from: a network's folder, a document (.json), or "package.module:function", which
            gives a network, a graph or a torch model that growir imported. By default nothing, for policies that start
            from nothing.
        seed: Everything random is a function of it.
        threads: Of torch. By default one where a training step is small, else torch's choice. Small is one of at most
            `SMALL_STEP`. Results are the same to the bit only at one number.
    """

    name: FolderName = "run"
    network: Annotated[str, Field(max_length=MAX_PATH)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    threads: Annotated[int, Field(strict=True, gt=0, le=MAX_THREADS)] | None = None
    data: DataConfig = DataConfig()
    policy: SerializeAsAny[PolicySettings] = Field(default_factory=lambda: settings_class({})())
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: SerializeAsAny[Scheduled] = Alternating()
    train: TrainConfig = TrainConfig()
    budget: BudgetConfig = BudgetConfig()

    def located(self, place: Callable[[str], str]) -> RunConfig:
        """The same with each data file where `place` says it is. Raises RunError if that cannot be."""
        files = {"path": self.data.path, "test": self.data.test}
        if self.data.path == "digits" or is_named(self.data.path):
            del files["path"]
        found = self.updated(data={k: place(file) for k, file in files.items() if isinstance(file, str) and file})
        if self.network is None or is_named(self.network):
            return found
        return found.model_copy(update={"network": place(self.network)})

    def updated(self, *, data: Mapping[str, object]) -> RunConfig:
        """The same with other settings of [data]. Raises RunError if that cannot be."""
        settings = self.model_dump(exclude_none=True)
        settings["data"] |= data
        return parse_run(settings, self.name)

    def started_from(self, given: bool) -> RunConfig:
        """The same for a run that starts from a given network, or from nothing, with the defaults that follow from it.

        The weights of a given network are kept by the final fit, whose length is not tried, and neither are sizes.
        """
        given = given or self.policy.ends_growth
        schedule = self.schedule.started_from(given, self.train.epochs_final)
        keep: object = self.train.keep_final
        if keep is None and schedule.trials:
            keep = "found" if self.train.weights_final == "grown" else 1.0
        elif keep is None and given:
            keep = 1.0
        train = self.train.model_copy(update={"keep_final": keep})
        return self.model_copy(update={"schedule": schedule, "train": train})

    def going_on_from(self, started: RunConfig) -> RunConfig:
        """The same for going on with a run, on as many threads unless told otherwise.

        What the run's file does not name was unknown when it started, and stays off.
        """
        given: dict[str, object] = {"threads": self.threads or started.threads}
        before: Mapping[str, Mapping[str, object]] = {
            "train": {"keep_final": 1.0, "fresh": "mean"},
            "schedule": {"trials": 0.0, "lengths": False},
        }
        for name, values in before.items():
            then, now = getattr(started, name), getattr(self, name)
            unknown = {k: v for k, v in values.items() if getattr(then, k) is getattr(now, k) is None}
            if unknown and not isinstance(now, Named):
                given[name] = now.model_copy(update=unknown)
        if self.budget.parameters is self.budget.macs is None:  # which may follow from the network that was given
            given["budget"] = self.budget.model_copy(update={"parameters": started.budget.parameters})
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
        images = (0.98,) if self.policy.reads_maps else (0.9, 0.95, 0.98)
        variance = self.data.variance or (images if len(inputs) > 1 else 1.0)
        if isinstance(variance, tuple) and len(variance) == 1:
            (variance,) = variance
        data = self.data.model_copy(update={"variance": variance})
        tried = bool(self.schedule.trials)
        parameters = self.budget.parameters or self.policy.most_parameters(samples, math.prod(inputs), outputs, tried)
        budget = self.budget.model_copy(update={"parameters": parameters})
        train = self.train.resolved(samples)
        # In a fully connected layer a parameter is used once, in a convolution once at each position of the image.
        positions = math.prod(sorted(inputs)[-2:]) if self.policy.reads_maps else 1
        largest = max(macs, min((parameters or macs) * positions, budget.macs or MOST))
        small = min(train.batch_size or samples, samples) * largest <= SMALL_STEP
        threads = self.threads or (1 if small else None)
        return self.model_copy(update={"threads": threads, "data": data, "train": train, "budget": budget})

    def to_toml(self) -> str:
        """The run file that gives this configuration."""
        return run_file(self.model_dump(mode="json", exclude_none=True))


DIGITS = RunConfig(
    name="digits",
    threads=1,  # layers this small only wait for each other on more
    data=DataConfig(path="digits", task="classification", standardise="global"),
    train=TrainConfig(weight_decay=0.3, epochs_final=60),  # a length to find would take a demo half a minute
    budget=BudgetConfig(parameters=5000),
)


SECTIONS = ("data", "policy", "objective", "optimizer", "schedule", "train", "budget")
_FIXED: Mapping[str, type[Section]] = {
    "data": DataConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "budget": BudgetConfig,
}


def section_models(section: str) -> Mapping[str, type[Section]]:
    """The models that a section may be read by, by what its `name` says; one by "" where it has no name."""
    if section == "policy":
        return {name: settings_class({"name": name}) for name in (DEFAULT, *policy_names())}
    return SCHEDULES if section == "schedule" else {"": _FIXED[section]}


def _model(section: str, given: Mapping[str, Any], known: Known | None) -> type[Section]:
    """The model of a section with these entries. Raises RunError if it has a name that nothing has."""
    if section == "policy":
        return settings_class(given, known)
    return schedule_class(given) if section == "schedule" else _FIXED[section]


def _of_another_name(section: str, given: Mapping[str, Any], model: type[Section]) -> dict[str, Problem]:
    """The keys of a section that it would take only if it had another name, and what to say of each."""
    found: dict[str, Problem] = {}
    for key in given.keys() - model.model_fields.keys():
        names = [name for name, other in section_models(section).items() if key in other.model_fields]
        if names:
            name = given.get("name", model.model_fields["name"].default)
            text = f"{section} {cut(repr(name))} has no {key!r}; {one_of([repr(each) for each in names])} has it"
            found[key] = Problem(f"[{section}]", f"{text}: give its name as well, or leave this out")
    return found


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over other ones, section by section; a section of another name takes the place of the one below."""
    found = dict(below)
    for key, value in above.items():
        section, under = as_section(key, value), found.get(key)
        if not (isinstance(section, dict) and isinstance(under, dict)):
            found[key] = section
            continue
        said = cast("dict[str, Any]", section)
        known = cast("dict[str, Any]", under)
        other = "name" in said and said["name"] != known.get("name", said["name"])
        found[key] = said if other else {**known, **said}
    return found


def as_section(key: str, value: Any) -> Any:
    """What may stand short for a section, written out: policy = "random", or policy = ["random", "dag"]."""
    if key in ("policy", "objective", "optimizer", "schedule") and isinstance(value, str):
        return {"name": value}
    if key == "policy" and isinstance(value, list | tuple):
        return {"name": CONTEST, "policies": list(cast("Sequence[Any]", value))}
    return value


def parse_run(data: Mapping[str, Any], source: str, known: Known | None = None) -> RunConfig:
    """A configuration from decoded TOML.

    Args:
        data: The sections; [policy] may be the settings themselves.
        source: What messages call it.
        known: The settings of policies that have no name of their own here, since they were given as objects.

    Raises:
        RunError: With every wrong key.
    """
    found = checked_run(data, known)
    if isinstance(found, RunConfig):
        return found
    raise RunError(listed(found, cut(source), "wrong entries"))


def checked_run(data: Mapping[str, Any], known: Known | None = None) -> RunConfig | list[Problem]:
    """A configuration from decoded TOML, or all that is wrong with it."""
    problems: list[Problem] = []
    rest, valid = dict(data), dict[str, BaseModel]()
    usual = DEFAULT if data.get("network") is None else GIVEN
    for key in SECTIONS:
        section = as_section(key, rest.pop(key, {}))
        if key == "policy" and isinstance(section, PolicySettings):
            valid[key] = section
            continue
        if key == "schedule" and isinstance(section, dict) and "name" not in section and "policy" in valid:
            usual_schedule = cast("PolicySettings", valid["policy"]).usual_schedule
            section = {**usual_schedule, **cast("dict[str, Any]", section)}
        if not isinstance(section, dict):
            given = cut(json.dumps(section, default=str))
            problems.append(Problem(key, f"this is a section, [{key}], but {given} is given"))
            continue
        try:
            named = cast("dict[str, Any]", {"name": usual, **section} if key == "policy" else section)
            model = _model(key, named, known)
        except RunError as error:
            problems.append(Problem(f"[{key}] name", str(error)))
            continue
        strange = _of_another_name(key, named, model)
        problems += strange.values()
        try:
            fitting = {name: entry for name, entry in named.items() if name not in strange}
            valid[key] = model.model_validate(fitting, context=known)
        except ValidationError as error:
            problems += field_problems(f"[{key}]", f"[{key}]", error, model)
    try:
        config = RunConfig.model_validate(rest)
    except ValidationError as error:
        return [*problems, *field_problems("", "a run file", error, RunConfig)]
    return problems or config.model_copy(update=valid)
