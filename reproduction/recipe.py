"""Recipes as data: which optimizer and which schedule, for any task.

The classification recipe with its citations is `reproduction.config.TrainConfig`; it has the same
fields as far as it needs them.
"""

from dataclasses import dataclass

from reproduction.errors import UserError

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("step", "poly")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        optimizer: ``sgd`` or ``adam`` (with PyTorch's default betas).
        learning_rate: At the start.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: On all parameters.
        batch_size: Images a step.
        epochs: Passes over the training images.
        schedule: ``step`` or ``poly``.
        milestones: Of ``step``: shares of the run's steps at which the rate falls.
        gamma: Of ``step``: the factor by which it falls.
        power: Of ``poly``.
        head_rate_factor: The rate of the head, as a multiple of the body's.
        sync_norm: Whether batch normalization on several devices sees the images of all.
        source: Where the values come from.
    """

    optimizer: str
    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch_size: int
    epochs: int
    schedule: str = "step"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    power: float = 0.9
    head_rate_factor: float = 1.0
    sync_norm: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise UserError(f"{name} {given!r} is unknown; use {' or '.join(known)}")
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name} is {value!r}; give a whole number of at least 1")
        for name in ("learning_rate", "momentum", "weight_decay", "head_rate_factor"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number of at least 0")
