"""How fast is a training step, what is it made of, and how far is it from what this machine can do? `capsbench speed`."""
