from typing import Any

from keras import Variable

class Layer:
    built: bool
    dtype: Any
    name: str
    path: str
    def __init__(self, *, dtype: Any = ..., name: str | None = ..., **kwargs: Any) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def build(self, input_shape: Any) -> None: ...
    def add_weight(self, shape: Any = ..., *, name: str | None = ..., **kwargs: Any) -> Variable: ...
    @property
    def trainable_variables(self) -> list[Variable]: ...
    @property
    def trainable_weights(self) -> list[Variable]: ...

class Conv2D(Layer):
    kernel: Variable
    bias: Variable
    use_bias: bool
    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = ..., padding: str = ..., *, dtype: Any = ..., **kwargs: Any
    ) -> None: ...

class Dense(Layer):
    kernel: Variable
    bias: Variable
    use_bias: bool
    def __init__(self, units: int, activation: Any = ..., *, dtype: Any = ..., **kwargs: Any) -> None: ...

def __getattr__(name: str) -> Any: ...
