"""Ordinary models of PyTorch and Keras, compared as they are: what is what in them is found, nothing is written for them."""
