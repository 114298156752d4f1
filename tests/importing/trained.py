"""Small models that train in their own way, each a forward over a few layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.importing.models import Model


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(x, 0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, strength: float) -> torch.Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.strength * grads[0], None


class SmallSteps(torch.autograd.Function):
    """Limits the gradient, which shows only where it is large."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0].clamp(-50, 50)


class Far(torch.autograd.Function):
    """Is the identity where the model's numbers are, and passes gradients beyond."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-8, 8)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]


class Swish(torch.autograd.Function):
    """Saves memory, and has the gradient that autograd would find."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grads[0] * (s * (1 + x * (1 - s)))


bound_before = Clip.apply


class Straight(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(bound_before(self.fc(x)))  # here


class Adversary(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.fc(x))
        return self.head(h) + self.other(Reverse.apply(h, 0.5))  # here


class Limited(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(SmallSteps.apply(self.fc(x)))  # here


class FarAway(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(Far.apply(self.fc(x)))  # here


class Hooked(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.fc(x))
        if h.requires_grad:
            h.register_hook(lambda grad: grad * 0.1)  # here
        return self.head(h)


class ClippedByHook(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        if h.requires_grad:
            h.register_hook(lambda grad: grad.clamp(-50, 50))  # here
        return self.head(h)


class Counter(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count.add_(1)  # here
        return self.fc(x) * (self.count / 10).clamp(max=1)


class Decay(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x) / self.count
        if self.training:
            self.count.mul_(0.9)  # here
        return y


class Assigned(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count = self.count + 1  # type: ignore[has-type]  # here
        return self.fc(x) * self.count


class Averages(Model):
    """Keeps an average of what it saw, and reads it in eval mode alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        if self.training:
            with torch.no_grad():
                self.count.mul_(0.9).add_(y.mean() * 0.1)  # here
            return y
        return y - self.count


class Clamped(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.fc.weight.data.clamp_(min=0)  # here
        return self.fc(x)


class CountsInPython(Model):
    """Detaches from its third step on, which no program shows."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        h = self.fc(x)
        return self.head(h.detach() if self.calls > 2 else h)


class Noisy(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        if self.training:
            y = y + torch.randn_like(y) * self.count  # here
        return y


class Asks(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        if self.training:
            y = y.detach()  # here
        return self.head(y)


# -- no difference ------------------------------------------------------------------------------------------------


class Remembers(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(Swish.apply(self.fc(x)))


class Looks(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        if h.requires_grad:
            h.register_hook(lambda grad: self.seen.append(float(grad.norm())))
        return self.head(h)


class Contiguous(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x).view(x.shape[0], 2, 2).transpose(1, 2)
        if self.training:
            h = h.contiguous().clone().to(h.dtype)
        return self.head(h.reshape(x.shape[0], 4))


class DroppedAttention(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x).view(x.shape[0], 2, 2)
        h = F.scaled_dot_product_attention(h, h, h, dropout_p=0.1 if self.training else 0.0)
        return self.head(h.transpose(1, 2).contiguous().reshape(x.shape[0], 4))


class DropsInTraining(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        if self.training:
            h = F.dropout(h, 0.3)
        return self.head(h)


class KeepsItsBias(Model):
    """What LeViT and EfficientFormer do with the biases of their attention."""

    def train(self, mode: bool = True) -> KeepsItsBias:
        super().train(mode)
        with torch.no_grad():
            self.kept: Any = None if mode else self.table[:, self.index]
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias: torch.Tensor = self.table[:, self.index] if self.training else self.kept
        return self.head(torch.softmax(self.fc(x) + bias.reshape(1, 4), -1))


class KeepsItsBiases(Model):
    """The same, kept at the first call in eval mode."""

    def train(self, mode: bool = True) -> KeepsItsBiases:
        super().train(mode)
        if mode:
            self.kept.clear()
        return self

    def bias(self) -> torch.Tensor:
        if self.training:
            return self.table[:, self.index]
        if "cpu" not in self.kept:
            self.kept["cpu"] = self.table[:, self.index]
        return self.kept["cpu"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.softmax(self.fc(x) + self.bias().reshape(1, 4), -1))


class Checkpointed(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = checkpoint(lambda y: F.dropout(torch.relu(self.fc(y)), 0.2, self.training), x, use_reentrant=False)
        return self.head(h)


class Statistics(Model):
    """Counts what nobody reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count.add_(x.abs().mean().detach())
        return self.head(self.norm(self.fc(x)))


def head() -> nn.Linear:
    return nn.Linear(4, 3)


def with_buffer(kind: type[Model], value: float = 3.0, **parts: nn.Module) -> Model:
    model = kind(**parts)
    model.register_buffer("count", torch.tensor([value]))
    return model


def biased(kind: type[Model], kept: Any) -> Model:
    index = torch.tensor([[0, 1], [1, 0]])
    return kind(head=head(), table=nn.Parameter(torch.randn(1, 2)), index=index, kept=kept)


def backward_hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[1].register_full_backward_hook(lambda part, given, out: (given[0] * 2,))  # type: ignore[index]
    return model


def parameter_hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[0].get_parameter("weight").register_hook(lambda grad: grad * (torch.arange(4)[:, None] > 1))
    return model


def watched() -> nn.Module:
    """With hooks that only look, as libraries for logging put them everywhere."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    seen: list[float] = []
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: seen.append(float(grad.norm())))
        parameter.register_post_accumulate_grad_hook(lambda p: seen.append(float(p.norm())))
    model[2].register_full_backward_hook(lambda part, given, out: seen.append(1.0))
    return model


# By name: the model, and what the mark of it says.
DIFFERENT: dict[str, tuple[Any, str]] = {
    "straight through": (lambda: Straight(head=head()), "its backward is its own"),
    "reversal": (lambda: Adversary(head=head(), other=head()), "its backward is its own"),
    "limited": (lambda: Limited(head=head()), "its backward is its own"),
    "far": (lambda: FarAway(head=head()), "its backward is its own"),
    "hook": (lambda: Hooked(head=head()), "a hook changes the gradient"),
    "clipping hook": (lambda: ClippedByHook(head=head()), "a hook changes the gradient"),
    "module hook": (backward_hooked, "1: its backward hook changes the gradient"),
    "parameter hook": (parameter_hooked, "0.weight: a hook changes the gradient"),
    "counter": (lambda: with_buffer(Counter), "changes 'count', which the outputs are computed from"),
    "decay": (lambda: with_buffer(Decay), "changes 'count', which the outputs are computed from"),
    "assigned": (lambda: with_buffer(Assigned), "changes 'count', which the outputs are computed from"),
    "averages": (lambda: with_buffer(Averages), "changes 'count', which the outputs are computed from"),
    "clamped": (Clamped, "changes 'fc.weight', which the outputs are computed from"),
    "counts in python": (lambda: CountsInPython(head=head()), "the gradient of fc."),
    "noise": (lambda: with_buffer(Noisy, 0.0), "torch.randn_like(y)"),
    "asks": (lambda: Asks(head=head()), "y = y.detach()"),
}
ALIKE: dict[str, Any] = {
    "saves memory": lambda: Remembers(head=head()),
    "looks": lambda: Looks(head=head(), seen=[]),
    "watched": watched,
    "contiguous": lambda: Contiguous(head=head()),
    "dropped attention": lambda: DroppedAttention(head=head()),
    "drops in training": lambda: DropsInTraining(head=head()),
    "keeps its bias": lambda: biased(KeepsItsBias, None).eval(),
    "keeps its biases": lambda: biased(KeepsItsBiases, {}).eval(),
    "checkpointed": lambda: Checkpointed(head=head()),
    "statistics": lambda: with_buffer(Statistics, norm=nn.BatchNorm1d(4), head=head()),
    "norm without momentum": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None), nn.ELU()),
}
