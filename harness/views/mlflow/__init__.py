"""The journal as it is shown in MLflow."""
