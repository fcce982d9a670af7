from typing import Any

from keras import Variable
from keras.optimizers import schedules as schedules
from tensorflow import Tensor

class Adam:
    iterations: Variable
    _momentums: list[Variable]
    _velocities: list[Variable]
    def __init__(
        self,
        learning_rate: Any = ...,
        beta_1: float = ...,
        beta_2: float = ...,
        epsilon: float = ...,
        *,
        name: str = ...,
        **kwargs: Any,
    ) -> None: ...
    def build(self, variables: list[Variable]) -> None: ...
    def apply(self, grads: list[Tensor], trainable_variables: list[Variable] | None = ...) -> None: ...
    def _get_variable_index(self, variable: Variable) -> int: ...

def __getattr__(name: str) -> Any: ...
