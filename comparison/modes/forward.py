"""Mode "forward eval": every site and the output, with the running statistics of the state."""

import torch

from comparison.probe import Sink, taps, tensors_in
from comparison.sides import Batch, Side
from comparison.verdict import Key

MODE = "forward eval"


def observe(side: Side, batch: Batch, names: dict[str, str], sink: Sink) -> None:
    """Run a batch in eval mode and report inputs and outputs of all sites, and the output.

    Args:
        side: The side to run; its modes are left in eval.
        batch: The images.
        names: Path of each site in this side's model to its name.
        sink: Receives every tensor.
    """
    sink = side.restoring(sink)
    side.model.eval()
    with torch.no_grad(), taps(side.model, names, sink, MODE):
        output = side.model(side.sees(batch).images)
    report_output(MODE, output, sink)


def report_output(mode: str, output: object, sink: Sink) -> None:
    """Report what the whole network returns."""
    for index, tensor in enumerate(tensors_in(output)):
        sink(Key(mode, "network", f"output {index}"), tensor.detach())
