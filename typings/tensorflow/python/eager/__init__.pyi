from typing import Any

execute: Any
