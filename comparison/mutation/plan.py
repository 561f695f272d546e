"""What a trial of the checker consists of, as data: benches, and how much is tried on each."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Two benches: a reference, and candidates in its own module tree and in another.

    Attributes:
        network: Official name.
        image_size: Height and width of the images.
        batch_size: Images a batch.
        seed: Of weights and images, added to the trial's own; an odd sum gives the other form of
            the other tree.
        faults: How many faults are injected, half of them in each tree.
        changes: How many harmless candidates are tried, half of them in each tree.
    """

    network: str
    image_size: int = 64
    batch_size: int = 4
    seed: int = 0
    faults: int
    changes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A trial.

    Attributes:
        settings: One pair of benches each, in order.
        checkers: How many mutants of the checker are tried, on the first bench; None for all.
    """

    settings: tuple[Setting, ...]
    checkers: int | None = None


_V1, _V2 = "cls_hrnet_w18_small_v1", "cls_hrnet_w18_small_v2"

PLANS = {
    "full": Plan(
        settings=(
            Setting(network=_V1, faults=48, changes=26),
            Setting(network=_V1, image_size=96, batch_size=2, seed=1, faults=32, changes=24),
            Setting(network=_V1, batch_size=3, seed=2, faults=32, changes=24),
            Setting(network=_V2, batch_size=2, seed=3, faults=32, changes=24),
            Setting(network=_V2, image_size=96, batch_size=2, seed=4, faults=16, changes=12),
        )
    ),
    "quick": Plan(settings=(Setting(network=_V1, faults=6, changes=2),), checkers=2),
    "smoke": Plan(settings=(Setting(network=_V1, faults=2, changes=2),), checkers=1),
}
