"""What people see: the screen, tables, figures, the report, MLflow.

Imports `analysis` and the layers below it.
"""
