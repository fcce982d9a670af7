"""A kind of model from outside the bench: a linear classifier, as a distribution of its own would bring it."""
