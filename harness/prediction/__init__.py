"""What a trained model says of pictures that no data set has: finding and fitting them, and the model itself.

Imports no framework by itself; Pillow only where a picture is read.
"""
