"""The journal as shown in MLflow."""
