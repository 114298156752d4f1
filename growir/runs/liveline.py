"""What the live line of a run says beside its bar: epoch, training loss, score on the selection part, time left."""

from __future__ import annotations

from growir.runs.records import Event, Fitted, Growth, Trained
from growir.runs.values import Metrics


class LiveLine:
    """Keeps what was heard of a run; the words are made only when a line is drawn."""

    def __init__(self) -> None:
        self._phase = ""  # the one that is timed
        self._done = 0  # of its work, when last asked
        self._started: tuple[float, int] = (0.0, 0)  # when it was first asked about, and how much was done by then
        self._epoch: tuple[str, int, int, float] | None = None
        self._score = ""

    def epoch(self, phase: str, done: int, total: int, loss: float) -> None:
        """Take note of an epoch that is over, and of its mean training loss."""
        self._epoch = (phase, done, total, loss)

    def event(self, event: Event) -> None:
        """Take note of a score, if the event has one."""
        match event:
            case Growth():
                self._score = _score(event.after.get("selection"))
            case Trained():
                self._score = _score(event.selection)
            case Fitted() if not event.trial:
                self._score = ""  # what follows is another network, or trains on that part too
            case _:
                pass

    def said(self, phase: str, done: int, total: int, now: float) -> str:
        """The words beside the bar.

        Args:
            phase: What is being done.
            done: How much of it.
            total: How much there is to do.
            now: The time in seconds, on a clock that only advances.
        """
        if phase != self._phase or done < self._done:
            self._phase, self._started = phase, (now, done)
            if self._epoch is not None and self._epoch[1] == self._epoch[2]:
                self._epoch = None  # of the training before
        self._done = done
        parts: list[str] = []
        if self._epoch is not None and self._epoch[0] == phase:
            _, epochs, all_epochs, loss = self._epoch
            parts += [f"epoch {min(epochs + 1, all_epochs)} of {all_epochs}", f"loss {loss:.3g}"]
        if self._score and phase != "final fit":  # which trains on the selection part too
            parts.append(f"selection {self._score}")
        since, already = self._started
        if done > already:
            parts.append(f"{_clock((now - since) * (total - done) / (done - already))} left")
        return "  ".join(parts)


def _score(found: Metrics | None) -> str:
    """The share that is correct, or the loss of a regression; nothing where nothing was measured."""
    if found is None:
        return ""
    accuracy, loss = found.get("accuracy"), found.get("loss")
    if accuracy is not None:
        return f"{accuracy:.1%}"
    return "beyond float32" if loss is None else f"{loss:.3g}"


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours too."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
