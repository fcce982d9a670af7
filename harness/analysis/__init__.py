"""What results mean: cells of trials, equivalence, comparison, costs, published figures. Numbers in, numbers out.

Imports `journal` and the layers below it; nothing that draws or prints.
"""
