"""Modes "forward train", "loss", "backward" and "buffers": one pass in train mode, seen whole.

Gradients are compared of the output of every site (in the order in which the backward pass meets
them) and of every parameter; buffers (running statistics and counters) as the one forward pass
left them.
"""

from comparison.modes.forward import report_output
from comparison.probe import Sink, taps
from comparison.sides import Batch, Side
from comparison.verdict import Key

FORWARD, LOSS, BACKWARD, BUFFERS = "forward train", "loss", "backward", "buffers"


def observe(side: Side, batch: Batch, names: dict[str, str], sink: Sink) -> None:
    """Run a batch forward and backward in train mode and report all that comes of it.

    Args:
        side: The side to run; its buffers and gradients are changed.
        batch: Images and labels.
        names: Path of each site in this side's model to its name.
        sink: Receives every tensor.
    """
    images, labels = side.sees(batch)
    restoring = side.restoring(sink)
    side.model.train()
    side.model.zero_grad(set_to_none=True)
    with taps(side.model, names, restoring, FORWARD, gradient_mode=BACKWARD):
        output = side.model(images)
        report_output(FORWARD, output, restoring)
        loss = side.loss(output, labels)
        sink(Key(LOSS, "network", "loss"), loss)
        loss.backward()
    report_gradients(side, sink)
    for key, buffer in side.model.named_buffers():
        sink(Key(BUFFERS, side.named(key), "buffer"), buffer)


def report_gradients(side: Side, sink: Sink) -> None:
    """Report the gradients of all parameters, last layers first, as the backward pass goes."""
    for name, parameter in reversed(side.parameters().items()):
        if parameter.grad is not None:
            sink(Key(BACKWARD, name, "parameter gradient"), parameter.grad)
