"""One folder a task: data, losses and metrics. Classification is the first."""
