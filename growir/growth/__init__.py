"""Growth: algorithms that decide what grows, when and with which weights, and the engine that runs them."""

from growir.growth.api import grow
from growir.growth.observer import GrowthResult as GrowthResult
from growir.growth.predicting import predict

__all__ = ["GrowthResult", "grow", "predict"]
