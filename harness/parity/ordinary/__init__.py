"""Ordinary PyTorch and Keras models, compared as they are: their parts are found automatically, without an adapter."""
